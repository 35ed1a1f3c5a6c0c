//! The server goes on with another history than the one that the node has followed.

use crate::world::{World, todos};
use lockstep_client::{Client, ClientError, Replica};
use lockstep_pg::cluster::StopMode;
use serde_json::json;
use std::os::unix::fs::MetadataExt;
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

/// Goes on from the copy, on a timeline of its own: what was committed since is lost.
async fn go_on_from_the_copy(world: &mut World) {
    tokio::task::block_in_place(|| {
        world.cluster.stop(StopMode::Immediate).unwrap();
        let data = world.cluster.data_dir();
        std::fs::remove_dir_all(&data).unwrap();
        std::fs::rename(data.with_extension("kept"), &data).unwrap();
        world.cluster.set("restore_command", "false").unwrap();
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
    go_on_from_the_copy(&mut world).await;
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
