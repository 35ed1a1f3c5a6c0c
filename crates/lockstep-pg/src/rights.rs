//! What a role may do, and the GRANTs that it lacks.
//!
//! Three roles, each with the least rights: the owner of the application's tables installs and tracks; a node reads,
//! keeps its own books and collects the logs; a writer runs clients' mutations. One role may be all three. REPLICATION
//! is an attribute and not granted: a node without it serves by polling.

use crate::error::PgError;
use crate::session::BEGIN_READING;
use tokio_postgres::{GenericClient, SimpleQueryMessage};

/// What a role is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Reads, keeps books, collects.
    Node,
    /// Runs clients' mutations.
    Writer,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Writer => "writer",
        }
    }
}

/// GRANTs that a role lacks, as statements.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Missing {
    /// In our schema: without them nothing works.
    pub ours: Vec<String>,
    /// On the application's tables: without them those tables cannot be served, or not be written.
    pub theirs: Vec<String>,
}

impl Missing {
    /// All of them, to be run.
    pub fn statements(&self) -> String {
        self.ours.iter().chain(&self.theirs).map(|grant| format!("{grant};")).collect::<Vec<_>>().join(" ")
    }
}

/// What the session's role lacks.
///
/// # Errors
/// If the database cannot be asked.
pub async fn missing<C: GenericClient>(client: &C, kind: Kind) -> Result<Missing, PgError> {
    let sql = include_str!("../sql/missing_rights.sql").replace("{kind}", &format!("'{}'", kind.name()));
    let mut missing = Missing::default();
    for message in client.simple_query(&format!("{}{sql}; commit", *BEGIN_READING)).await? {
        let SimpleQueryMessage::Row(row) = message else { continue };
        let grant = row.get(1).unwrap_or_default().to_owned();
        if row.get(0) == Some("true") { missing.theirs.push(grant) } else { missing.ours.push(grant) }
    }
    Ok(missing)
}

/// The GRANTs in our schema that make `role` a node or a writer, for a database where no table is tracked yet.
pub fn grants(kind: Kind, role: &str) -> String {
    let role = crate::catalog::quote(role);
    let on: &[(&str, &str)] = match kind {
        Kind::Node => &[
            ("usage", "schema lockstep"),
            ("select", "lockstep.installation, lockstep.scopes"),
            ("select, update", "lockstep.tracked"),
            ("select, delete", "lockstep.clients, lockstep.mutations"),
            ("select, insert, update, delete", "lockstep.incarnations"),
            ("select, insert, delete", "lockstep.clock"),
        ],
        Kind::Writer => &[
            ("usage", "schema lockstep"),
            // A name is refused as unknown only by a catalog that was read for that.
            ("select", "lockstep.tracked, lockstep.scopes"),
            ("select, insert, update", "lockstep.clients"),
            ("select, insert, delete", "lockstep.mutations"),
        ],
    };
    on.iter().map(|(rights, things)| format!("grant {rights} on {things} to {role};\n")).collect()
}
