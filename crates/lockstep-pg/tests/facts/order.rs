//! The order of commit record, stream, visibility and WAL position (docs/consistency.md, "Three orders").

use lockstep_core::pgoutput::Message;
use lockstep_core::position::{Lsn, Snapshot};

use crate::tap::{Event, Tap, cluster, database, one, run, session, start, until};

const TABLE: [&str; 2] = ["create table t (id int primary key, v text)", "create publication p for table t"];

/// The walsender ships a commit when it is flushed; it becomes visible when the synchronous standby has answered. So a
/// query can lack what the stream brought long ago, and `pg_current_wal_lsn` does not tell: it is past the commit.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_is_streamed_before_it_is_visible() {
    let cluster = tokio::task::block_in_place(start);
    let client = session(&cluster.url()).await;
    run(&client, &TABLE).await;
    let mut tap = Tap::open(&cluster.url(), "order").await;
    cluster.set("synchronous_standby_names", "nobody").expect("set");
    let writer = session(&cluster.url()).await;
    let writing = tokio::spawn(async move { writer.batch_execute("insert into t values (1)").await });
    let mut xid = 0;
    let end = loop {
        match tap.next().await.expect("a message") {
            Event::Message(Message::Begin { xid: x, .. }) => xid = x,
            Event::Message(Message::Commit { end_lsn, .. }) => break end_lsn,
            _ => {}
        }
    };
    assert_eq!(one(&client, "select count(*) from t").await, "0");
    let snapshot: Snapshot = one(&client, "select pg_current_snapshot()").await.parse().expect("a snapshot");
    assert!(!snapshot.sees(u64::from(xid)), "{snapshot}");
    assert_eq!(one(&client, &format!("select pg_current_wal_lsn() >= '{end}'")).await, "true");
    cluster.set("synchronous_standby_names", "").expect("set");
    writing.await.expect("no panic").expect("it commits");
    assert_eq!(one(&client, "select count(*) from t").await, "1");
}

/// With `synchronous_commit = off` a query sees what is not flushed. It never sees a commit that ends after the insert
/// position read afterwards: that, and not the flush position, is the fence.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_visible_ends_before_the_insert_position_read_after_it() {
    let client = database("order_fence").await;
    run(&client, &TABLE).await;
    let mut tap = Tap::open(&cluster().url_for("order_fence"), "order_fence").await;
    let writer = session(&cluster().url_for("order_fence")).await;
    run(&writer, &["set synchronous_commit = off"]).await;
    let mut seen = Vec::new();
    let mut ahead = 0;
    for i in 0..200 {
        writer.batch_execute(&format!("insert into t values ({i})")).await.expect("a row");
        let count = one(&client, "select count(*) from t").await;
        let fence: Lsn = one(&client, "select pg_current_wal_insert_lsn()").await.parse().expect("an LSN");
        let flushed: Lsn = one(&client, "select pg_current_wal_flush_lsn()").await.parse().expect("an LSN");
        seen.push((count.parse::<usize>().expect("a number"), fence, flushed));
    }
    let messages = tap.until_mark(&client, "end").await;
    let ends: Vec<Lsn> = messages
        .iter()
        .filter_map(|m| if let Message::Commit { end_lsn, .. } = m { Some(*end_lsn) } else { None })
        .collect();
    for (count, fence, flushed) in seen {
        assert!(
            ends[count - 1] <= fence,
            "commit {count} ends at {}, the fence was {fence}",
            ends[count - 1]
        );
        ahead += usize::from(ends[count - 1] > flushed);
    }
    assert!(ahead > 0, "the flush position would have done as well");
}

/// A keepalive's position is one up to which everything was delivered: no commit follows that ends at or before it. It
/// never goes back either.
#[tokio::test(flavor = "multi_thread")]
async fn no_commit_follows_a_keepalive_that_is_past_it() {
    let client = database("order_keepalive").await;
    run(&client, &TABLE).await;
    let url = cluster().url_for("order_keepalive");
    let mut tap = Tap::open(&url, "order_keepalive").await;
    let writer = session(&url).await;
    let writing = tokio::spawn(async move {
        for i in 0..500 {
            let large = if i % 50 == 0 { 2000 } else { 1 };
            let sql = format!(
                "insert into t select {i} * 10000 + n, repeat('x', 100) from generate_series(1, {large}) n"
            );
            writer.batch_execute(&sql).await.expect("rows");
        }
        writer.batch_execute("insert into t values (-1)").await.expect("the last");
    });
    let (mut watermark, mut commits, mut keepalives) = (Lsn(0), 0, 0);
    while commits < 501 {
        match tap.next().await.expect("the stream goes on") {
            Event::Keepalive(position) => {
                assert!(position >= watermark, "back from {watermark} to {position}");
                watermark = position;
                keepalives += 1;
            }
            Event::Message(Message::Commit { end_lsn, .. }) => {
                assert!(
                    end_lsn > watermark,
                    "a commit that ends at {end_lsn}, after the watermark {watermark}"
                );
                watermark = end_lsn;
                commits += 1;
                tap.ask(Lsn(0)).await;
            }
            Event::Message(_) => {}
        }
    }
    writing.await.expect("no panic");
    assert!(keepalives > 100, "{keepalives}");
}

/// A transactional logical message moves the watermark past every fence read before it: as an empty transaction on 14,
/// as a keepalive from 15 on. Anyone may write one. This is how nodes push.
#[tokio::test(flavor = "multi_thread")]
async fn a_logical_message_moves_the_watermark() {
    let client = database("order_push").await;
    run(&client, &TABLE).await;
    let mut wire = crate::tap::replication(&cluster().url_for("order_push")).await;
    lockstep_pg::replication_stream::create_slot(&mut wire, "order_push").await.expect("a slot");
    // As nodes stream: without `messages`, so that the message itself is not sent.
    let sql = "START_REPLICATION SLOT order_push LOGICAL 0/0 (proto_version '1', publication_names 'p')";
    wire.start_copy_both(sql).await.expect("it streams");
    let anyone = session(&cluster().url_for("order_push")).await;
    run(&anyone, &["create role order_anyone", "set role order_anyone"]).await;
    let fence: Lsn = one(&anyone, "select pg_current_wal_insert_lsn()").await.parse().expect("an LSN");
    lockstep_pg::poll::push_fence(&anyone).await.expect("anyone may");
    loop {
        let (_, body) = wire.read().await.expect("the stream goes on");
        use lockstep_core::pgoutput::{StreamFrame, decode};
        let position = match StreamFrame::parse(&body).expect("a frame") {
            StreamFrame::Keepalive { wal_end, .. } => wal_end,
            StreamFrame::Data(data) => match decode(data).expect("a message") {
                Message::Commit { end_lsn, .. } => {
                    assert_eq!(cluster().major(), 14, "empty transactions are skipped from 15 on");
                    end_lsn
                }
                Message::Begin { .. } => continue,
                other => panic!("{other:?}"),
            },
        };
        if position > fence {
            break;
        }
    }
}

/// The stream names the lower 32 bits of the id that the top-level transaction has, whatever savepoints it had, and a
/// prepared one's when it commits. Any recent snapshot's xmax tells the upper half.
#[tokio::test(flavor = "multi_thread")]
async fn the_stream_names_the_top_level_transaction() {
    let client = database("order_xid").await;
    run(&client, &TABLE).await;
    let mut tap = Tap::open(&cluster().url_for("order_xid"), "order_xid").await;
    let mut ids = Vec::new();
    for (n, end) in ["commit", "prepare transaction 'order_xid'"].iter().enumerate() {
        run(&client, &["begin", "savepoint a"]).await;
        run(
            &client,
            &[
                &format!("insert into t values ({n})"),
                "release a",
                "savepoint b",
                "insert into t values (99)",
                "rollback to b",
            ],
        )
        .await;
        ids.push(one(&client, "select pg_current_xact_id()").await.parse::<u64>().expect("an id"));
        run(&client, &[end]).await;
    }
    // Prepared is not ended: the id stays among those that a snapshot does not see.
    let snapshot: Snapshot = one(&client, "select pg_current_snapshot()").await.parse().expect("a snapshot");
    assert!(
        snapshot.sees(ids[0]) && !snapshot.sees(ids[1]) && snapshot.xip().contains(&ids[1]),
        "{snapshot}"
    );
    run(&client, &["commit prepared 'order_xid'"]).await;
    let messages = tap.until_mark(&client, "end").await;
    let begun: Vec<u64> = messages
        .iter()
        .filter_map(|m| if let Message::Begin { xid, .. } = m { Some(u64::from(*xid)) } else { None })
        .collect();
    assert_eq!(begun[..2], ids.iter().map(|id| id & 0xffff_ffff).collect::<Vec<_>>());
    let rows = messages.iter().filter(|m| matches!(m, Message::Insert { .. })).count();
    assert_eq!(rows, 2, "what was rolled back to a savepoint is not sent: {messages:?}");
}

/// A table that was rewritten after a snapshot was taken is empty to it. A LOCK takes no snapshot and waits for the
/// rewrite, so a snapshot taken behind it reads everything. This is why catch-ups lock first.
#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_older_than_a_rewrite_reads_nothing() {
    let client = database("order_rewrite").await;
    run(&client, &["create table t (id int)", "insert into t select generate_series(1, 1000)"]).await;
    let reader = session(&cluster().url_for("order_rewrite")).await;
    run(&reader, &["begin isolation level repeatable read, read only"]).await;
    one(&reader, "select pg_current_snapshot()").await;
    run(&client, &["alter table t add column r float default random()"]).await;
    assert_eq!(one(&reader, "select count(*) from t").await, "0");
    run(&reader, &["rollback", "begin isolation level repeatable read, read only"]).await;
    run(&client, &["begin", "alter table t add column s float default random()"]).await;
    let locking = tokio::spawn(async move {
        reader.batch_execute("lock table t in access share mode").await.expect("the lock");
        one(&reader, "select count(*) from t").await
    });
    until(&client, "select exists (select from pg_locks where relation = 't'::regclass and not granted)")
        .await;
    run(&client, &["commit"]).await;
    assert_eq!(locking.await.expect("no panic"), "1000");
}
