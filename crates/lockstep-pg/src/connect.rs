//! Connections: the pool for queries, and the one for replication.

use crate::error::PgError;
use crate::wire::{Startup, Wire};
use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod};
use tokio::net::TcpStream;
use tokio_postgres::config::Host;
use tokio_postgres::{Config, NoTls};

/// Settings that make catch-up and stream print a value with the same bytes (rule 7), as `options` and as
/// startup parameters. `extra_float_digits` 1 prints floats exactly.
pub const SESSION: &[(&str, &str)] = &[
    ("client_encoding", "UTF8"),
    ("datestyle", "ISO, YMD"),
    ("intervalstyle", "iso_8601"),
    ("timezone", "UTC"),
    ("bytea_output", "hex"),
    ("extra_float_digits", "1"),
    ("lc_monetary", "C"),
    ("search_path", "pg_catalog"),
    ("standard_conforming_strings", "on"),
];

/// Reads a database URL; sessions keep the role's own settings.
///
/// # Errors
/// [`PgError::Url`], which says what is wrong but not the URL: it may hold a password.
pub fn plain_config(url: &str) -> Result<Config, PgError> {
    let mut config: Config = url.parse().map_err(|e: tokio_postgres::Error| {
        let source = std::error::Error::source(&e).map(|s| format!(": {s}")).unwrap_or_default();
        PgError::Url(format!("{e}{source}"))
    })?;
    if config.get_application_name().is_none() {
        config.application_name("lockstep");
    }
    config.connect_timeout(std::time::Duration::from_secs(10));
    Ok(config)
}

/// Reads a database URL; sessions print values as the stream does.
///
/// # Errors
/// As [`plain_config`].
pub fn config(url: &str) -> Result<Config, PgError> {
    let mut config = plain_config(url)?;
    let options: Vec<String> =
        SESSION.iter().map(|(k, v)| format!("-c {k}={}", v.replace(' ', "\\ "))).collect();
    let given = config.get_options().map(|o| format!("{o} ")).unwrap_or_default();
    config.options(format!("{given}{}", options.join(" ")));
    Ok(config)
}

/// A pool of at most `size` connections, opened when needed.
pub fn pool(config: &Config, size: usize) -> Result<Pool, PgError> {
    let manager = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    let manager = Manager::from_config(config.clone(), NoTls, manager);
    Pool::builder(manager).max_size(size).build().map_err(|e| PgError::Pool(e.to_string()))
}

/// Opens a replication connection to the database of `config`.
pub async fn replication(config: &Config) -> Result<Wire<TcpStream>, PgError> {
    let user = config.get_user().ok_or_else(|| PgError::Url("it names no user".into()))?;
    let dbname = config.get_dbname().unwrap_or(user);
    let mut parameters: Vec<(String, String)> =
        SESSION.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
    parameters.push(("database".into(), dbname.into()));
    parameters.push(("replication".into(), "database".into()));
    parameters.push(("application_name".into(), "lockstep".into()));
    let startup =
        Startup { user: user.into(), password: config.get_password().map(<[u8]>::to_vec), parameters };
    let mut last = PgError::Url("it names no host".into());
    for (i, host) in config.get_hosts().iter().enumerate() {
        let port = config.get_ports().get(i).or(config.get_ports().first()).copied().unwrap_or(5432);
        let Host::Tcp(host) = host else {
            last = PgError::Url("replication over a Unix socket is not supported yet; name a host".into());
            continue;
        };
        match TcpStream::connect((host.as_str(), port)).await {
            Ok(socket) => {
                socket.set_nodelay(true)?;
                return Wire::start(socket, &startup).await;
            }
            Err(error) => last = error.into(),
        }
    }
    Err(last)
}
