//! One server for this test binary, one database per test, and the raw replication stream of one.

use lockstep_core::pgoutput::{Message, StreamFrame, decode};
use lockstep_core::position::Lsn;
use lockstep_pg::cluster::Cluster;
use lockstep_pg::connect::{self, Stream};
use lockstep_pg::target::Target;
use lockstep_pg::wire::Wire;
use std::sync::LazyLock;
use std::time::Duration;
use tokio_postgres::{Client, NoTls};

/// Never dropped: the server stops when this process ends.
static CLUSTER: LazyLock<Cluster> = LazyLock::new(start);

/// A server such as these tests need.
pub fn start() -> Cluster {
    let builder = Cluster::builder()
        .setting("max_prepared_transactions", "4")
        .setting("max_replication_slots", "40")
        .setting("max_wal_senders", "40");
    builder.start().expect("the cluster starts")
}

/// The cluster that tests share. A slot waits for the transactions of all its databases: who holds one open needs a
/// server of their own.
pub fn cluster() -> &'static Cluster {
    &CLUSTER
}

pub async fn session(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("a connection");
    tokio::spawn(connection);
    client
}

/// A new database of the shared server.
pub async fn database(name: &str) -> Client {
    let admin = session(&cluster().url()).await;
    admin.batch_execute(&format!("create database {name}")).await.expect("a database");
    session(&cluster().url_for(name)).await
}

/// Runs statements one by one: each is a transaction of its own.
pub async fn run(client: &Client, statements: &[&str]) {
    for sql in statements {
        client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }
}

pub async fn one(client: &Client, sql: &str) -> String {
    let row = client.query_one(&format!("select ({sql})::text"), &[]).await;
    row.unwrap_or_else(|error| panic!("{sql}: {error:?}")).get::<_, Option<String>>(0).unwrap_or_default()
}

/// Asks until it is so: there is no event to wait for inside PostgreSQL.
pub async fn until(client: &Client, sql: &str) {
    while one(client, sql).await != "true" {}
}

/// The SQLSTATE with which it fails.
pub async fn fails(client: &Client, sql: &str) -> String {
    client.batch_execute(sql).await.expect_err(sql).code().expect("a SQLSTATE").code().to_owned()
}

/// A replication connection as nodes make them.
pub async fn replication(url: &str) -> Wire<Stream> {
    let target = Target::parse(url).expect("a URL");
    connect::replication(&target, Duration::from_secs(20)).await.expect("a replication connection")
}

/// What the stream brings, message by message.
pub struct Tap {
    wire: Wire<Stream>,
}

/// A message, or a position up to which everything was delivered.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    Message(Message),
    Keepalive(Lsn),
}

impl Tap {
    /// Streams the publication `p` of the database at `url` from a new slot.
    pub async fn open(url: &str, slot: &str) -> Self {
        let mut wire = replication(url).await;
        lockstep_pg::replication_stream::create_slot(&mut wire, slot).await.expect("a slot");
        Self::stream(wire, slot).await
    }

    pub async fn stream(mut wire: Wire<Stream>, slot: &str) -> Self {
        let sql = format!(
            "START_REPLICATION SLOT \"{slot}\" LOGICAL 0/0 (proto_version '1', publication_names 'p', messages 'true')"
        );
        wire.start_copy_both(&sql).await.expect("it streams");
        Self { wire }
    }

    /// The next event, or the server's error.
    pub async fn next(&mut self) -> Result<Event, lockstep_pg::PgError> {
        let body = loop {
            match self.wire.read().await? {
                (b'd', body) => break body,
                // A notice, such as 18's of a publication that is not there.
                (b'N', _) => {}
                (kind, _) => panic!("a message of kind {kind}"),
            }
        };
        Ok(match StreamFrame::parse(&body).expect("a frame") {
            StreamFrame::Data(data) => Event::Message(decode(data).expect("a message")),
            StreamFrame::Keepalive { wal_end, .. } => Event::Keepalive(wal_end),
        })
    }

    /// Messages up to and with the logical message of this prefix; keepalives left out.
    pub async fn until_mark(&mut self, client: &Client, mark: &str) -> Vec<Message> {
        let emit = format!("select pg_logical_emit_message(true, '{mark}', '')");
        client.batch_execute(&emit).await.expect("a mark");
        let mut all = Vec::new();
        loop {
            if let Event::Message(message) = self.next().await.expect("the stream goes on") {
                let is_mark = matches!(&message, Message::Logical { prefix, .. } if prefix == mark);
                all.push(message);
                if is_mark {
                    return all;
                }
            }
        }
    }

    /// The same without what frames transactions, and without the mark.
    pub async fn changes(&mut self, client: &Client, mark: &str) -> Vec<Message> {
        let mut all = self.until_mark(client, mark).await;
        all.retain(|m| {
            !matches!(
                m,
                Message::Begin { .. } | Message::Commit { .. } | Message::Logical { .. } | Message::Type
            )
        });
        all
    }

    /// Asks for a keepalive.
    pub async fn ask(&mut self, flush: Lsn) {
        let mut message = vec![b'r'];
        for _ in 0..3 {
            message.extend(flush.0.to_be_bytes());
        }
        message.extend(0i64.to_be_bytes());
        message.push(1);
        self.wire.send_copy_data(&message).await.expect("sent");
    }
}
