//! The server goes on with another history than the one that the node has followed.

use crate::world::{World, todos};
use lockstep_client::{Client, ClientError, Replica};
use lockstep_pg::cluster::StopMode;
use serde_json::json;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;

/// Stops the server and keeps a copy of its data.
async fn keep_a_copy(world: &mut World) {
    tokio::task::block_in_place(|| {
        world.cluster.stop(StopMode::Fast).unwrap();
        let data = world.cluster.data_dir();
        let copied =
            Command::new("cp").arg("-a").arg(&data).arg(data.with_extension("kept")).status().unwrap();
        assert!(copied.success());
        world.cluster.start_again().unwrap();
    });
    world.sql = world.connect().await;
}

/// Goes on from the copy with these settings, on a timeline of its own: what was committed since is lost.
async fn go_on_from_the_copy(world: &mut World, settings: &[(&str, &str)]) {
    tokio::task::block_in_place(|| {
        world.cluster.stop(StopMode::Immediate).unwrap();
        let data = world.cluster.data_dir();
        std::fs::remove_dir_all(&data).unwrap();
        std::fs::rename(data.with_extension("kept"), &data).unwrap();
        for (name, value) in settings {
            world.cluster.set(name, value).unwrap();
        }
        let signal = data.join("recovery.signal");
        std::fs::write(&signal, "").unwrap();
        let owner = std::fs::metadata(&data).unwrap();
        std::os::unix::fs::chown(&signal, Some(owner.uid()), Some(owner.gid())).unwrap();
        world.cluster.start_again().unwrap();
    });
    world.sql = world.connect().await;
    world.sql.until("select pg_is_in_recovery()", "f").await;
}

/// An acknowledgement waits for a transaction that the new history never had: the session must not wait with it,
/// nor be shown what is lost when the number is used again. Everybody comes back, and outboxes are sent again: what
/// was taken may be lost.
#[tokio::test(flavor = "multi_thread")]
async fn sessions_come_back_when_the_history_changes() {
    let mut world = World::new().await;
    keep_a_copy(&mut world).await;
    let node = world.node().await;
    let mut reader = node.join([todos(1)]).await;
    reader.commit().await.unwrap();
    let mut writer = node.join([todos(1)]).await;
    writer.commit().await.unwrap();

    world.cluster.set("synchronous_standby_names", "nobody").unwrap();
    let insert =
        json!({"op": "insert", "table": "todos", "values": {"id": 1, "list_id": 1, "title": "lost"}});
    writer.replica.push("m1", vec![insert]);
    let payload = writer.replica.mutate().unwrap();
    writer.send("mutate", payload).await.unwrap();
    reader.until(|r| r.column("0", "title") == ["lost"]).await.unwrap();
    go_on_from_the_copy(&mut world, &[("restore_command", "false")]).await;
    // Its xids are those of the lost transactions, over again.
    world.sql.run("insert into todos select i, 1, 'new ' || i from generate_series(2, 4) i").await;

    let writer = closed(writer).await;
    let reader = closed(reader).await;
    let mut writer = node.resume(writer).await;
    let payload = writer.replica.mutate().unwrap();
    writer.call("mutate", payload).await.unwrap();
    writer.until(|r| r.outbox.is_empty()).await.unwrap();
    world.settled(&mut writer).await;
    let mut reader = node.resume(reader).await;
    world.settled(&mut reader).await;
}

/// From a base backup and its archived WAL: who has seen what is lost loads anew and is told, everybody else goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_restore_to_a_point_in_time() {
    let archive = tempfile::tempdir().unwrap();
    std::fs::set_permissions(archive.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let archive = archive.path().to_str().unwrap();
    let mut world = World::with(|b| {
        b.setting("archive_mode", "on").setting("archive_command", format!("cp %p {archive}/%f"))
    })
    .await;
    keep_a_copy(&mut world).await;
    world.sql.run("insert into todos values (1, 1, 'kept')").await;
    let node = world.node().await;
    let mut early = node.join([todos(1)]).await;
    world.settled(&mut early).await;
    let early = early.crash();
    world.sql.run("select pg_create_restore_point('here')").await;
    world
        .sql
        .run("insert into todos values (2, 1, 'lost'); update todos set title = 'lost' where id = 1")
        .await;
    let mut late = node.join([todos(1)]).await;
    world.settled(&mut late).await;
    let late = late.crash();
    let file = world.sql.one("select pg_walfile_name(pg_switch_wal())").await;
    world.sql.until("select last_archived_wal from pg_stat_archiver", &file).await;
    let restore = format!("cp {archive}/%f %p");
    let settings = [
        ("restore_command", restore.as_str()),
        ("recovery_target_name", "here"),
        ("recovery_target_action", "promote"),
    ];
    go_on_from_the_copy(&mut world, &settings).await;
    assert_eq!(world.sql.one("select string_agg(title, ',') from todos").await, "kept");
    // Their ids are those of the lost transactions, over again.
    world.sql.run("insert into todos values (3, 1, 'new'); update lists set total = 1").await;
    node.until_logged("streaming", 2).await;
    for (away, told) in [(early, None), (late, Some("other_timeline"))] {
        let mut client = node.resume(away).await;
        let commit = client.commit().await.unwrap();
        let resets: Vec<_> = commit.resets.iter().map(|(_, why)| why.as_str()).collect();
        assert_eq!(resets, told.into_iter().collect::<Vec<_>>());
        world.settled(&mut client).await;
    }
}

/// Reads until the node closes the session; what is lost is not shown meanwhile to whom it was not shown before.
async fn closed(mut client: Client) -> Replica {
    let had = client.replica.column("0", "title");
    let end = loop {
        match client.hear("the end").await {
            Ok(_) => assert_eq!(client.replica.column("0", "title"), had),
            Err(end) => break end,
        }
    };
    assert!(matches!(end, ClientError::Closed(_)), "{end}");
    client.crash()
}
