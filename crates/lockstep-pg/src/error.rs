//! Errors of talking to PostgreSQL.

use lockstep_core::pgoutput::DecodeError;
use lockstep_core::position::ParseError;

/// What can go wrong between a node and its database. Texts are static or PostgreSQL's own; never row values.
#[derive(Debug, thiserror::Error)]
pub enum PgError {
    /// The socket.
    #[error("connection to PostgreSQL: {0}")]
    Io(#[from] std::io::Error),
    /// An ErrorResponse on the replication connection.
    #[error("PostgreSQL: {message} (SQLSTATE {code})")]
    Server {
        /// SQLSTATE.
        code: String,
        /// Its primary message.
        message: String,
    },
    /// An error of a query.
    #[error("PostgreSQL: {}", describe(.0))]
    Query(#[from] tokio_postgres::Error),
    /// No connection could be had from the pool.
    #[error("no connection to PostgreSQL: {0}")]
    Pool(String),
    /// The server said something that the protocol does not allow here.
    #[error("unexpected answer of PostgreSQL: {0}")]
    Protocol(&'static str),
    /// Something in the catalog is not as `lockstep install` leaves it.
    #[error("{0}")]
    NotInstalled(String),
    /// The database's URL cannot be used.
    #[error("database URL: {0}")]
    Url(String),
    /// A table is not what the catalog in use says.
    #[error("the schema changed")]
    SchemaChanged,
    /// A number or position that cannot be read.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// A stream message that cannot be read.
    #[error("replication stream: {0}")]
    Decode(#[from] DecodeError),
}

fn describe(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) => format!("{} (SQLSTATE {})", db.message(), db.code().code()),
        None => error.to_string(),
    }
}

impl PgError {
    /// SQLSTATE, where there is one.
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::Server { code, .. } => Some(code),
            Self::Query(error) => error.code().map(tokio_postgres::error::SqlState::code),
            _ => None,
        }
    }
}
