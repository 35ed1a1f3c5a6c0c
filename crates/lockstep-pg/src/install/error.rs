//! What can go wrong, in words for the person who installs.

use std::fmt;

use tokio_postgres::error::SqlState;

/// Why a command did not do what it was asked to. Nothing was changed: each command is one transaction
/// (`uninstall`: one per table).
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// PostgreSQL refused or the connection broke; the source says which.
    #[error("PostgreSQL: {}", describe(.0))]
    Database(#[from] tokio_postgres::Error),
    /// Functions with a parsed body and `create or replace trigger` exist since 14.
    #[error("this server is PostgreSQL {0}; 14 or newer is needed")]
    ServerTooOld(String),
    /// A schema of our name that we did not make.
    #[error(
        "the database has a schema \"lockstep\" that is no installation of Lockstep; rename or drop it first"
    )]
    SchemaTaken,
    /// The schema was made by a newer release.
    #[error(
        "the database was installed in format {found}, this release knows format {known}; use a newer release"
    )]
    FormatNewer {
        /// What the database has.
        found: i32,
        /// What this code writes.
        known: i32,
    },
    /// A command that needs `install` first.
    #[error("Lockstep is not installed in this database; run `lockstep install` first")]
    NotInstalled,
    /// Somebody's publication would ship our logs.
    #[error(
        "publication {0} covers all tables or our schema and would ship the change logs to its subscribers; \
         narrow it, or install with --allow-foreign-publications"
    )]
    ForeignPublication(String),
    /// The text is no SQL name.
    #[error("{name:?} is not a table name as SQL writes it: {reason}")]
    BadName {
        /// The text as given.
        name: String,
        /// What PostgreSQL said.
        reason: String,
    },
    /// The name leads nowhere.
    #[error("there is no table {0:?}; give its schema too, and put quotes around names with upper case")]
    NoSuchTable(String),
    /// The name lead elsewhere after the lock was taken.
    #[error("table {0} was renamed or replaced meanwhile; run the command again")]
    TableMoved(String),
    /// The table cannot be tracked as it is.
    #[error("table {table} cannot be tracked: {refusal}")]
    Refused {
        /// The quoted name.
        table: String,
        /// Why, and what to do.
        refusal: Refusal,
    },
    /// Others held locks for the whole time that we were willing to wait.
    #[error("gave up after {seconds:.1} s waiting for a lock{}", list(.blockers))]
    LockTimeout {
        /// How long it was tried.
        seconds: f64,
        /// Who held it when last seen.
        blockers: Vec<Blocker>,
    },
}

/// Why a table cannot be tracked. Each sentence says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A view, foreign table, sequence or the like.
    #[error("it is a {0}; track the ordinary tables behind it")]
    NotATable(&'static str),
    /// A partition; what it is a partition of.
    #[error("it is a partition of {0}; track that, which follows all its partitions")]
    Partition(String),
    /// A partitioned table with a partition that cannot be followed.
    #[error("its partition {leaf} {why}; mend that, or detach it")]
    UnfitPartition {
        /// Its quoted name.
        leaf: String,
        /// What is wrong with it.
        why: String,
    },
    /// A parent or child in table inheritance.
    #[error(
        "it takes part in table inheritance, which is not supported; only stand-alone tables can be tracked"
    )]
    Inherits,
    /// Replication ignores row level security.
    #[error(
        "it has row level security, which replication ignores: everyone who may subscribe sees all rows of a scope; \
         if scopes say the same as its policies, use --ignore-rls"
    )]
    RowSecurity,
    /// Another publication makes writes fail.
    #[error(
        "a publication makes its updates or deletes fail: {0}; change that publication's row filter or column list"
    )]
    Publication(String),
    /// Nothing of it reaches the stream.
    #[error("it is unlogged and never reaches the WAL; run ALTER TABLE … SET LOGGED first")]
    Unlogged,
    /// Nothing of it reaches the stream.
    #[error("it is a temporary table, which only its own session sees; use an ordinary table")]
    Temporary,
    /// The catalog or our own schema.
    #[error("it belongs to schema {0}; only the application's own tables can be tracked")]
    System(String),
    /// No primary key.
    #[error("it has no primary key; add one: without it UPDATE and DELETE fail on a published table")]
    NoPrimaryKey,
    /// A deferrable or invalid primary key.
    #[error(
        "its primary key is deferrable, which makes UPDATE fail on a published table; recreate it NOT DEFERRABLE"
    )]
    DeferrableKey,
    /// REPLICA IDENTITY NOTHING or USING INDEX.
    #[error("its replica identity is {0}; run ALTER TABLE … REPLICA IDENTITY DEFAULT first")]
    ReplicaIdentity(&'static str),
    /// A key or scope column whose equality is not that of its text.
    #[error(
        "column {column} of its {role} has type {declared}; only smallint, integer, bigint, uuid, boolean, date, enums, \
         text and varchar can be compared safely: change the type, or use another column"
    )]
    ColumnType {
        /// The column's name.
        column: String,
        /// `primary key` or `scope`.
        role: &'static str,
        /// The type as declared.
        declared: String,
    },
    /// Texts that differ may be equal.
    #[error(
        "column {column} of its {role} has a nondeterministic collation, under which different texts are equal; \
         give it a deterministic one"
    )]
    Collation {
        /// The column's name.
        column: String,
        /// `primary key` or `scope`.
        role: &'static str,
    },
    /// Generated columns are not in the stream before 18.
    #[error(
        "column {column} of its {role} is generated, and generated columns are not replicated; use a plain column"
    )]
    Generated {
        /// The column's name.
        column: String,
        /// `primary key` or `scope`.
        role: &'static str,
    },
    /// A scope names a column that is not there.
    #[error("it has no column {column:?} for a scope; its columns are {columns}")]
    UnknownColumn {
        /// The name as given.
        column: String,
        /// The names there are.
        columns: String,
    },
    /// A scope column was dropped with CASCADE. Going on without it would show the table to more people.
    #[error(
        "a column of one of its scopes was dropped; untrack the table, then track it with the scopes it is to have"
    )]
    ScopeColumnGone,
    /// `--scope ""`.
    #[error("a scope needs at least one column; leave --scope away to make the table public")]
    EmptyScope,
    /// The application has a trigger of our name.
    #[error("it has a trigger {0} of its own; rename that trigger")]
    TriggerTaken(String),
}

/// One transaction that holds a lock we need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocker {
    /// The backend, none for a prepared transaction.
    pub pid: Option<i32>,
    /// The name of a prepared transaction.
    pub prepared: Option<String>,
    /// As in `pg_stat_activity`, such as `idle in transaction`.
    pub state: Option<String>,
    /// When its transaction began.
    pub since: Option<String>,
    /// Its current or last statement, its first 200 characters.
    pub query: Option<String>,
}

impl fmt::Display for Blocker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.prepared, self.pid) {
            (Some(gid), _) => write!(f, "prepared transaction {gid:?}")?,
            (None, Some(pid)) => write!(f, "pid {pid}")?,
            (None, None) => write!(f, "an unknown transaction")?,
        }
        let unknown = "unknown".to_owned();
        write!(
            f,
            " ({}, since {})",
            self.state.as_ref().unwrap_or(&unknown),
            self.since.as_ref().unwrap_or(&unknown)
        )?;
        self.query.as_ref().map_or(Ok(()), |query| write!(f, ": {query}"))
    }
}

impl InstallError {
    /// A short name that stays the same when the sentence changes.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Database(_) => "database",
            Self::ServerTooOld(_) => "server_too_old",
            Self::SchemaTaken => "schema_taken",
            Self::FormatNewer { .. } => "format_newer",
            Self::NotInstalled => "not_installed",
            Self::ForeignPublication(_) => "foreign_publication",
            Self::BadName { .. } => "bad_name",
            Self::NoSuchTable(_) => "no_such_table",
            Self::TableMoved(_) => "table_moved",
            Self::Refused { refusal, .. } => refusal.code(),
            Self::LockTimeout { .. } => "lock_timeout",
        }
    }

    /// Whether the same command may succeed in a moment: a lock timeout, or a deadlock in which we were chosen.
    pub(super) fn is_lock(&self) -> bool {
        let Self::Database(error) = self else { return false };
        matches!(error.code(), Some(code) if *code == SqlState::LOCK_NOT_AVAILABLE || *code == SqlState::T_R_DEADLOCK_DETECTED)
    }
}

impl Refusal {
    /// A short name that stays the same when the sentence changes.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotATable(_) => "not_a_table",
            Self::Partition(_) => "partition",
            Self::UnfitPartition { .. } => "unfit_partition",
            Self::Inherits => "inherits",
            Self::RowSecurity => "row_security",
            Self::Publication(_) => "publication",
            Self::Unlogged => "unlogged",
            Self::Temporary => "temporary",
            Self::System(_) => "system_table",
            Self::NoPrimaryKey => "no_primary_key",
            Self::DeferrableKey => "deferrable_key",
            Self::ReplicaIdentity(_) => "replica_identity",
            Self::ColumnType { .. } => "column_type",
            Self::Collation { .. } => "collation",
            Self::Generated { .. } => "generated_column",
            Self::UnknownColumn { .. } => "unknown_column",
            Self::ScopeColumnGone => "scope_column_gone",
            Self::EmptyScope => "empty_scope",
            Self::TriggerTaken(_) => "trigger_taken",
        }
    }
}

/// tokio-postgres prints only "db error"; what helps is the server's sentence.
fn describe(error: &tokio_postgres::Error) -> String {
    let Some(db) = error.as_db_error() else { return error.to_string() };
    let detail = db.detail().map_or(String::new(), |detail| format!(" ({detail})"));
    format!("{} [{}]{detail}", db.message(), db.code().code())
}

fn list(blockers: &[Blocker]) -> String {
    let each: Vec<String> = blockers.iter().map(Blocker::to_string).collect();
    if each.is_empty() { String::new() } else { format!("; held by {}", each.join("; by ")) }
}
