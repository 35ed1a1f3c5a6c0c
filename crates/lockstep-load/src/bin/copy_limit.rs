//! The limit of `load`: COPY of a table by a client that throws the rows away, and does nothing else.
//!
//! `copy_limit URL SQL` prints how many rows came, and in how many seconds.

use futures_util::{StreamExt, pin_mut};
use std::time::Instant;
use tokio_postgres::{Error, NoTls};

async fn copy(url: &str, sql: &str) -> Result<(u64, f64), Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    let begun = Instant::now();
    let rows = client.copy_out(sql).await?;
    pin_mut!(rows);
    let mut count = 0;
    while let Some(row) = rows.next().await {
        row?;
        count += 1;
    }
    Ok((count, begun.elapsed().as_secs_f64()))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(url), Some(sql)) = (arguments.next(), arguments.next()) else {
        return Err("copy_limit URL SQL".into());
    };
    let (rows, seconds) = copy(&url, &sql).await?;
    println!("{rows} {seconds}");
    Ok(())
}
