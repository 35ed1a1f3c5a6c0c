//! Errors of talking to PostgreSQL.

use deadpool_postgres::{PoolError, TimeoutType};
use lockstep_core::pgoutput::DecodeError;
use lockstep_core::position::ParseError;
use std::error::Error;
use std::time::Duration;

/// What can go wrong between a node and its database. Texts are static or PostgreSQL's own; never row values.
#[derive(Debug, thiserror::Error)]
pub enum PgError {
    /// The socket.
    #[error("connection to PostgreSQL: {0}")]
    Io(#[from] std::io::Error),
    /// An ErrorResponse on the replication connection.
    #[error("PostgreSQL: {}", say(.code, .message))]
    Server {
        /// SQLSTATE.
        code: String,
        /// Its primary message.
        message: String,
    },
    /// An error of a query, or of connecting.
    #[error("PostgreSQL: {}", describe(.0))]
    Query(#[from] tokio_postgres::Error),
    /// No connection could be had from the pool.
    #[error("no connection to PostgreSQL: {0}")]
    Pool(String),
    /// The server, or the way to it, does not answer.
    #[error("PostgreSQL has not answered for {} s; the connection is given up", .0.as_secs())]
    Silent(Duration),
    /// The server said something that the protocol does not allow here.
    #[error("unexpected answer of PostgreSQL: {0}")]
    Protocol(&'static str),
    /// Something in the catalog is not as `lockstep install` leaves it.
    #[error("{0}")]
    NotInstalled(String),
    /// A server in recovery.
    #[error("{0} is a standby; name the primary")]
    Standby(String),
    /// The database's URL cannot be used.
    #[error("database URL: {0}")]
    Url(String),
    /// TLS could not be had, or the server's certificate is not what was asked for.
    #[error("TLS to PostgreSQL: {0}")]
    Tls(std::io::Error),
    /// The replication connection ends at a pooler.
    #[error(
        "the connection for replication leads to a pooler, which does not carry it; name the server itself with \
         --replication-url"
    )]
    Pooler,
    /// The role lacks rights.
    #[error("the role lacks rights; run: {0}")]
    Rights(String),
    /// Queries, replication and writes do not go to one database.
    #[error("{0} leads to another database or server than --database-url")]
    Elsewhere(&'static str),
    /// A table is not what the catalog in use says.
    #[error("the schema changed")]
    SchemaChanged,
    /// A snapshot of a life of the server that no node has marked yet; passes.
    #[error("this life of the server has no mark yet")]
    NoMark,
    /// A number or position that cannot be read.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// A stream message that cannot be read.
    #[error("replication stream: {0}")]
    Decode(#[from] DecodeError),
}

impl From<PoolError> for PgError {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::Backend(error) => Self::Query(error),
            PoolError::Timeout(TimeoutType::Wait) => Self::Pool("all connections are in use".into()),
            PoolError::Timeout(_) => Self::Pool("the server did not answer in time".into()),
            other => Self::Pool(other.to_string()),
        }
    }
}

fn describe(error: &tokio_postgres::Error) -> String {
    match (error.as_db_error(), error.source()) {
        (Some(db), _) => say(db.code().code(), db.message()),
        // "error connecting to server" alone does not say why.
        (None, Some(source)) if !error.to_string().contains(&source.to_string()) => {
            format!("{error}: {source}")
        }
        (None, _) => error.to_string(),
    }
}

/// The server's message only where it is the server's own. Messages about data quote it, and an application's
/// trigger may say anything under a code of its choice: log lines and `/health` must hold no row values.
fn say(code: &str, message: &str) -> String {
    const OWN: &[&str] =
        &["08", "0A", "25", "28", "3D", "3F", "40", "42", "53", "54", "55", "57", "58", "F0", "XX"];
    if code.get(..2).is_some_and(|class| OWN.contains(&class)) {
        format!("{message} (SQLSTATE {code})")
    } else {
        format!("SQLSTATE {code}; the message may hold data and is not repeated here")
    }
}

/// What PostgreSQL calls the conditions that pass.
fn condition(code: &str) -> &'static str {
    match code {
        "40P01" => "deadlock detected",
        "40001" => "serialization failure",
        "55P03" => "lock not available",
        "57014" => "query canceled, by a time-out perhaps",
        "25006" => "the transaction is read-only",
        "57P01" | "57P02" | "57P03" => "the server is stopping or starting, or ended the connection",
        _ if code.starts_with("53") => "insufficient resources",
        _ if code.starts_with("08") => "connection failure",
        _ => "the message may hold data and is not repeated here",
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

    /// What is said of it where a client's write ran, and with it an application's triggers, which may raise any code with
    /// any text: the server's own words are not repeated, whatever the code.
    pub fn of_a_write(&self) -> String {
        match self.sqlstate() {
            Some(code) => format!("PostgreSQL: {} (SQLSTATE {code})", condition(code)),
            None => self.to_string(),
        }
    }

    /// Whether the server was not reached, or did not let anybody in yet.
    fn is_unreached(&self) -> bool {
        match self {
            Self::Io(_) | Self::Silent(_) | Self::Pool(_) => true,
            Self::Query(error) if error.as_db_error().is_none() => true,
            _ => matches!(self.sqlstate(), Some("57P03" | "57P01" | "57P02")),
        }
    }

    /// A word for it, as docs/operation.md lists them.
    pub fn code(&self) -> &'static str {
        let says = |words: &str| self.message().contains(words);
        // The driver tells its kinds of errors apart by their texts alone.
        let begins = |words: &str| matches!(self, Self::Query(error) if error.to_string().starts_with(words));
        match (self, self.sqlstate().unwrap_or_default()) {
            (Self::NotInstalled(_), _) => "not_installed",
            (Self::Standby(_), _) | (_, "25006") => "read_only",
            (Self::Tls(_), _) => "tls",
            _ if begins("error performing TLS handshake") => "tls",
            _ if begins("authentication error") || begins("invalid configuration") => "login",
            (Self::Pooler, _) => "pooler",
            (Self::Elsewhere(_), _) => "other_database",
            (Self::Rights(_), _) | (_, "42501") => "rights",
            (_, "28000" | "28P01") => "login",
            (_, "3D000") => "no_database",
            (_, "55000") if says("wal_level") => "wal_level",
            (_, "55000") if says("max_replication_slots") => "slots",
            (_, "55000") if says("recovery") => "read_only",
            (_, "42P01" | "3F000") if says("lockstep") => "not_installed",
            (_, "53400") => "slots",
            (_, "53300") => "connections",
            (_, "42704") if says("publication") => "publication",
            (_, "0A000") if says("recovery") => "read_only",
            _ if self.is_unreached() => "unreachable",
            _ => "other",
        }
    }

    fn message(&self) -> &str {
        match self {
            Self::Server { message, .. } => message,
            Self::Query(error) => error.as_db_error().map_or("", |e| e.message()),
            _ => "",
        }
    }

    /// What an operator can do about it, where that is known.
    pub fn advice(&self) -> Option<&'static str> {
        let certificate = match self {
            Self::Tls(error) => crate::tls::advice(error),
            Self::Query(error) if error.as_db_error().is_none() => crate::tls::advice(error),
            _ => None,
        };
        if certificate.is_some() {
            return certificate;
        }
        let message = self.message();
        match self.code() {
            "unreachable" => {
                return Some("is PostgreSQL running, and does the database URL name its host and port?");
            }
            "login" => return Some("check user and password in the database URL, and pg_hba.conf"),
            "read_only" => {
                return Some(
                    "name the primary in the database URL: this server is a standby, or default_transaction_read_only is on",
                );
            }
            "slots" => return Some("raise max_replication_slots, or drop slots that nobody uses"),
            "not_installed" if self.sqlstate().is_some() => return Some("run `lockstep install`"),
            _ => {}
        }
        Some(match self.sqlstate()? {
            "3D000" => "create the database, or name another one in the database URL",
            "55000" if message.contains("wal_level") => {
                "set wal_level = logical in postgresql.conf and restart PostgreSQL"
            }
            "53300" => "raise max_connections or max_wal_senders, or lower --read-connections",
            "42501"
                if message.contains("replication")
                    || message.contains("WAL sender")
                    || message.contains("walsender") =>
            {
                "alter role … replication; until then clients are served by polling"
            }
            "42704" if message.contains("publication") => {
                "run `lockstep install`, and `lockstep track` for each table again"
            }
            "42501" => "grant the role what it lacks, or use the role that ran `lockstep install`",
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_that_may_quote_rows_are_not_repeated() {
        let server = |code: &str| PgError::Server { code: code.into(), message: "the words".into() };
        for code in ["23505", "22P02", "P0001", "LS001", ""] {
            assert!(!server(code).to_string().contains("the words"), "{code}");
        }
        for code in ["28P01", "40001", "57P01", "55P03", "42P01"] {
            assert!(server(code).to_string().contains("the words"), "{code}");
        }
    }
}
