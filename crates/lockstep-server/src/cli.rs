//! The commands.

use crate::config::{self, ServeSettings};
use crate::node;
use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use lockstep_pg::connect;
use lockstep_pg::install::{self, InstallOptions, Outcome, Patience, TrackRequest};
use std::path::PathBuf;
use std::process::ExitCode;
use tokio_postgres::{Client, NoTls};

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
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lockstep: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> Result<()> {
    let file = config::read_file(cli.config.as_deref())?;
    if let Command::Install { print: true, .. } = cli.command {
        print!("{}", install::install_sql());
        return Ok(());
    }
    let url = config::database_url(cli.database_url, &file)?;
    let patience = Patience::default();
    match cli.command {
        Command::Serve(settings) => node::serve(settings.resolve(url, file)?).await,
        Command::Install { allow_foreign_publications, .. } => {
            let mut client = connect(&url).await?;
            let options = InstallOptions { allow_foreign_publications };
            report("the schema lockstep", install::install(&mut client, &options).await?);
            Ok(())
        }
        Command::Track { table, scope, print } => {
            let scopes = scope.iter().map(|s| s.split(',').map(|c| c.trim().to_owned()).collect()).collect();
            let request = TrackRequest { table, scopes };
            let mut client = connect(&url).await?;
            if print {
                print!("{}", install::track_sql(&mut client, &request).await?);
            } else {
                report(&request.table, install::track(&mut client, &request, &patience).await?);
            }
            Ok(())
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

fn report(what: &str, outcome: Outcome) {
    let did = match outcome {
        Outcome::Created => "set up",
        Outcome::Changed => "changed",
        Outcome::Unchanged => "as asked for already; nothing changed",
        Outcome::Removed => "removed",
    };
    println!("{what}: {did}");
}

async fn connect(url: &str) -> Result<Client> {
    // Names on the command line are found as the role's own sessions find them.
    let config = connect::plain_config(url)?;
    let (client, connection) = config.connect(NoTls).await.context("cannot connect to the database")?;
    tokio::spawn(async move {
        // An error here reaches whoever uses the client as a closed connection.
        let _ = connection.await;
    });
    Ok(client)
}
