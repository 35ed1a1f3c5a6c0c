//! The primary ends and its standby takes over.

use crate::world::{Node, Sql, World, todos};
use lockstep_client::Client;
use lockstep_pg::cluster::{Cluster, StopMode, free_port};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::process::Command;
use tempfile::TempDir;

/// A hot standby made from a copy of the stopped primary.
pub async fn standby(world: &mut World) -> (Cluster, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let home = folder.path().join("home");
    tokio::task::block_in_place(|| {
        world.cluster.stop(StopMode::Fast).unwrap();
        let data = world.cluster.data_dir();
        let from = data.parent().unwrap();
        assert!(Command::new("cp").arg("-a").arg(from).arg(&home).status().unwrap().success());
        let signal = home.join("data/standby.signal");
        std::fs::write(&signal, "").unwrap();
        let owner = std::fs::metadata(&data).unwrap();
        chown(&signal, Some(owner.uid()), Some(owner.gid())).unwrap();
        world.cluster.start_again().unwrap();
    });
    world.sql = world.connect().await;
    let primary = format!(
        "host=127.0.0.1 port={} user=postgres password={}",
        world.cluster.port(),
        world.cluster.password()
    );
    let builder = Cluster::builder()
        .major(world.cluster.major())
        .home(&home)
        .port(free_port().unwrap())
        .durable(false)
        .setting("primary_conninfo", primary);
    let cluster = tokio::task::block_in_place(|| builder.start()).unwrap();
    world.sql.until("select count(*) from pg_stat_replication where state = 'streaming'", "1").await;
    (cluster, folder)
}

/// Comes back as often as the node closes the session. Returns why shapes were loaded anew.
async fn follow(node: &Node, mut client: Client, titles: &[&str]) -> (Client, Vec<String>) {
    let mut resets = Vec::new();
    for _ in 0..20 {
        match client.until(|r| r.column("0", "title") == titles).await {
            Ok(commits) => {
                resets.extend(commits.into_iter().flat_map(|c| c.resets).map(|(_, why)| why));
                return (client, resets);
            }
            Err(error) => {
                assert!(
                    !matches!(error, lockstep_client::ClientError::Late(_)),
                    "{error}: {:#?}",
                    node.log()
                );
                node.until_either(["live", "polling"]).await;
                client = node.resume(client.crash()).await;
            }
        }
    }
    panic!("never {titles:?}: {:#?}", node.log());
}

/// The stream's connection says where the old timeline ended, so nothing is loaded anew. Polling does not know: that
/// takes a replication connection.
#[tokio::test(flavor = "multi_thread")]
async fn sessions_go_on_at_the_new_primary() {
    let mut world = World::new().await;
    let polling = world.polling_url().await;
    let (standby, _folder) = standby(&mut world).await;
    let hosts = |url: &str| {
        let one = format!("127.0.0.1:{}", world.cluster.port());
        url.replace(&one, &format!("127.0.0.1:{},{one}", standby.port()))
    };
    let streams = Node::start(&hosts(&world.cluster.url()));
    let polls = Node::start(&hosts(&polling));
    streams.until("live").await;
    polls.until("polling").await;
    world.sql.run("insert into todos values (1, 1, 'a, before')").await;
    let (mut live, mut polled) = (streams.join([todos(1)]).await, polls.join([todos(1)]).await);
    for client in [&mut live, &mut polled] {
        client.until(|r| r.column("0", "title") == ["a, before"]).await.unwrap();
    }
    // A clean stop: the standby has everything.
    tokio::task::block_in_place(|| world.cluster.stop(StopMode::Fast)).unwrap();
    let promoted = Sql { client: crate::world::connect(&standby.url()).await };
    promoted.run("select pg_promote()").await;
    promoted.run("insert into todos values (2, 1, 'b, after')").await;
    let (_, resets) = follow(&streams, live, &["a, before", "b, after"]).await;
    assert_eq!(resets.iter().filter(|why| *why != "first").count(), 0, "{resets:?}");
    let (_, resets) = follow(&polls, polled, &["a, before", "b, after"]).await;
    assert!(resets.contains(&"other_timeline".to_owned()), "{resets:?}");
}
