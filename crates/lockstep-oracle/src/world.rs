//! A private PostgreSQL with random tables, nodes beside it, clients, and chaos proxies between all of them.

use crate::clock::Clock;
use crate::dice::Dice;
use crate::invariants::References;
use crate::ledger::Ledger;
use crate::link::{Link, Weather};
use crate::node::Node;
use crate::options::Options;
use crate::plant::Plant;
use crate::reader::{Handle, Shared};
use crate::report::Report;
use crate::schema::Schema;
use crate::shapes::Shape;
use crate::statements::Statements;
use crate::writer::{Application, Writer, connect};
use anyhow::{Context, Result};
use lockstep_pg::cluster::{Builder, Cluster};
use lockstep_pg::install::{self, InstallOptions, Patience, TrackRequest};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

/// Writers of the application.
const WRITERS: usize = 5;

/// A node and the two links it has.
#[derive(Debug)]
pub struct Site {
    /// The process; None while it is down.
    pub node: Option<Node>,
    /// From the node to PostgreSQL.
    pub upstream: Link,
    /// From clients to the node.
    pub downstream: Link,
    /// Lines of the node's log that were judged.
    pub read: usize,
}

/// Everything that runs.
#[derive(Debug)]
pub struct World {
    /// Its seed.
    pub seed: u64,
    /// Choices of the coordinator.
    pub dice: Dice,
    /// The primary.
    pub cluster: Cluster,
    /// Nodes.
    pub sites: Vec<Site>,
    /// Clients.
    pub clients: Vec<Handle>,
    /// Writers, when none of them runs.
    pub writers: Vec<Writer>,
    /// What writers share.
    pub app: Arc<Application>,
    /// What clients share.
    pub shared: Arc<Shared>,
    /// A transaction that is held open.
    pub held: Option<tokio_postgres::Client>,
    /// Counts.
    pub report: Report,
    /// Clusters that were left by a failover; dropped with the world.
    pub retired: Vec<Cluster>,
    /// Folders of standbys; dropped after the servers on them.
    pub folders: Vec<crate::standby::Folder>,
    /// Something is wrong on purpose.
    pub planted: bool,
    /// The database's disk, if it is one of its own.
    pub disk: Option<crate::disk::Disk>,
    /// The nodes' clock, if it can be stepped.
    pub clock: Option<Clock>,
    binary: PathBuf,
}

/// Settings of every cluster. Small time-outs, so that faults show within a batch.
pub fn configured(builder: Builder) -> Builder {
    builder
        .durable(false)
        .setting("wal_sender_timeout", "2s")
        .setting("max_prepared_transactions", "40")
        .setting("wal_keep_size", "64MB")
        .setting("max_wal_size", "128MB")
        .setting("shared_buffers", "32MB")
        .setting("hot_standby", "on")
}

/// Everything but the clients and nodes.
async fn database(cluster: &Cluster, schema: &Schema, plant: Option<Plant>) -> Result<()> {
    let url = cluster.url();
    let mut client = connect(|| url.clone(), Instant::now() + Duration::from_secs(20)).await?;
    client.batch_execute(&schema.ddl()).await.context("the random schema")?;
    install::install(&mut client, &InstallOptions::default()).await?;
    for table in &schema.tables {
        let names =
            |scope: &Vec<usize>| scope.iter().map(|c| table.columns[*c].name.clone()).collect::<Vec<_>>();
        let request = TrackRequest {
            table: table.sql(),
            scopes: table.scopes.iter().map(names).collect(),
            ..TrackRequest::default()
        };
        let tracked = install::track(&mut client, &request, &Patience::default()).await;
        tracked.with_context(|| format!("tracking {}", table.sql()))?;
    }
    if let Some(sql) = plant.and_then(Plant::sql) {
        client.batch_execute(sql).await.context("planting")?;
    }
    Ok(())
}

impl World {
    /// Builds one. The cluster's disk is its own where that is possible.
    pub async fn start(seed: u64, options: &Options, own_disk: bool) -> Result<Self> {
        let mut dice = Dice::new(seed, "world");
        let schema = Schema::random(&mut dice);
        let mut report = Report::default();
        if options.no_disk {
            report.skipped.insert(crate::disk::FULL, "--no-disk".into());
        }
        let disk = if own_disk { crate::disk::Disk::mount(&mut report) } else { None };
        let mut builder = configured(Cluster::builder());
        if let Some(major) = options.pg {
            builder = builder.major(major);
        }
        if let Some(disk) = &disk {
            builder = builder.home(disk.folder());
        }
        let cluster = tokio::task::block_in_place(|| builder.start())?;
        let schema = schema.on(cluster.major());
        database(&cluster, &schema, options.plant).await?;
        let app = Arc::new(Application {
            url: RwLock::new(cluster.url()),
            statements: Statements { schema: schema.clone(), major: cluster.major() },
            committed: AtomicU64::new(0),
            done: Mutex::default(),
        });
        let mut world = Self {
            seed,
            cluster,
            sites: Vec::new(),
            clients: Vec::new(),
            writers: (0..WRITERS).map(|n| Writer::new(n, seed, app.clone())).collect(),
            app,
            shared: Arc::new(Shared {
                urls: Vec::new(),
                schema,
                checks: AtomicU64::new(0),
                wrong: Mutex::new(None),
                ledger: Ledger::default(),
                blind: options.plant == Some(Plant::BlindUpdate),
            }),
            held: None,
            planted: options.plant.is_some(),
            report,
            disk,
            retired: Vec::new(),
            folders: Vec::new(),
            binary: options.node.clone(),
            clock: Clock::new()?,
            dice,
        };
        let nodes = 1 + world.dice.below(2);
        world.open_sites(nodes, options.plant).await?;
        world.start_clients();
        Ok(world)
    }

    async fn open_sites(&mut self, count: usize, plant: Option<Plant>) -> Result<()> {
        let mut urls = Vec::new();
        for _ in 0..count {
            let upstream = Link::open(self.cluster.port(), plant.filter(|p| p.is_upstream())).await?;
            let downstream = Link::open(0, plant.filter(|p| p.is_downstream())).await?;
            urls.push(format!("ws://127.0.0.1:{}/socket", downstream.port()));
            self.sites.push(Site { node: None, upstream, downstream, read: 0 });
            self.start_node(self.sites.len() - 1)?;
        }
        let shared = Arc::get_mut(&mut self.shared).context("clients run before nodes")?;
        shared.urls = urls;
        Ok(())
    }

    fn start_clients(&mut self) {
        let count = 5 + self.dice.below(4);
        for number in 0..count {
            let schema = &self.shared.schema;
            let family = schema.scoped_families.then(|| self.dice.below(3));
            let mut shapes = vec![
                Shape::fixed(schema, "pulse_a", None),
                Shape::fixed(schema, "pulse_b", None),
                Shape::fixed(schema, "purse_a", None),
                Shape::fixed(schema, "purse_b", None),
                Shape::fixed(schema, "parents", family),
                Shape::fixed(schema, "children", family),
                Shape::fixed(schema, "receipts", Some(number)),
                Shape::fixed(schema, "tallies", Some(number)),
            ];
            // What a client shows may also lack some of the tables.
            for _ in 0..3 + self.dice.below(4) {
                let shape = Shape::random(schema, &mut self.dice);
                if !shapes.contains(&shape) {
                    shapes.push(shape);
                }
            }
            let pair = |at: usize| [at.to_string(), (at + 1).to_string()];
            let refs = References { pulses: pair(0), purses: pair(2), families: pair(4), receipts: pair(6) };
            self.clients.push(Handle::start(number, self.seed, shapes, refs, self.shared.clone()));
        }
    }

    /// Starts the node of a site.
    pub fn start_node(&mut self, at: usize) -> Result<()> {
        let site = &mut self.sites[at];
        let url = self.cluster.url().replacen(
            &format!(":{}/", self.cluster.port()),
            &format!(":{}/", site.upstream.port()),
            1,
        );
        let environment = self.clock.as_ref().map(Clock::environment).unwrap_or_default();
        let node = tokio::task::block_in_place(|| Node::start(&self.binary, &url, &environment))?;
        site.downstream.lead_to(node.port());
        site.read = 0;
        site.node = Some(node);
        Ok(())
    }

    /// A connection to the primary, past all proxies.
    pub async fn sql(&self) -> Result<tokio_postgres::Client> {
        connect(|| self.cluster.url(), Instant::now() + Duration::from_secs(30)).await
    }

    /// All links as they should be.
    pub fn calm(&self) {
        for site in &self.sites {
            site.upstream.set(Weather::Calm);
            site.downstream.set(Weather::Calm);
        }
    }

    /// Transactions so far.
    pub fn transactions(&self) -> u64 {
        self.app.committed.load(Ordering::Relaxed) + self.shared.ledger.decisions()
    }
}
