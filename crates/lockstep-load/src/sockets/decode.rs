//! `decode`: what the node does with the stream before any socket, beside a reader that throws it away.
//!
//! Both read the same transactions from one slot, again and again, since neither acknowledges them. Ours is the core as
//! the node feeds it, with ten thousand shapes of which each row is in one, in a process without sockets.

use super::{Options, raw_reader};
use crate::database::{Database, session};
use crate::figures::{Bench, Figure, Limit};
use crate::machine::{Machine, Versions};
use crate::pairs::Pair;
use anyhow::{Context, Result, bail, ensure};
use lockstep_core::fanout::hub::{CatchUpAnswer, Identity, PollAnswer, ReadAnswer};
use lockstep_core::fanout::{Hub, Output};
use lockstep_core::position::{Facts, Lsn, Snapshot};
use lockstep_pg::cluster::process::{Signal, spawn_bound};
use lockstep_pg::target::Target;
use lockstep_pg::{catalog, connect, poll, replication_stream};
use serde_json::json;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

const SHAPES: usize = 10_000;
/// Of one session.
const SESSION: usize = 1;
/// One walsender reads at least so many transactions of one row per second, on an idle machine.
const PLAUSIBLE: f64 = 60_000.0;
/// A walsender whose client is gone notices it with its next message.
const RELEASE: Duration = Duration::from_secs(30);

/// Runs it.
///
/// # Errors
/// If something cannot be started, rows are missing, or the limit is implausible.
pub async fn run(options: &Options) -> Result<Bench> {
    let machine = Machine::this();
    let mut database = Database::start(options.major).await?;
    let rows = options.or(1_000_000, 10_000);
    let shapes = options.or(SHAPES, 100);
    let sql = format!(
        "create table items (id int primary key, scope int not null, v int not null, body text not null);
         insert into items select i, (i - 1) % {shapes} + 1, 0, rpad('row ' || i, 60, '.') from generate_series(1, {shapes}) i;"
    );
    database.client.batch_execute(&sql).await?;
    database.track("items", "scope").await?;
    let mut figures = Vec::new();
    let small = options.or(200_000, 1_000);
    let cases = [("small_tx", small, small), ("large_tx", 1, rows)];
    for (name, commits, rows) in cases {
        let sql = format!("select pg_create_logical_replication_slot('{name}', 'pgoutput')");
        database.client.batch_execute(&sql).await?;
        let writer = session(&database.cluster.url()).await?;
        writer.batch_execute("set synchronous_commit = off").await?;
        if commits == 1 {
            let sql = format!(
                "insert into items select i, (i - 1) % {shapes} + 1, 0, rpad('row ' || i, 60, '.')
                 from generate_series({shapes} + 1, {shapes} + {rows}) i"
            );
            writer.batch_execute(&sql).await?;
        } else {
            let sql = format!(
                "do $$ begin for i in 1..{commits} loop
                   update items set v = v + 1 where id = (i - 1) % {shapes} + 1; commit;
                 end loop; end $$"
            );
            writer.batch_execute(&sql).await?;
        }
        let mut pairs = Vec::new();
        for pair in 0..=options.runs {
            is_free(&database, name).await?;
            let base = bare(options, &database, name, commits)?;
            is_free(&database, name).await?;
            let with = ours(options, &database, name, commits, rows, shapes)?;
            if pair > 0 {
                let rate = f64::from(u32::try_from(rows)?);
                let plausible = commits == 1 || rate / base >= PLAUSIBLE || options.small;
                ensure!(
                    plausible,
                    "a walsender read {:.0} transactions/s: this machine was busy",
                    rate / base
                );
                pairs.push(Pair { base: rate / base, with: rate / with });
            }
        }
        is_free(&database, name).await?;
        let sql = format!("select pg_drop_replication_slot('{name}')");
        database.client.batch_execute(&sql).await?;
        let limit = Some(Limit::RatioAtLeast(0.85)).filter(|_| !options.small);
        figures.push(Figure::of_pairs(name, "rows/s", &pairs, limit));
    }
    let versions = Versions::with(database.one("current_setting('server_version')").await?);
    Ok(Bench { name: "decode", runs: options.runs, figures, machine, versions })
}

/// Waits until the walsender of the reader before has noticed that it is gone.
async fn is_free(database: &Database, slot: &str) -> Result<()> {
    let until = Instant::now() + RELEASE;
    let active = format!("select active from pg_replication_slots where slot_name = '{slot}'");
    while database.one(&active).await? == "true" {
        ensure!(Instant::now() < until, "slot {slot} is still in use");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

fn seconds(stdout: std::process::ChildStdout) -> Result<f64> {
    let last = BufReader::new(stdout).lines().map_while(Result::ok).last();
    last.context("nothing was read")?.parse().context("no time was told")
}

fn bare(options: &Options, database: &Database, slot: &str, commits: usize) -> Result<f64> {
    let (mut child, stdout) = raw_reader(options, database, slot, &[commits.to_string()])?;
    let took = seconds(stdout);
    child.wait()?;
    took
}

fn ours(
    options: &Options,
    database: &Database,
    slot: &str,
    commits: usize,
    rows: usize,
    shapes: usize,
) -> Result<f64> {
    let mut command = Command::new(options.programs.path("lockstep-load"));
    command.args(["decoder", &database.cluster.url(), slot]);
    command.args([commits, rows, shapes].map(|n| n.to_string()));
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = spawn_bound(command, Signal::SIGKILL).context("cannot run the decoder")?;
    let took = seconds(child.stdout.take().context("no pipe")?);
    ensure!(child.wait()?.success(), "the decoder failed");
    took
}

/// The process of ours: `lockstep-load decoder URL SLOT COMMITS ROWS SHAPES`. Prints the seconds that it took.
///
/// # Errors
/// If the stream breaks, or rows are missing.
pub async fn decoder(url: &str, slot: &str, commits: usize, rows: usize, shapes: usize) -> Result<()> {
    let target = Target::parse(url)?;
    let client = session(url).await?;
    let mut hub = Hub::default();
    let (system, timeline, database) = poll::identify(&client).await?;
    let mut catalog = catalog::load(&client).await?;
    // What is read again was written before: a node that starts would catch up past it.
    catalog.as_of = Snapshot::default();
    let identity = Identity { system, timeline, database, incarnation: 1 };
    hub.handle_database(identity, catalog);
    let facts = Facts {
        system,
        timeline,
        history: Vec::new(),
        database,
        snapshot: Snapshot::default(),
        insert_lsn: Lsn(0),
        incarnations: Vec::new(),
    };
    subscribe(&mut hub, shapes)?;
    let mut wire = connect::replication(&target, Duration::from_secs(10)).await?;
    replication_stream::start(&mut wire, slot).await?;
    let (_feedback, feedback_in) = mpsc::unbounded_channel();
    let (out, mut stream) = mpsc::channel(8);
    tokio::spawn(replication_stream::run(wire, out, feedback_in, Duration::from_secs(60)));
    // Everything is visible by now: a position that the stream brings forward.
    let position = poll::poll(&client, 0).await?.snapshot;
    hub.handle_stream_started(position.xmax());
    let (mut began, mut seen, mut frames) = (None, 0, Frames::default());
    // So that sessions follow from the first transaction on: nothing is open, and the fence is behind.
    frames.settle(&mut hub, &facts, &position)?;
    let clock = Instant::now();
    while seen < commits {
        let batch = stream.recv().await.context("the stream ended")?;
        // As the node does; polls let the ring go.
        hub.handle_timeout(u64::try_from(clock.elapsed().as_millis())?);
        for message in &batch {
            // A pgoutput message behind the 25 bytes of `w`.
            match message.get(25) {
                Some(b'B') => drop(began.get_or_insert_with(Instant::now)),
                Some(b'C') if message[0] == b'w' => seen += 1,
                _ => {}
            }
            hub.handle_stream(message);
            frames.take(&mut hub, &position)?;
        }
    }
    let took = began.context("no transaction")?.elapsed();
    ensure!(
        frames.commits >= commits.max(shapes.min(rows)),
        "{} frames for {commits} transactions",
        frames.commits
    );
    println!("{}", took.as_secs_f64());
    Ok(())
}

/// What the hub gives out, thrown away.
#[derive(Default)]
struct Frames {
    commits: usize,
    bytes: usize,
}

impl Frames {
    fn take(&mut self, hub: &mut Hub, position: &Snapshot) -> Result<()> {
        while let Some(output) = hub.poll_output() {
            match output {
                Output::Send(_, frame) => {
                    self.commits += usize::from(lockstep_core::protocol::is_commit(&frame));
                    self.bytes += frame.len();
                }
                Output::Poll(number) => hub.handle_poll(settled(number, position)),
                Output::RestartStream(why) => bail!("the stream cannot be followed: {why}"),
                _ => {}
            }
        }
        Ok(())
    }

    /// Answers push, poll and catch-ups, so that all sessions follow the stream.
    fn settle(&mut self, hub: &mut Hub, facts: &Facts, position: &Snapshot) -> Result<()> {
        for _ in 0..1_000 {
            let mut asked = false;
            while let Some(output) = hub.poll_output() {
                asked = true;
                match output {
                    Output::PushFence(number) => hub.handle_pushed(number, true),
                    Output::Poll(number) => hub.handle_poll(settled(number, position)),
                    Output::CatchUp(request) => {
                        let reads = request.reads.iter().map(|_| ReadAnswer { frames: Vec::new() }).collect();
                        let clients = request.clients.iter().map(|_| Vec::new()).collect();
                        let facts = Facts { snapshot: position.clone(), ..facts.clone() };
                        hub.handle_catch_up(request.id, Ok(CatchUpAnswer { facts, reads, clients }));
                    }
                    Output::RestartStream(why) => bail!("the stream cannot be followed: {why}"),
                    _ => {}
                }
            }
            if !asked {
                return Ok(());
            }
        }
        bail!("the sessions do not come to rest")
    }
}

fn settled(number: u64, position: &Snapshot) -> PollAnswer {
    PollAnswer { number, snapshot: position.clone(), fence: Lsn(0), flushed: Lsn(0) }
}

fn subscribe(hub: &mut Hub, shapes: usize) -> Result<()> {
    for session in 0..shapes / SESSION {
        let id = u64::try_from(session)?;
        hub.handle_open(id);
        let wanted: Vec<_> = (1..=SESSION)
            .map(|nth| json!({"ref": nth.to_string(), "table": "items", "scope": {"scope": session * SESSION + nth}}))
            .collect();
        let join = json!(["1", "1", "sync", "phx_join", {"protocol": 1, "shapes": wanted}]);
        hub.handle_text(id, &join.to_string(), &format!("client-{session}"));
    }
    Ok(())
}
