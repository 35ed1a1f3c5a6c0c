//! What was read, as it was read.

use serde::{Deserialize, Serialize};

/// Everything that is judged.
#[derive(Debug, Default, Clone, Serialize)]
pub struct Facts {
    /// The server and the role.
    pub server: Server,
    /// Our schema may not be read by this role.
    pub unreadable: bool,
    /// GRANTs that the role lacks to run nodes.
    pub node_lacks: Vec<String>,
    /// GRANTs that the role lacks to run clients' writes.
    pub writer_lacks: Vec<String>,
    /// What `install` made; none if it is not there, or may not be read.
    pub installation: Option<Installation>,
    /// What `track` made.
    pub logs: Vec<Log>,
    /// What came of a replication connection.
    pub replication: Replication,
}

/// The server, the role, and what is open at this moment.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
#[allow(missing_docs, reason = "named as PostgreSQL names them; sql/doctor_server.sql says more")]
pub struct Server {
    pub version: String,
    pub version_num: i64,
    pub system: String,
    pub database: String,
    pub standby: bool,
    pub wal_level: String,
    pub max_wal_senders: i64,
    pub max_replication_slots: i64,
    pub senders: i64,
    pub slots: i64,
    pub nodes: i64,
    pub node_senders: i64,
    pub role: String,
    pub quoted_role: String,
    pub superuser: bool,
    pub replication: bool,
    pub sees_all: bool,
    pub invalid_slots: Vec<Slot>,
    pub writers: Vec<Open>,
    pub prepared: Vec<Prepared>,
    pub synchronous_standby_names: String,
    pub synchronous_standbys: i64,
    pub waiting_for_standby: Vec<Open>,
    pub installed: bool,
    pub usable: Option<bool>,
}

/// A slot that nothing can be read from any more.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
#[allow(missing_docs, reason = "see sql/doctor_server.sql")]
pub struct Slot {
    pub name: String,
    pub literal: String,
    pub reason: String,
}

/// An open transaction.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "see sql/doctor_server.sql")]
pub struct Open {
    pub pid: i64,
    pub state: Option<String>,
    pub database: Option<String>,
    pub since: String,
    pub seconds: i64,
}

/// A prepared transaction.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
#[allow(missing_docs, reason = "see sql/doctor_server.sql")]
pub struct Prepared {
    pub gid: String,
    pub literal: String,
    pub database: String,
    pub since: String,
    pub seconds: i64,
}

/// What `install` made.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
#[allow(missing_docs, reason = "see sql/doctor_installation.sql")]
pub struct Installation {
    pub format: Option<i64>,
    pub allow_foreign_publications: bool,
    pub publications: Vec<String>,
    pub partial: Vec<String>,
    pub by_root: bool,
    pub clients_published: bool,
    pub foreign_publications: Vec<String>,
    pub xmax: i64,
    pub collected_seconds: Option<i64>,
}

/// One tracked table and its log.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
#[allow(missing_docs, reason = "see sql/doctor_tables.sql")]
pub struct Log {
    pub log: i64,
    pub oid: i64,
    pub name: Option<String>,
    pub kind: Option<String>,
    pub persistence: Option<String>,
    pub identity: Option<String>,
    pub row_security: bool,
    pub key: Option<bool>,
    pub triggers: String,
    pub in_place: i64,
    pub always: i64,
    pub partitions_without: Vec<String>,
    pub unlogged_partitions: Vec<String>,
    pub partitions_of_other_identity: Vec<String>,
    pub generated: Vec<String>,
    pub stored: Vec<String>,
    pub subscribed: bool,
    pub published: bool,
    pub restricted: bool,
    pub tombstones_published: bool,
    pub logs: bool,
    pub entries: i64,
    pub bytes: i64,
    pub horizon: i64,
    pub horizon_seconds: i64,
}

/// What came of a replication connection.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Replication {
    /// Nobody tried.
    #[default]
    NotTried,
    /// It works, and leads to this server.
    Works,
    /// It leads to another server.
    ElsewhereThan {
        /// Its system identifier.
        system: u64,
    },
    /// Something between here and the server answers in its place: what it said.
    Pooler(String),
    /// The server refused: its SQLSTATE and what it said.
    Refused(String, String),
    /// There was no answer: why.
    Unreachable(String),
}
