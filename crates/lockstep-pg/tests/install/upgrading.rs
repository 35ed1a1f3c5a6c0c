//! `pg_upgrade`: what it keeps, what it does not, and that clients come back to the truth.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use lockstep_core::catalog::Table;
use lockstep_core::position::{Lsn, Snapshot};
use lockstep_pg::catalog;
use lockstep_pg::cluster::{Cluster, StopMode};
use lockstep_pg::doctor::{self, DoctorOptions};
use lockstep_pg::poll;
use lockstep_pg::target::Target;
use tokio_postgres::Client;

use crate::leaving::{program, server, session, tracked};

/// What of a server a cursor is judged by.
struct Place {
    identity: (u64, u32, u32),
    lsn: Lsn,
    snapshot: Snapshot,
    table: Table,
}

impl Place {
    async fn of(client: &Client) -> Self {
        let polled = poll::poll(client, 0).await.expect("polled");
        Self {
            identity: poll::identify(client).await.expect("identified"),
            lsn: polled.fence,
            snapshot: polled.snapshot,
            table: catalog::tables(client).await.expect("read").remove(0),
        }
    }
}

/// Connections through the socket that `pg_upgrade` makes for itself need no password.
fn trust_sockets(cluster: &Cluster) {
    let file = cluster.data_dir().join("pg_hba.conf");
    let text = fs::read_to_string(&file).expect("pg_hba.conf");
    fs::write(&file, format!("local all all trust\n{text}")).expect("written");
}

/// Both servers are stopped; `new` has everything of `old` afterwards.
fn upgrade(old: &Cluster, new: &Cluster, folder: &Path) {
    let owner = fs::metadata(old.data_dir()).expect("a folder");
    chown(folder, Some(owner.uid()), Some(owner.gid())).expect("a folder of the server's user");
    let bin = program("pg_upgrade").parent().expect("a folder").to_owned();
    let mut command = Command::new(bin.join("pg_upgrade"));
    command
        .arg("-b")
        .arg(&bin)
        .arg("-B")
        .arg(&bin)
        .arg("-d")
        .arg(old.data_dir())
        .arg("-D")
        .arg(new.data_dir());
    command.args(["-U", "postgres", "-s"]).arg(folder).current_dir(folder);
    if owner.uid() != fs::metadata("/proc/self").expect("this process").uid() {
        command.uid(owner.uid()).gid(owner.gid());
    }
    let output = command.output().expect("pg_upgrade runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// Tables keep their numbers, transaction ids and positions go on, so logs and triggers stay valid and nothing has to be
/// tracked anew. Clients load everything once: docs/decisions/0012 says why no setting spares them that.
#[tokio::test(flavor = "multi_thread")]
async fn pg_upgrade_keeps_the_logs_and_clients_load_once() {
    let (mut old, client, mut away) = tracked().await;
    away.resume(&client).await;
    let before = Place::of(&client).await;
    let mut new = server();
    let folder = tempfile::tempdir().expect("a folder");
    tokio::task::block_in_place(|| {
        old.stop(StopMode::Fast).expect("stopped");
        new.stop(StopMode::Fast).expect("stopped");
        trust_sockets(&old);
        trust_sockets(&new);
        upgrade(&old, &new, folder.path());
        new.start_again().expect("started");
    });
    // Roles come along with their passwords.
    let url = new.url().replace(new.password(), old.password());
    let client = session(&url).await;
    let after = Place::of(&client).await;
    assert_ne!(after.identity.0, before.identity.0, "the system identifier is a new one");
    assert_eq!(after.identity.1, 1, "timelines are counted anew");
    assert_eq!(after.identity.2, before.identity.2, "the database keeps its number, from 15 on");
    assert!(after.lsn >= before.lsn, "positions go on");
    assert!(after.snapshot.xmax() >= before.snapshot.xmax(), "transaction ids go on");
    assert_eq!((after.table.oid, after.table.log), (before.table.oid, before.table.log));
    assert_eq!(after.table.schema_id, before.table.schema_id);
    // Triggers and members of publications are new rows of the catalog: whether writes went past them in between, nobody
    // can say.
    assert_ne!(after.table.log_id, before.table.log_id);
    away.reshape(&client).await;
    assert_eq!(away.resume(&client).await.0.as_deref(), Some("other_database"));
    assert_eq!(away.rows, away.truth(&client).await);
    let writes = "update items set title = 'after' where id = 3; delete from items where id = 6;
        update items set list = 2 where id = 9";
    client.batch_execute(writes).await.expect("writes");
    assert_eq!(away.resume(&client).await, (None, 3));
    assert_eq!(away.rows, away.truth(&client).await);
    let target = Target::parse(&url).expect("a URL");
    let report = doctor::examine(&client, &target, &DoctorOptions::default()).await.expect("examined");
    assert!(report.ok, "{:?}", report.findings);
}
