//! `cargo x demo`: PostgreSQL, a node and the to-do app on this machine, from nothing.

use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use lockstep_pg::cluster::{Cluster, DEFAULT_MAJOR, StopMode, free_port};

use crate::node::{self, Node};
use crate::{child, console, setup, stop, workspace};

mod database;
mod pages;
mod sql_console;

use pages::Pages;
use sql_console::SqlConsole;

const DEFAULT_PORT: u16 = 4000;
const POLL: Duration = Duration::from_millis(50);

/// Options of `cargo x demo`.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// Forget the data of earlier demos.
    #[arg(long)]
    fresh: bool,
    /// The port of the app on 127.0.0.1.
    #[arg(long, default_value_t = DEFAULT_PORT)]
    port: u16,
    /// Start with free ports and data of its own, let two browsers check it, and stop.
    #[arg(long)]
    check: bool,
    /// Write `{"app":URL,"postgres":URL,"socket":URL}` there once everything runs.
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
    /// The major version of PostgreSQL, 14 to 18.
    #[arg(long, env = "LOCKSTEP_PG_MAJOR", default_value_t = DEFAULT_MAJOR)]
    pg: u32,
    /// Keep the data there.
    #[arg(long, value_name = "FOLDER", conflicts_with = "check")]
    home: Option<PathBuf>,
}

/// `cargo x demo`.
pub fn run(options: &Options) -> Result<ExitCode> {
    if options.check {
        let chromium = setup::chromium()?;
        let parts = Parts::set_up(options.pg)?;
        let mut demo = Demo::start(&parts, &Place::Temporary)?;
        let checked = demo.check(&chromium);
        let stopped = demo.stop();
        // What went wrong first explains the rest.
        let passed = checked?;
        stopped?;
        return Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let home = match &options.home {
        Some(folder) => folder.clone(),
        None => workspace::state()?.join("demo"),
    };
    let _lock = claim(&home)?;
    node::require_free(options.port)?;
    if let Some(file) = &options.ready_file
        && file.exists()
    {
        fs::remove_file(file)?;
    }
    let parts = Parts::set_up(options.pg)?;
    if options.fresh {
        console::step("Forgetting the data of earlier demos", || Cluster::forget(&home))?;
    }
    let mut demo = Demo::start(&parts, &Place::Kept { home, port: options.port })?;
    demo.introduce();
    if let Some(file) = &options.ready_file {
        demo.write_ready(file)?;
    }
    let ended = demo.watch();
    println!("\nStopping.");
    if let Some(file) = &options.ready_file {
        // Gone already if somebody else tidied up.
        let _ = fs::remove_file(file);
    }
    let stopped = demo.stop();
    // What went wrong first explains the rest.
    ended?;
    stopped?;
    Ok(ExitCode::SUCCESS)
}

/// Only one demo per data folder: the second one says who is the first.
fn claim(home: &Path) -> Result<File> {
    let path = home.with_extension("lock");
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut file = File::options().read(true).write(true).create(true).truncate(false).open(&path)?;
    if file.try_lock().is_err() {
        let mut holder = String::new();
        file.read_to_string(&mut holder)?;
        bail!("a demo of this clone runs already (process {}): use that one, or end it first", holder.trim());
    }
    file.set_len(0)?;
    file.rewind()?;
    write!(file, "{}", std::process::id())?;
    Ok(file)
}

/// What a demo is made of, once set-up is done.
#[derive(Debug)]
pub struct Parts {
    program: PathBuf,
    pages: PathBuf,
    major: u32,
}

impl Parts {
    /// Sets up what is missing.
    pub fn set_up(major: u32) -> Result<Parts> {
        if std::env::var_os("LOCKSTEP_PG_BIN").is_none() {
            setup::postgres(major)?;
        }
        setup::web_app()?;
        let program = setup::server()?;
        stop::check()?;
        Ok(Parts { program, pages: workspace::root().join("apps/todo/dist"), major })
    }
}

/// Where a demo lives.
#[derive(Debug)]
pub enum Place {
    /// On free ports, its data gone when it stops.
    Temporary,
    /// On this port, its data kept.
    Kept {
        /// The cluster's folder.
        home: PathBuf,
        /// The app's port.
        port: u16,
    },
}

/// A running demo. Dropping it stops the node, the console, then PostgreSQL: fields are dropped in this order.
#[derive(Debug)]
pub struct Demo {
    node: Node,
    console: SqlConsole,
    pages: Pages,
    program: PathBuf,
    cluster: Cluster,
    app: String,
    postgres: String,
    socket: String,
}

impl Demo {
    /// Starts everything; when it fails nothing is left running.
    pub fn start(parts: &Parts, place: &Place) -> Result<Demo> {
        let mut builder = Cluster::builder();
        if std::env::var_os("LOCKSTEP_PG_BIN").is_none() {
            builder = builder.major(parts.major);
        }
        let port = match place {
            Place::Temporary => free_port()?,
            Place::Kept { home, port } => {
                builder = builder.home(home);
                *port
            }
        };
        let cluster = console::step("Starting PostgreSQL", || builder.start())?;
        stop::check()?;
        let postgres = cluster.url_for(database::NAME);
        console::step("Preparing the database", || database::prepare(&cluster, &parts.program))?;
        stop::check()?;
        let console = SqlConsole::start(&cluster, port)?;
        let pages = Pages::with_console(&parts.pages, &console.url())?;
        let node = console::step("Starting the node", || {
            node::require_free(port)?;
            Node::start(&parts.program, &postgres, port, pages.folder())
        })?;
        let app = format!("http://127.0.0.1:{port}/");
        let socket = format!("ws://127.0.0.1:{port}/socket");
        let program = parts.program.clone();
        Ok(Demo { node, console, pages, program, cluster, app, postgres, socket })
    }

    fn introduce(&self) {
        println!(
            "
The to-do app:   {app}
The database:    psql '{postgres}'
Logs:            {node_log}
                 {pg_log}

The page shows two people side by side, what to try, and an SQL console on the same database.
It can be opened in more windows, tabs and browsers, and psql works beside it.

Ctrl-C stops everything; the data stays for the next time (--fresh forgets it).",
            app = self.app,
            postgres = self.postgres,
            node_log = self.node.log().display(),
            pg_log = self.cluster.log_path().display(),
        );
    }

    /// Tells programs where everything is.
    pub fn write_ready(&self, file: &Path) -> Result<()> {
        let ready = serde_json::json!({
            "app": self.app,
            "postgres": self.postgres,
            "socket": self.socket,
            "console": self.console.url(),
            "program": self.program,
        });
        workspace::write_atomically(file, &format!("{ready}\n"))
    }

    /// Waits until somebody asks us to stop, or something of the demo ends by itself.
    fn watch(&mut self) -> Result<()> {
        while !stop::requested() {
            self.node.check()?;
            if !self.cluster.is_running() {
                bail!("PostgreSQL ended; its log ends:\n{}", self.cluster.log_tail());
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// Two browsers and SQL, by `e2e/check.mjs`; its lines are printed.
    pub fn check(&mut self, chromium: &Path) -> Result<bool> {
        console::step("Checking the app's types against the database", || {
            let types = ["types", "--check", "--out", "apps/todo/src/lib/schema.ts"];
            node::lockstep(&self.program, &self.postgres, &types)
        })?;
        let mut check = Command::new("node");
        check.arg("e2e/check.mjs").args(["--app", &self.app, "--postgres", &self.postgres]);
        check.args(["--console", &self.console.url()]);
        check.env("CHROMIUM", chromium).current_dir(workspace::root());
        let ended = console::step("Checking it with two browsers", || child::run(check, "demo-check"))?;
        print!("{}", ended.text());
        if !ended.status.success() {
            println!("The node's log ends:\n{}", workspace::tail(self.node.log(), 20));
        }
        Ok(ended.status.success())
    }

    /// Stops the node, then PostgreSQL. Both are stopped even if one of them complains.
    pub fn stop(mut self) -> Result<()> {
        let node = self.node.stop();
        drop(self.console);
        let cluster = self.cluster.stop(StopMode::Fast);
        drop(self.pages);
        node.and(cluster).context("the demo did not stop as it should")
    }
}
