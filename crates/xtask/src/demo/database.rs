//! The demo's database: created once, filled from the app's schema, tracked by Lockstep.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use lockstep_pg::cluster::Cluster;
use tokio_postgres::{Client, NoTls};

use crate::{node, workspace};

/// The database of the to-do app.
pub const NAME: &str = "todo";

/// What an operator would type after `lockstep`. Each may be repeated.
const COMMANDS: [&[&str]; 4] = [
    &["install"],
    &["track", "lists"],
    &["track", "members", "--scope", "list_id"],
    &["track", "todos", "--scope", "list_id"],
];

/// Makes the database ready for a node.
pub fn prepare(cluster: &Cluster, program: &Path) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(create(cluster))?;
    COMMANDS.iter().try_for_each(|arguments| node::lockstep(program, &cluster.url_for(NAME), arguments))
}

async fn create(cluster: &Cluster) -> Result<()> {
    let server = connect(&cluster.url()).await?;
    if server.query_opt("select from pg_database where datname = $1", &[&NAME]).await?.is_none() {
        server.batch_execute(&format!("create database {NAME}")).await?;
    }
    let database = connect(&cluster.url_for(NAME)).await?;
    if database.query_opt("select from pg_tables where schemaname = 'public' limit 1", &[]).await?.is_none() {
        let (schema, archive) = (read("apps/todo/schema.sql")?, read("apps/todo/archive.sql")?);
        // All or nothing: a half-loaded schema would pass for a loaded one the next time.
        let whole = format!("begin;\n{schema}\n{archive}\ncommit;");
        database.batch_execute(&whole).await.context("the SQL of apps/todo does not load")?;
    }
    Ok(())
}

fn read(file: &str) -> Result<String> {
    let path = workspace::root().join(file);
    fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

/// Connects; the connection ends with the client.
pub async fn connect(url: &str) -> Result<Client> {
    let (client, connection) =
        tokio_postgres::connect(url, NoTls).await.context("cannot connect to PostgreSQL")?;
    // Its errors reach the client's calls.
    tokio::spawn(connection);
    Ok(client)
}
