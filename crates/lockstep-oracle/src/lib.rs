//! The oracle: real PostgreSQL, the real binary, real protocol clients, random schemas, writers and faults.
//!
//! A world is a cluster with random tables beside a few fixed ones, one or two nodes behind chaos proxies, clients,
//! and writers. It lives in rounds: writers and one fault at once, then quiet, then every client must show exactly
//! what the same SELECTs say, and every mutation must have taken effect once. At every commit frame invariants over
//! two tables are checked. What is wrong is one line with the seed; a seed repeats schema, shapes, statements and
//! faults, but not the machine's timing.
//!
//! The judge computes wire values from PostgreSQL's text by docs/protocol.md, not with the product's code.

pub mod clock;
pub mod dice;
pub mod disk;
pub mod faults;
pub mod invariants;
pub mod kind;
pub mod ledger;
pub mod link;
pub mod node;
pub mod options;
pub mod plant;
pub mod predicates;
pub mod reader;
pub mod report;
pub mod rounds;
pub mod schema;
pub mod shapes;
pub mod standby;
pub mod statements;
pub mod world;
pub mod writer;

use anyhow::Result;
use options::Options;
use report::Report;

/// Runs worlds one after another for as long as the options say.
pub fn run(options: &Options) -> Result<Report> {
    if !options.no_disk {
        // Without the right to do so there is no disk to fill either; the report says so.
        let _ = disk::own_mounts();
    }
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(rounds::run(options))
}
