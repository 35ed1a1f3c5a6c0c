//! A private PostgreSQL for a bench: durable, and set so that nothing that is due now and then falls into one run only.

use anyhow::{Context, Result};
use lockstep_pg::cluster::Cluster;
use lockstep_pg::install::{self, InstallOptions, Patience, TrackRequest};
use tokio_postgres::{Client, NoTls};

/// A server with a session of its superuser, and Lockstep installed.
#[derive(Debug)]
pub struct Database {
    /// The server; it stops with this.
    pub cluster: Cluster,
    /// A session.
    pub client: Client,
}

impl Database {
    /// Of this major version, or the default one.
    pub async fn start(major: Option<u32>) -> Result<Self> {
        let builder = Cluster::builder()
            .durable(true)
            .setting("shared_buffers", "1GB")
            .setting("max_wal_size", "32GB")
            .setting("checkpoint_timeout", "1h")
            .setting("max_prepared_transactions", "0");
        let builder = match major {
            Some(major) => builder.major(major),
            None => builder,
        };
        let cluster = tokio::task::block_in_place(|| builder.start())?;
        let mut client = session(&cluster.url()).await?;
        install::install(&mut client, &InstallOptions::default()).await?;
        Ok(Self { cluster, client })
    }

    /// Tracks a table by one scope.
    pub async fn track(&mut self, table: &str, scope: &str) -> Result<()> {
        let scopes = vec![vec![scope.to_owned()]];
        let request = TrackRequest { table: table.to_owned(), scopes, ..TrackRequest::default() };
        install::track(&mut self.client, &request, &Patience::default()).await?;
        Ok(())
    }

    /// The first column of the first row.
    pub async fn one(&self, sql: &str) -> Result<String> {
        let row = self
            .client
            .query_one(&format!("select ({sql})::text"), &[])
            .await
            .with_context(|| sql.to_owned())?;
        Ok(row.get::<_, Option<String>>(0).unwrap_or_default())
    }

    /// The same as a number.
    pub async fn number(&self, sql: &str) -> Result<f64> {
        let text = self.one(sql).await?;
        text.parse().with_context(|| format!("{sql}: {text}"))
    }
}

/// A session.
pub async fn session(url: &str) -> Result<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}
