//! A seeded simulation of the real core and the real reference client against a model PostgreSQL.
//!
//! One thread, a virtual clock and one generator: a seed is a run. [`world`] holds the queue of events, [`pg`] the
//! model, [`node`] a real [`Hub`](lockstep_core::fanout::Hub) driven as `lockstep-server` drives it, [`client`] a real
//! [`Replica`](lockstep_client::Replica). The stream travels as pgoutput's bytes, frames as the text of the protocol.
//!
//! # What goes wrong
//!
//! * *PostgreSQL*: commits that are streamed before they are visible and visible before they are flushed;
//!   asynchronous commits lost in a crash, their ids and LSNs assigned again on the same timeline; restarts; promotions
//!   with all of WAL and without its end; a synchronous standby that answers late or not for a while; transactions
//!   that are long, prepared, aborted, rolled back to a savepoint; ids that are taken early and written under late;
//!   WAL positions where no commit ends; TRUNCATE that waits for writers while catch-ups wait for it; the stream's
//!   32-bit ids wrapping; a copy of the volume restored on the same timeline; columns that come, go, get another name
//!   or another type; slots made anew, which wait for open writers, or copied from another node's.
//! * *Rows*: key changes and swaps, scope moves, NULL scopes, delete and insert of one key in one transaction and the
//!   other way round, large values that an update does not repeat, transactions larger than a node holds.
//! * *Logs*: GC that moves the horizon past cursors, compaction.
//! * *Nodes*: killed and replaced; their connections to PostgreSQL cut or stalled; transactions that arrive in two
//!   pieces with a cut between; rings and cursors that reach their bounds.
//! * *Clients*: offline for long, away for a moment, cut, stalled until the node closes them, half open, killed between two operations of
//!   their store, coming back at another node, changing what they subscribe to, mutating online and offline, losing
//!   answers and sending again; profiles that are copied, as of now or of a while ago, and both copies used; mutations
//!   that a rule refuses, that meet a taken key, that fail in passing.
//!
//! # What must hold
//!
//! * At every commit frame the digest of every shape that a client shows, all of them together, is the one after the
//!   same commit in WAL order (the one that the frame names), or the one that one snapshot saw; never an earlier state
//!   than before, unless that was lost in a failover and the client is told; never one that a crash takes back.
//! * Every outcome of a mutation is told once, with its rows or after them, and not before its COMMIT could return.
//!   No mutation is applied twice, none is lost; what a rule does not forbid is not refused.
//! * Nothing is against the protocol; rings, queues and what waits for a standby stay within their bounds.
//! * A table that got another schema is shown in its old form only until something is written to it.
//! * At quiet points, within a bound of virtual time, everyone is in step, and then every row is compared: a client
//!   shows what its scopes hold, and nothing else.
//!
//! What the rules cannot promise is left out and named in docs/known-gaps.md: a mutation that an application sent again
//! after "outcome unknown", or that three copies of a profile are about, may be applied twice; after a rollback nobody
//! writes before a node has left its mark.
//!
//! [`history`] is the judge's memory. `tests/model` compares [`pg`] with a real PostgreSQL. What a fault looks like that the judge must see is listed in [`plant`].

pub mod client;
pub mod history;
pub mod link;
pub mod node;
pub mod pg;
pub mod plant;
pub mod report;
pub mod rng;
pub mod schema;
pub mod trace;
pub mod world;
