//! A database of the real PostgreSQL, with the triggers that `install` and `track` make, and its stream.

use bytes::Bytes;
use lockstep_core::catalog::Catalog;
use lockstep_core::change::{Assembler, Transaction};
use lockstep_core::pgoutput::{StreamFrame, decode};
use lockstep_core::position::{Lsn, Snapshot};
use lockstep_pg::cluster::Cluster;
use lockstep_pg::install::{self, InstallOptions, Patience, TrackRequest};
use lockstep_pg::target::Target;
use lockstep_pg::{catalog, connect, poll, replication_stream};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

/// As the simulation's tables. Large values are stored apart, as they are in the model.
const TABLES: &str = "
    create table lists (id int primary key, n int, title text);
    create table todos (id int primary key, list_id int, n int, note text);
    create table members (org int, id int, team int, name text, primary key (org, id));
    alter table lists alter title set storage external;
    alter table todos alter note set storage external;
    alter table members alter name set storage external;
";

/// Connections of the application.
pub const CONNECTIONS: usize = 4;

pub struct Real {
    pub connections: Vec<Client>,
    pub target: Target,
    /// For questions.
    pub look: Client,
    pub catalog: Catalog,
    /// System, timeline, database.
    pub identity: (u64, u32, u32),
    pub mark: i64,
    stream: mpsc::Receiver<Bytes>,
    _feedback: mpsc::UnboundedSender<replication_stream::Feedback>,
    assembler: Assembler,
    reference: u64,
}

async fn connected(cluster: &Cluster, database: &str) -> Client {
    let (client, connection) =
        tokio_postgres::connect(&cluster.url_for(database), NoTls).await.expect("a connection");
    tokio::spawn(connection);
    client.batch_execute("set lock_timeout = '1s'; set search_path = public").await.expect("settings");
    client
}

impl Real {
    pub async fn new(cluster: &Cluster, seed: u64) -> Self {
        let database = format!("history_{seed}");
        let admin = connected(cluster, "postgres").await;
        admin.batch_execute(&format!("create database {database}")).await.expect("a database");
        let mut look = connected(cluster, &database).await;
        look.batch_execute(TABLES).await.expect("the tables");
        install::install(&mut look, &InstallOptions::default()).await.expect("installed");
        let scopes: [(&str, &[&str]); 3] =
            [("lists", &[]), ("todos", &["list_id"]), ("members", &["org", "team"])];
        for (table, scopes) in scopes {
            let scopes = scopes.iter().map(|s| vec![(*s).to_owned()]).collect();
            let request = TrackRequest { table: table.into(), scopes, ..TrackRequest::default() };
            install::track(&mut look, &request, &Patience::default()).await.expect("tracked");
        }
        let mark = poll::mark(&look).await.expect("a mark");
        let identity = poll::identify(&look).await.expect("who it is");
        let catalog = catalog::load(&look).await.expect("the catalog");
        let target = Target::parse(&cluster.url_for(&database)).expect("a URL");
        let mut wire = connect::replication(&target, Duration::from_secs(10)).await.expect("a walsender");
        let slot = format!("history_{seed}");
        replication_stream::create_slot(&mut wire, &slot).await.expect("a slot");
        replication_stream::start(&mut wire, &slot).await.expect("a stream");
        let (feedback, feedback_in) = mpsc::unbounded_channel();
        let (out, stream) = mpsc::channel(100_000);
        tokio::spawn(replication_stream::run(wire, out, feedback_in, Duration::from_secs(60)));
        let mut connections = Vec::new();
        for _ in 0..CONNECTIONS {
            connections.push(connected(cluster, &database).await);
        }
        let reference = poll::poll(&look, 0).await.expect("a snapshot").snapshot.xmax();
        Self {
            connections,
            target,
            look,
            catalog,
            identity,
            mark,
            stream,
            _feedback: feedback,
            assembler: Assembler::default(),
            reference,
        }
    }

    pub async fn run(&self, connection: usize, sql: &str) {
        let done = self.connections[connection].batch_execute(sql).await;
        done.unwrap_or_else(|e| panic!("the model can do this now, and PostgreSQL says {e:?}: {sql}"));
    }

    /// All values of all rows; NULL as None.
    pub async fn rows(&self, client: &Client, sql: &str) -> Vec<Vec<Option<String>>> {
        let messages = client.simple_query(sql).await.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
        let row = |m: SimpleQueryMessage| match m {
            SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|i| row.get(i).map(short)).collect()),
            _ => None,
        };
        messages.into_iter().filter_map(row).collect()
    }

    /// The id of a connection's transaction, once it has one.
    pub async fn xid(&self, connection: usize) -> Option<u64> {
        let sql = "select pg_current_xact_id_if_assigned()";
        let rows = self.rows(&self.connections[connection], sql).await;
        rows[0][0].as_deref().map(|x| x.parse().expect("an id"))
    }

    pub async fn snapshot(&self) -> (Snapshot, Lsn) {
        let answer = poll::poll(&self.look, 0).await.expect("a snapshot");
        (answer.snapshot, answer.fence)
    }

    /// Transactions with rows, in commit order, until the one with this id.
    pub async fn streamed(&mut self, last: Option<u64>) -> Vec<Transaction> {
        let mut transactions = Vec::new();
        let Some(last) = last else { return transactions };
        loop {
            let wait = tokio::time::timeout(Duration::from_secs(20), self.stream.recv());
            let frame = wait.await.expect("the stream brings every transaction").expect("the stream goes on");
            let StreamFrame::Data(data) = StreamFrame::parse(&frame).expect("a frame") else { continue };
            let message = decode(data).expect("a message");
            let taken = self.assembler.handle(message, self.reference, &self.catalog).expect("in order");
            let Some(delivered) = taken else { continue };
            let xid = delivered.transaction.xid;
            if delivered.transaction.changes.as_ref().is_some_and(|c| !c.is_empty()) {
                transactions.push(delivered.transaction);
            }
            if xid == last {
                return transactions;
            }
        }
    }
}

/// A value long enough that PostgreSQL stores it apart, for one that the model takes for such.
pub fn long(text: &str) -> String {
    let apart = text.len() > lockstep_sim::schema::LARGE;
    if apart { format!("{text}{}", "x".repeat(2_500)) } else { text.to_owned() }
}

/// And back.
pub fn short(text: &str) -> String {
    text.trim_end_matches('x').to_owned()
}
