//! The commands.

use crate::config::{self, ServeSettings, Span};
use crate::{serve, status, tail, types};
use anyhow::Result;
use clap::{Parser, Subcommand};
use lockstep_pg::doctor::{self, DoctorOptions};
use lockstep_pg::gc::{self, GcOptions, GcOutcome, GcReport};
use lockstep_pg::install::{self, Blocker, InstallOptions, Outcome, Patience, TrackRequest, TriggerKind};
use lockstep_pg::rights::{self, Kind};
use lockstep_pg::target::Target;
use lockstep_pg::{PgError, connect};
use std::path::PathBuf;
use std::process::ExitCode;
use tokio_postgres::Client;

/// Keeps browsers in step with a plain PostgreSQL.
///
/// Install once (`lockstep install`), name the tables to follow (`lockstep track todos --scope list_id`), then run
/// a node (`lockstep serve`). Nodes keep nothing: run one or several, kill them, replace them.
#[derive(Debug, Parser)]
#[command(name = "lockstep", version, max_term_width = 100)]
struct Cli {
    /// The database: postgres://user:password@host:5432/database
    #[arg(long, global = true, env = "LOCKSTEP_DATABASE_URL", value_name = "URL", hide_env_values = true)]
    database_url: Option<String>,

    /// A configuration file other than ./lockstep.toml
    #[arg(long, global = true, env = "LOCKSTEP_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node: serve clients at ws://ADDRESS/socket
    #[command(
        after_help = "Every option is also an environment variable and, without its dashes, a line of \
        lockstep.toml:\n\n  database-url = \"postgres://app:secret@localhost:5432/app\"\n  \
        listen = \"127.0.0.1:4000\"\n\nThe database needs wal_level = logical, and the role REPLICATION. \
        http://ADDRESS/health says how the node is fed, and what is wrong if something is."
    )]
    Serve(Box<ServeSettings>),
    /// Create the schema `lockstep` and its publications; changes no table of yours
    #[command(
        after_help = "Once per database; again after an update of Lockstep. Then: lockstep track TABLE"
    )]
    Install {
        /// Only print the SQL
        #[arg(long)]
        print: bool,
        /// Install although a publication FOR ALL TABLES would ship the change logs too
        #[arg(long)]
        allow_foreign_publications: bool,
        /// A role that runs nodes: gets the rights that this takes in the schema `lockstep`. Give it REPLICATION yourself
        #[arg(long, value_name = "ROLE")]
        grant_node: Option<String>,
        /// A role that runs clients' writes, for `serve --write-url`
        #[arg(long, value_name = "ROLE")]
        grant_writer: Option<String>,
    },
    /// Follow a table: adds triggers and a change log beside it
    #[command(after_help = "A scope is the set of columns that ties a row to those who may see it.\n\n\
        Examples:\n  lockstep track lists\n  lockstep track todos --scope list_id\n  \
        lockstep track tasks --scope org_id,project_id --scope assignee_id")]
    Track {
        /// The table, as SQL writes it: todos, app.todos, "Weird name"
        table: String,
        /// Columns that make up a scope; repeat for several scopes; none: everyone may read the table
        #[arg(long, value_name = "COL[,COL]")]
        scope: Vec<String>,
        /// Track although the table has row level security, which replication ignores
        #[arg(long)]
        ignore_rls: bool,
        /// Only print the SQL
        #[arg(long)]
        print: bool,
    },
    /// Stop following a table: removes its triggers and its change log
    Untrack {
        /// The table, as SQL writes it
        table: String,
        /// Only print the SQL
        #[arg(long)]
        print: bool,
    },
    /// Collect what the change logs need not keep; nodes do so by themselves every hour
    Gc {
        /// How long a client may be away and still be told only what changed [default: 30d]
        #[arg(long, env = "LOCKSTEP_RETENTION", value_name = "TIME")]
        retention: Option<Span>,
        /// How long the number of a client that does not write is kept [default: 60d]
        #[arg(long, env = "LOCKSTEP_CLIENT_RETENTION", value_name = "TIME")]
        client_retention: Option<Span>,
        /// Rows deleted per transaction
        #[arg(long, value_name = "ROWS", default_value_t = GcOptions::default().batch, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        batch: u32,
        /// Print the report as JSON
        #[arg(long)]
        json: bool,
    },
    /// Say what is wrong with the database and its server, why it matters, and what mends it
    #[command(
        after_help = "The exit code is 1 if something has to be mended, and 0 if there is at most something to know. \
        Nothing is changed."
    )]
    Doctor {
        /// Print one JSON object
        #[arg(long)]
        json: bool,
        /// Nodes that are to run; twice as many must find room while one set replaces the other
        #[arg(long, value_name = "N", default_value_t = DoctorOptions::default().nodes)]
        nodes: u32,
        /// Name transactions that are open for longer
        #[arg(long, value_name = "TIME", default_value = "1m")]
        open_for: Span,
        /// Where nodes get their stream from, if it is not --database-url
        #[arg(long, env = "LOCKSTEP_REPLICATION_URL", value_name = "URL", hide_env_values = true)]
        replication_url: Option<String>,
    },
    /// Write the tracked tables as a TypeScript module, for `createClient({ schema })`
    #[command(after_help = "Relationships are the foreign keys between tracked tables.\n\n\
        Examples:\n  lockstep types --out src/schema.ts\n  lockstep types --out src/schema.ts --check\n  \
        lockstep types --out src/schema.ts --int8 bigint --dates date")]
    Types {
        /// The file; without it the module is printed
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Write nothing; fail if the file is not what would be written
        #[arg(long, requires = "out")]
        check: bool,
        #[command(flatten)]
        choices: types::Choices,
    },
    /// Show a running node: how it is fed, its shapes with their subscribers and cost, its sessions
    Status {
        /// The node's address
        #[arg(long, env = "LOCKSTEP_NODE", value_name = "URL", default_value = "http://127.0.0.1:4000")]
        node: String,
        /// Print one JSON object, with every shape and session
        #[arg(long)]
        json: bool,
    },
    /// Print what is committed, as JSON lines: one for each row, and one for each commit
    #[command(
        after_help = "Reads by a temporary slot of its own, which is gone when it ends. Rows' values are printed."
    )]
    Tail {
        /// Only these tables: todos, app.todos
        table: Vec<String>,
        /// Also Lockstep's own tables
        #[arg(long)]
        internal: bool,
        /// Where the stream comes from, if it is not --database-url
        #[arg(long, env = "LOCKSTEP_REPLICATION_URL", value_name = "URL", hide_env_values = true)]
        replication_url: Option<String>,
    },
    /// Remove everything that install and track created
    Uninstall {
        /// Only print the SQL
        #[arg(long)]
        print: bool,
    },
}

/// Runs the command line; the exit code is 0, 1 for a failure, 2 for a wrong command line.
pub async fn main() -> ExitCode {
    match run(Cli::parse()).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("lockstep: {}", said(&error));
            ExitCode::FAILURE
        }
    }
}

/// An error, what it comes from, and what to do. What PostgreSQL said stands in our own errors already.
fn said(error: &anyhow::Error) -> String {
    let own = error.chain().enumerate().filter(|(nth, e)| *nth == 0 || !e.is::<tokio_postgres::Error>());
    let own = own.filter(|(_, e)| !e.is::<tokio_postgres::error::DbError>()).map(|(_, e)| e.to_string());
    let advice = error.chain().find_map(|e| e.downcast_ref::<PgError>()?.advice());
    let text = own.collect::<Vec<_>>().join(": ");
    advice.map_or(text.clone(), |advice| format!("{text}; {advice}"))
}

async fn run(cli: Cli) -> Result<ExitCode> {
    let file = config::read_file(cli.config.as_deref())?;
    if let Command::Install { print: true, allow_foreign_publications, grant_node, grant_writer } =
        cli.command
    {
        let options = InstallOptions { allow_foreign_publications, grant_node, grant_writer };
        print!("{}", install::install_sql(&options));
        return Ok(ExitCode::SUCCESS);
    }
    if let Command::Status { node, json } = cli.command {
        let status = status::ask(&node).await?;
        print!("{}", if json { format!("{status}\n") } else { status::describe(&status) });
        return Ok(ExitCode::SUCCESS);
    }
    let url = config::database_url(cli.database_url, &file)?;
    if let Command::Doctor { json, nodes, open_for, replication_url } = cli.command {
        let options = DoctorOptions { nodes, open_for: open_for.0, ..DoctorOptions::default() };
        let replication_url = replication_url.or(file.replication_url).unwrap_or_else(|| url.clone());
        return examined(&url, &replication_url, json, &options).await;
    }
    command(cli.command, url, file).await.map(|()| ExitCode::SUCCESS)
}

async fn command(command: Command, url: String, file: ServeSettings) -> Result<()> {
    let patience = Patience { on_wait: say_who, ..Patience::default() };
    match command {
        Command::Serve(settings) => serve::serve(settings.resolve(url, file)?).await,
        Command::Install { allow_foreign_publications, grant_node, grant_writer, .. } => {
            let mut client = connect(&url).await?;
            let options = InstallOptions { allow_foreign_publications, grant_node, grant_writer };
            report("the schema lockstep", install::install(&mut client, &options).await?);
            if options.grant_node.is_none() && options.grant_writer.is_none() {
                println!("{}", roles());
            }
            Ok(())
        }
        Command::Track { table, scope, ignore_rls, print } => {
            let scopes = scope.iter().map(|s| s.split(',').map(|c| c.trim().to_owned()).collect()).collect();
            track(&url, &TrackRequest { table, scopes, ignore_rls }, print, &patience).await
        }
        Command::Untrack { table, print } => {
            let mut client = connect(&url).await?;
            if print {
                print!("{}", install::untrack_sql(&mut client, &table).await?);
            } else {
                report(&table, install::untrack(&mut client, &table, &patience).await?);
            }
            Ok(())
        }
        Command::Gc { retention, client_retention, batch, json } => {
            let gc =
                config::gc_options(retention.or(file.retention), client_retention.or(file.client_retention));
            let outcome = gc::run(&connect(&url).await?, &GcOptions { batch, ..gc }).await?;
            print!("{}", collected(&outcome, json)?);
            Ok(())
        }
        // They have exit codes or needs of their own, see `run`.
        Command::Doctor { .. } | Command::Status { .. } => Ok(()),
        Command::Tail { table, internal, replication_url } => {
            let url = replication_url.or(file.replication_url).unwrap_or(url);
            tail::run(&url, tail::Filter { tables: table, internal }).await
        }
        Command::Types { out, check, choices } => {
            let tables = lockstep_pg::schema::read(&connect(&url).await?).await?;
            types::give(&types::module(&tables, choices), out.as_deref(), check)
        }
        Command::Uninstall { print } => {
            let mut client = connect(&url).await?;
            if print {
                print!("{}", install::uninstall_sql(&mut client).await?);
            } else {
                report("lockstep", install::uninstall(&mut client, &patience).await?);
            }
            Ok(())
        }
    }
}

async fn track(url: &str, request: &TrackRequest, print: bool, patience: &Patience) -> Result<()> {
    let mut client = connect(url).await?;
    if print {
        print!("{}", install::track_sql(&mut client, request).await?);
        return Ok(());
    }
    report(&request.table, install::track(&mut client, request, patience).await?);
    match install::tracked_as(&mut client, &request.table).await? {
        Some((TriggerKind::Row, parts)) if parts > 0 => println!(
            "row triggers, on {parts} partitions too; run this again after adding a partition: TRUNCATE of a new one makes \
             all clients load the table anew"
        ),
        Some((TriggerKind::Row, _)) => println!("row triggers: a subscription writes into it"),
        Some((TriggerKind::Statement, _)) => println!("statement triggers"),
        None => {}
    }
    let left_out = install::left_out(&mut client, &request.table).await?;
    if !left_out.is_empty() {
        println!("generated columns that clients do not get: {}", left_out.join(", "));
    }
    let lacking = install::grants_lacking(&mut client, &request.table).await?;
    if !lacking.is_empty() {
        println!("rights that nodes or writers lack, for you to give or not:\n{}", lacking.join("\n"));
    }
    Ok(())
}

fn say_who(blockers: &[Blocker]) {
    for blocker in blockers {
        eprintln!("lockstep: waiting for a lock held by {blocker}");
    }
}

/// What `install` says about roles with least rights.
fn roles() -> String {
    format!(
        "nodes may run as this role. Roles with least rights are made by --grant-node and --grant-writer, or by:\n\
         -- nodes (and: alter role node replication)\n{}-- clients' writes, `serve --write-url`\n{}\
         -- `track` prints what they need on each table",
        rights::grants(Kind::Node, "node"),
        rights::grants(Kind::Writer, "writer")
    )
}

fn report(what: &str, outcome: Outcome) {
    let did = match outcome {
        Outcome::Created => "set up",
        Outcome::Changed => "changed",
        Outcome::Unchanged => "as asked for already; nothing changed",
        Outcome::Removed => "removed",
    };
    println!("{what}: {did}");
}

fn collected(outcome: &GcOutcome, json: bool) -> Result<String> {
    let report = match outcome {
        GcOutcome::Done(report) => report,
        GcOutcome::Elsewhere if json => return Ok("{\"elsewhere\":true}\n".into()),
        GcOutcome::Elsewhere => return Ok("another node is collecting at this moment; nothing done\n".into()),
        GcOutcome::NotDue => return Ok("the last collection is too recent; nothing done\n".into()),
    };
    Ok(if json { serde_json::to_string(report)? + "\n" } else { described(report) })
}

fn described(report: &GcReport) -> String {
    use std::fmt::Write as _;
    let mut out = String::new();
    for log in &report.logs {
        let hours = log.horizon_age / 3600;
        // Writing to a String does not fail.
        let _ = writeln!(
            out,
            "{}: {} entries removed ({} expired, {} superseded; {} bytes), {} left ({} bytes on disk), reaching back {} h \
             to transaction {}",
            log.table,
            log.expired + log.superseded,
            log.expired,
            log.superseded,
            log.bytes_removed,
            log.rows_left,
            log.bytes_left,
            hours,
            log.horizon
        );
    }
    for (log, why) in &report.later {
        let _ = writeln!(out, "log {log}: left for the next time: {why}");
    }
    let GcReport { clients, mutations, marks, .. } = report;
    let _ = writeln!(out, "forgotten: {clients} clients, {mutations} outcomes, {marks} marks of node starts");
    out
}

async fn examined(url: &str, replication_url: &str, json: bool, options: &DoctorOptions) -> Result<ExitCode> {
    let replication = Target::parse(replication_url)?;
    let report = doctor::examine(&connect(url).await?, &replication, options).await?;
    if json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print!("{report}");
    }
    Ok(if report.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn connect(url: &str) -> Result<Client> {
    // Names on the command line are found as the role's own sessions find them.
    let (client, _) = connect::open(&Target::parse(url)?).await.map_err(|error| {
        let error = PgError::from(error);
        let advice = error.advice().map(|advice| format!("; {advice}")).unwrap_or_default();
        anyhow::anyhow!("cannot connect to the database: {error}{advice}")
    })?;
    Ok(client)
}
