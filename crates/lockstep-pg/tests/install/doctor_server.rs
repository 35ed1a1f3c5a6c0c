//! Doctor on servers of its own: settings, what is open, and the way to them.

use std::time::{Duration, Instant};

use lockstep_pg::cluster::{Cluster, StopMode};
use lockstep_pg::doctor::{self, DoctorOptions, Finding, Level, Mend, Report};
use lockstep_pg::install::{self, InstallOptions};
use lockstep_pg::target::Target;
use lockstep_pg::{connect, replication_stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_postgres::{Client, NoTls};

const NOW: DoctorOptions =
    DoctorOptions { nodes: 1, open_for: Duration::ZERO, answer: Duration::from_secs(10) };

async fn session(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("a connection");
    tokio::spawn(connection);
    client
}

async fn examine(client: &Client, url: &str, options: &DoctorOptions) -> Report {
    let config = Target::parse(url).expect("a URL");
    doctor::examine(client, &config, options).await.expect("it can be asked")
}

fn named<'a>(report: &'a Report, code: &str) -> Option<&'a Finding> {
    report.findings.iter().find(|finding| finding.code == code)
}

/// Does what the finding says; returns whether it takes a restart.
async fn follow(client: &Client, finding: &Finding) -> bool {
    for mend in &finding.mend {
        if let Mend::Sql(sql) = mend {
            client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        }
    }
    finding.mend.contains(&Mend::Restart)
}

/// Asks until it is gone: a reload and the end of a process take a moment of their own.
async fn until_gone(client: &Client, url: &str, options: &DoctorOptions, code: &str) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while let Some(finding) = named(&examine(client, url, options).await, code) {
        assert!(Instant::now() < deadline, "{finding:?}");
    }
}

/// A server as it comes, and not enough of everything.
#[tokio::test(flavor = "multi_thread")]
async fn settings() {
    let small = Cluster::builder()
        .setting("wal_level", "replica")
        .setting("max_wal_senders", "0")
        .setting("max_replication_slots", "1");
    let mut cluster = tokio::task::block_in_place(|| small.start()).expect("a server");
    let client = session(&cluster.url()).await;
    let options = DoctorOptions { nodes: 3, ..NOW };
    let report = examine(&client, &cluster.url(), &options).await;
    let codes: Vec<_> = report.findings.iter().map(|finding| finding.code).collect();
    assert_eq!(codes, ["wal_level", "room", "replication_refused", "not_installed"], "{report:?}");
    assert!(
        named(&report, "replication_refused").is_some_and(|finding| finding.what.contains("max_wal_senders"))
    );
    for code in ["wal_level", "room"] {
        assert!(follow(&client, named(&report, code).expect(code)).await, "{code} takes a restart");
    }
    tokio::task::block_in_place(|| cluster.restart(StopMode::Fast)).expect("restarted");
    let client = session(&cluster.url()).await;
    let report = examine(&client, &cluster.url(), &options).await;
    let codes: Vec<_> = report.findings.iter().map(|finding| finding.code).collect();
    assert_eq!((codes.as_slice(), report.nodes_allowed), (&["not_installed"][..], 6), "{report:?}");
    // There is room for as many as are said to be allowed, and no more.
    let config = Target::parse(&cluster.url()).expect("a URL");
    let mut wires = Vec::new();
    for number in 0..6 {
        let mut wire = connect::replication(&config, NOW.answer).await.expect("room");
        replication_stream::create_slot(&mut wire, &format!("lockstep_{number:016x}")).await.expect("a slot");
        wires.push(wire);
    }
    assert_eq!(connect::replication(&config, NOW.answer).await.expect_err("full").sqlstate(), Some("53300"));
    let report = examine(&client, &cluster.url(), &options).await;
    assert_eq!((report.nodes_running, report.nodes_allowed), (6, 6));
    assert_eq!(
        named(&report, "room").map(|finding| finding.level),
        Some(Level::Warning),
        "all six are to be replaced"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_open_and_a_standby_that_does_not_answer() {
    let builder = Cluster::builder().setting("max_prepared_transactions", "4");
    let cluster = tokio::task::block_in_place(|| builder.start()).expect("a server");
    let url = cluster.url();
    let client = session(&url).await;
    for sql in ["create table t (id int primary key)", "create database other"] {
        client.batch_execute(sql).await.expect(sql);
    }
    assert!(named(&examine(&client, &url, &NOW).await, "open_transaction").is_none());

    let writer = session(&cluster.url_for("other")).await;
    writer.batch_execute("begin; create table held (id int)").await.expect("it writes");
    let report = examine(&client, &url, &NOW).await;
    let finding = named(&report, "open_transaction").expect("it holds up slots");
    assert!(
        finding.what.contains("database other") && finding.what.contains("idle in transaction"),
        "{finding:?}"
    );
    // A node's slot waits for exactly that.
    let config = Target::parse(&url).expect("a URL");
    let mut wire = connect::replication(&config, NOW.answer).await.expect("a connection");
    let making =
        tokio::spawn(
            async move { replication_stream::create_slot(&mut wire, "lockstep_00000000000000ff").await },
        );
    follow(&client, finding).await;
    making.await.expect("no panic").expect("the slot is made");
    until_gone(&client, &url, &NOW, "open_transaction").await;
    assert!(named(&examine(&client, &url, &DoctorOptions::default()).await, "open_transaction").is_none());

    client
        .batch_execute("begin; insert into t values (1); prepare transaction 'it''s'")
        .await
        .expect("prepared");
    let report = examine(&client, &url, &NOW).await;
    let finding = named(&report, "prepared_transaction").expect("it holds up slots");
    follow(&client, finding).await;
    assert!(named(&examine(&client, &url, &NOW).await, "prepared_transaction").is_none());

    cluster.set("synchronous_standby_names", "nobody").expect("set");
    let waiting = session(&url).await;
    let commit = tokio::spawn(async move { waiting.batch_execute("insert into t values (2)").await });
    let waits = "select count(*) > 0 from pg_stat_activity where wait_event = 'SyncRep'";
    while !client.query_one(waits, &[]).await.expect("asked").get::<_, bool>(0) {}
    let report = examine(&client, &url, &NOW).await;
    let finding = named(&report, "standby_silent").expect("nobody answers");
    assert!(finding.what.contains("1 commits wait for it") && !report.ok, "{finding:?}");
    assert!(named(&report, "open_transaction").is_none(), "what has committed is not open: {report:?}");
    follow(&client, finding).await;
    commit.await.expect("no panic").expect("it commits");
    until_gone(&client, &url, &NOW, "standby_silent").await;
}

/// A slot that was left behind for so long that its WAL is gone.
#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_slot() {
    let builder = Cluster::builder()
        .setting("max_slot_wal_keep_size", "1MB")
        .setting("min_wal_size", "32MB")
        .setting("max_wal_size", "32MB");
    let cluster = tokio::task::block_in_place(|| builder.start()).expect("a server");
    let url = cluster.url();
    let client = session(&url).await;
    client
        .batch_execute("select pg_create_logical_replication_slot('it''s', 'pgoutput')")
        .await
        .expect_err("no such name");
    client
        .batch_execute("select pg_create_logical_replication_slot('left_behind', 'pgoutput')")
        .await
        .expect("a slot");
    assert!(named(&examine(&client, &url, &NOW).await, "invalid_slot").is_none());
    for _ in 0..6 {
        client
            .batch_execute("select pg_logical_emit_message(false, 'x', 'x'); select pg_switch_wal()")
            .await
            .expect("WAL");
    }
    client.batch_execute("checkpoint").await.expect("old WAL is removed");
    let report = examine(&client, &url, &NOW).await;
    let finding = named(&report, "invalid_slot").unwrap_or_else(|| panic!("{report:?}"));
    assert!(finding.what.contains("left_behind"), "{finding:?}");
    follow(&client, finding).await;
    assert!(named(&examine(&client, &url, &NOW).await, "invalid_slot").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_is_the_wrong_server() {
    let mut cluster = tokio::task::block_in_place(|| Cluster::builder().start()).expect("a server");
    let client = session(&cluster.url()).await;
    install::install(&mut session(&cluster.url()).await, &InstallOptions::default())
        .await
        .expect("installed");
    drop(client);
    tokio::task::block_in_place(|| {
        cluster.stop(StopMode::Fast).expect("stopped");
        std::fs::write(cluster.data_dir().join("standby.signal"), "").expect("a standby from now on");
        cluster.start_again().expect("started");
    });
    let client = session(&cluster.url()).await;
    let report = examine(&client, &cluster.url(), &NOW).await;
    assert_eq!(report.findings.len(), 1, "{report:?}");
    assert_eq!((report.findings[0].code, report.ok), ("standby", false));
}

/// Copies both directions; `edit` sees each message of the server's.
async fn pass_on(client: TcpStream, server: TcpStream, edit: fn(u8, &mut [u8])) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
    let mut head = [0; 5];
    while from_server.read_exact(&mut head).await.is_ok() {
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize - 4;
        let mut body = vec![0; length];
        if from_server.read_exact(&mut body).await.is_err() {
            return;
        }
        edit(head[0], &mut body);
        if to_client.write_all(&[&head[..], &body].concat()).await.is_err() {
            return;
        }
    }
}

/// A pooler that knows no replication, as PgBouncer before 1.23, and one that stands between: it answers BackendKeyData
/// with a process of its own invention, so that it can tell its clients' cancellations apart.
#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_on_the_replication_url() {
    let cluster = tokio::task::block_in_place(|| Cluster::builder().start()).expect("a server");
    let client = session(&cluster.url()).await;
    // Neither is asked for TLS.
    let elsewhere = |port: u16| {
        let url = cluster.url().replace(&format!(":{}/", cluster.port()), &format!(":{port}/"));
        format!("{url}?sslmode=disable")
    };
    assert!(named(&examine(&client, &cluster.url(), &NOW).await, "pooler").is_none());

    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    // It does not know the question for TLS.
    let url = elsewhere(listener.local_addr().expect("its address").port()) + "?sslmode=disable";
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut startup = [0; 4096];
            let _ = socket.read(&mut startup).await;
            let said = b"SFATAL\0C08P01\0Munsupported startup parameter: replication\0\0";
            let length = u32::try_from(said.len() + 4).expect("short").to_be_bytes();
            let _ = socket.write_all(&[&b"E"[..], &length, said].concat()).await;
        }
    });
    let report = examine(&client, &url, &NOW).await;
    assert!(
        named(&report, "pooler").is_some_and(|finding| finding.what.contains("leads to a pooler")),
        "{report:?}"
    );

    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = elsewhere(listener.local_addr().expect("its address").port());
    let port = cluster.port();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let server = TcpStream::connect(("127.0.0.1", port)).await.expect("the server");
            tokio::spawn(pass_on(socket, server, |kind, body| {
                if kind == b'K' {
                    body[..4].copy_from_slice(&[0x7f, 1, 2, 3]);
                }
            }));
        }
    });
    let report = examine(&client, &url, &NOW).await;
    assert_eq!(named(&report, "pooler").map(|finding| finding.level), Some(Level::Error), "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn replication_that_leads_elsewhere_or_nowhere() {
    let (one, other) = tokio::task::block_in_place(|| {
        (
            Cluster::builder().start().expect("a server"),
            Cluster::builder().own_initdb().start().expect("another"),
        )
    });
    let client = session(&one.url()).await;
    let report = examine(&client, &other.url(), &NOW).await;
    assert!(named(&report, "another_server").is_some() && !report.ok, "{report:?}");
    let free = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let nowhere = one
        .url()
        .replace(&format!(":{}/", one.port()), &format!(":{}/", free.local_addr().expect("it").port()));
    drop(free);
    let report = examine(&client, &nowhere, &NOW).await;
    assert!(
        named(&report, "replication_unreachable").is_some_and(|finding| finding.what.contains("refused")),
        "{report:?}"
    );
}
