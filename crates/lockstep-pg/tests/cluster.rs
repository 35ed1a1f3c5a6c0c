//! The private cluster: it starts fast, and whatever happens nothing of it stays behind.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use lockstep_pg::cluster::process::{self, Signal};
use lockstep_pg::cluster::{Applied, Cluster, StopMode};

/// Set for the child that [`killed_parent_takes_the_server_along`] starts.
const HOLDER: &str = "LOCKSTEP_TEST_HOLDS_CLUSTER";

fn temporary() -> Cluster {
    Cluster::builder().start().expect("a temporary cluster starts")
}

/// The first column of the first row as text.
fn ask(url: &str, sql: &str) -> Result<String, tokio_postgres::Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await?;
        let driver = tokio::spawn(connection);
        let answer = client.simple_query(sql).await?;
        drop(client);
        let _ = driver.await;
        let row = answer.iter().find_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        });
        Ok(row.unwrap_or_default())
    })
}

/// Whether a process names `folder` on its command line: the server, or a child that has not renamed itself yet.
fn is_served(folder: &Path) -> bool {
    let wanted = folder.as_os_str().as_encoded_bytes();
    let mut commands =
        fs::read_dir("/proc").expect("/proc").flatten().map(|entry| entry.path().join("cmdline"));
    commands.any(|file| fs::read(file).is_ok_and(|words| words.split(|b| *b == 0).any(|w| w == wanted)))
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// A folder that the server's user can enter, deleted at the end.
fn open_folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("its mode is set");
    folder
}

#[test]
fn starts_answers_and_leaves_nothing() {
    drop(temporary());
    let begun = Instant::now();
    let cluster = temporary();
    let took = begun.elapsed();
    // Half a second on an idle machine; the tests beside this one use the processor too.
    assert!(took < Duration::from_secs(5), "a start took {took:?}");
    println!("a start from the template took {took:?}");
    assert_eq!(ask(&cluster.url(), "show wal_level").expect("it answers"), "logical");
    assert_eq!(ask(&cluster.url(), "show unix_socket_directories").expect("it answers"), "");
    assert_eq!(ask(&cluster.url(), "show listen_addresses").expect("it answers"), "127.0.0.1");
    assert_eq!(ask(&cluster.url(), "select current_user").expect("it answers"), "postgres");
    let wrong = cluster.url().replace(cluster.password(), "wrong");
    assert!(ask(&wrong, "select 1").is_err(), "a wrong password is refused");
    let data = cluster.data_dir();
    assert!(is_served(&data));
    drop(cluster);
    assert!(!is_served(&data));
    assert!(!data.parent().expect("the home").exists(), "the folder is deleted");
}

#[test]
fn as_root_the_server_is_somebody_else() {
    let cluster = temporary();
    let owner =
        fs::metadata(format!("/proc/{}", cluster.pid().expect("it runs"))).expect("its process").uid();
    let status =
        fs::read_to_string(format!("/proc/{}/status", cluster.pid().expect("it runs"))).expect("its status");
    let groups = status.lines().find_map(|line| line.strip_prefix("Groups:")).expect("its groups").trim();
    if is_root() {
        assert_eq!(owner, 65534);
        assert_eq!(groups, "", "root's groups are given up");
    } else {
        assert_eq!(owner, nix::unistd::geteuid().as_raw());
    }
    let password = cluster.data_dir().parent().expect("the home").join("password");
    assert_eq!(fs::metadata(password).expect("the password file").mode() & 0o777, 0o600);
}

#[test]
fn restarts_keep_port_and_data() {
    let mut cluster = temporary();
    let port = cluster.port();
    ask(&cluster.url(), "create table kept (n int)").expect("a table is made");
    for (n, mode) in [(1, StopMode::Smart), (2, StopMode::Fast), (3, StopMode::Immediate)] {
        ask(&cluster.url(), &format!("insert into kept values ({n})")).expect("a row is written");
        let before = cluster.pid();
        cluster.restart(mode).expect("it restarts");
        assert_ne!(cluster.pid(), before);
        assert_eq!(cluster.port(), port);
        assert_eq!(ask(&cluster.url(), "select count(*) from kept").expect("it answers"), n.to_string());
    }
    let pid = cluster.pid().expect("it runs");
    cluster.stop(StopMode::Fast).expect("it stops");
    assert!(!process::is_alive(pid));
    assert_eq!(cluster.pid(), None);
    cluster.stop(StopMode::Fast).expect("stopping twice is fine");
    cluster.start_again().expect("it starts again");
    assert!(cluster.start_again().is_err(), "a running server is not started twice");
    // As after an out-of-memory kill: the server is gone without our doing, `postmaster.pid` is still there.
    process::send(cluster.pid().expect("it runs"), Signal::SIGKILL).expect("it is killed");
    // 14's autovacuum launcher asks the collector of statistics, which is gone too, for ten seconds before it looks
    // whether it is alone.
    let mut said = String::new();
    let again = process::wait_until(Duration::from_secs(60), || match cluster.start_again() {
        Ok(()) => true,
        Err(error) => {
            said = format!("{error:#}");
            false
        }
    });
    assert!(again, "it starts after it was killed: {said}");
    assert_eq!(ask(&cluster.url(), "select count(*) from kept").expect("it answers"), "3");
}

#[test]
fn settings_change_while_it_runs() {
    let cluster = Cluster::builder()
        .setting("work_mem", "5MB")
        .setting("lockstep.note", "it's")
        .start()
        .expect("starts");
    assert_eq!(ask(&cluster.url(), "show work_mem").expect("it answers"), "5MB");
    assert_eq!(ask(&cluster.url(), "show lockstep.note").expect("it answers"), "it's");
    assert_eq!(cluster.set("work_mem", "6MB").expect("it is set"), Applied::Now);
    assert_eq!(ask(&cluster.url(), "show work_mem").expect("it answers"), "6MB");
    assert_eq!(cluster.set("max_connections", "42").expect("it is set"), Applied::AtRestart);
    let refused = cluster.set("work_mem", "lots").expect_err("nonsense is refused").to_string();
    assert!(refused.contains("work_mem"), "{refused}");
    let mut cluster = cluster;
    cluster.restart(StopMode::Fast).expect("the refused value does not prevent a start");
    assert_eq!(ask(&cluster.url(), "show max_connections").expect("it answers"), "42");
    assert_eq!(ask(&cluster.url(), "show work_mem").expect("it answers"), "6MB");
}

#[test]
fn several_start_at_once() {
    let threads: Vec<_> = (0..3).map(|_| std::thread::spawn(temporary)).collect();
    // The threads are over when the clusters are used: the servers must not have ended with them.
    let clusters: Vec<Cluster> =
        threads.into_iter().map(|thread| thread.join().expect("it starts")).collect();
    for cluster in &clusters {
        assert_eq!(ask(&cluster.url(), "show port").expect("it answers"), cluster.port().to_string());
    }
    assert_ne!(clusters[0].port(), clusters[1].port());
    assert_ne!(clusters[0].data_dir(), clusters[1].data_dir());
}

#[test]
fn failed_start_says_why_and_leaves_nothing() {
    let folder = open_folder();
    let home = folder.path().join("home");
    let builder = Cluster::builder().home(&home).durable(false);
    let error = builder.clone().setting("shared_buffers", "none").start().expect_err("it cannot start");
    assert!(format!("{error:#}").contains("shared_buffers"), "{error:#}");
    assert!(!is_served(&home.join("data")));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("its number").port();
    let error = builder.clone().port(port).start().expect_err("the port is taken");
    assert!(error.to_string().contains(&format!("port {port} is taken")), "{error:#}");
    assert!(!is_served(&home.join("data")));
    builder.start().expect("the same folder is good for the next attempt");
}

#[test]
fn kept_cluster_is_kept_and_has_one_owner() {
    let folder = open_folder();
    // Longer than a socket's path may be.
    let home = folder.path().join("a-rather-long-name-".repeat(7)).join("home");
    let builder = Cluster::builder().home(&home).durable(false);
    let first = builder.clone().start().expect("it starts");
    ask(&first.url(), "create table kept (n int)").expect("a table is made");
    let error = builder.clone().start().expect_err("it is in use").to_string();
    assert!(error.contains(&format!("in use by process {}", std::process::id())), "{error}");
    assert!(Cluster::forget(&home).is_err(), "it is not deleted while in use");
    let url = first.url();
    drop(first);
    let second = builder.clone().start().expect("it starts");
    assert_eq!(second.url(), url);
    assert_eq!(ask(&second.url(), "select count(*) from kept").expect("it is kept"), "0");
    drop(second);
    // What a killed run leaves behind when its number has gone to another process: this one.
    fs::write(home.join("data/postmaster.pid"), format!("{}\n", std::process::id())).expect("a stale file");
    drop(builder.start().expect("a stale file does not prevent a start"));
    Cluster::forget(&home).expect("it is deleted");
    assert!(!home.exists());
    Cluster::forget(&home).expect("what is not there is fine");
}

#[test]
fn closed_folder_is_worked_around() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).expect("its mode is set");
    let home = folder.path().join("home");
    let builder = Cluster::builder().home(&home).durable(false);
    let cluster = builder.clone().start().expect("it starts");
    let real = fs::canonicalize(&home).expect("the home can be found");
    assert_eq!(home.is_symlink(), is_root(), "only nobody needs another place");
    ask(&cluster.url(), "create table kept (n int)").expect("a table is made");
    drop(cluster);
    let cluster = builder.start().expect("it is found again");
    assert_eq!(ask(&cluster.url(), "select count(*) from kept").expect("it is kept"), "0");
    drop(cluster);
    Cluster::forget(&home).expect("it is deleted");
    assert!(!home.is_symlink() && !real.exists());
}

#[test]
fn panic_stops_the_server() {
    let (sender, receiver) = std::sync::mpsc::channel();
    let result = std::thread::spawn(move || {
        let cluster = temporary();
        sender.send(cluster.data_dir()).expect("the folder is told");
        panic!("on purpose: a failing test");
    })
    .join();
    assert!(result.is_err());
    let data: PathBuf = receiver.recv().expect("the folder");
    assert!(!is_served(&data));
    assert!(!data.exists());
}

/// Does nothing by itself: it is what [`killed_parent_takes_the_server_along`] runs and kills.
#[test]
fn holder() {
    if std::env::var_os(HOLDER).is_none() {
        return;
    }
    let cluster = temporary();
    println!("\nholding {}", cluster.data_dir().display());
    std::thread::sleep(Duration::from_secs(60));
}

#[test]
fn killed_parent_takes_the_server_along() {
    let mut holder = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "holder", "--nocapture"])
        .env(HOLDER, "1")
        .stdout(Stdio::piped())
        .spawn()
        .expect("the holder runs");
    let lines = BufReader::new(holder.stdout.take().expect("its output")).lines();
    let data = lines.map_while(Result::ok).find_map(|line| line.strip_prefix("holding ").map(PathBuf::from));
    let data = data.expect("it holds a cluster");
    assert!(is_served(&data));
    holder.kill().expect("it is killed");
    holder.wait().expect("it is gone");
    assert!(process::wait_until(Duration::from_secs(10), || !is_served(&data)), "the server ends too");
    assert!(data.exists(), "nobody was there to delete it");
    drop(temporary());
    assert!(process::wait_until(Duration::from_secs(10), || !data.exists()), "the next cluster does");
}
