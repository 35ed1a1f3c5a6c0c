//! Connections: the pool for queries, and the one for replication.

use crate::error::PgError;
use crate::lease::within;
use crate::wire::{Startup, Wire};
use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod, Runtime};
use socket2::{SockRef, TcpKeepalive};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::{Config, NoTls};

/// A peer whose machine is gone says nothing. After so long without traffic the kernel asks it, so often, this far
/// apart; data that it does not acknowledge for [`UNACKNOWLEDGED`] ends the connection too.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(15), Duration::from_secs(5), 3);
/// See [`KEEPALIVE`].
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);
/// PostgreSQL's and the kernel's default, which is to ask after two hours.
const KEEPALIVE_UNSET: Duration = Duration::from_secs(2 * 60 * 60);

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
    // The planner takes the catalog's functions for large; compiling such a query takes longer than running it.
    ("jit", "off"),
];

/// Options of libpq that are not understood here; only these are named in an error.
const LIBPQ: &[&str] = &[
    "client_encoding",
    "fallback_application_name",
    "gssencmode",
    "krbsrvname",
    "passfile",
    "replication",
    "require_auth",
    "service",
    "sslcert",
    "sslcrl",
    "sslkey",
    "sslpassword",
    "sslrootcert",
];

/// The reason without a piece of the URL: of a password with an `@` or a space that was not encoded, the rest stands
/// where an option's name is expected.
fn told(reason: &str) -> &str {
    let named = reason.strip_prefix("unknown option `").and_then(|rest| rest.strip_suffix('`'));
    if named.is_some_and(|name| !LIBPQ.contains(&name)) { "unknown option" } else { reason }
}

/// Reads a database URL; sessions keep the role's own settings.
///
/// # Errors
/// [`PgError::Url`], which says what is wrong but not the URL: it may hold a password.
pub fn plain_config(url: &str) -> Result<Config, PgError> {
    let mut config: Config = url.parse().map_err(|e: tokio_postgres::Error| {
        let source = std::error::Error::source(&e).map(|s| format!(": {}", told(&s.to_string())));
        let source = source.unwrap_or_default();
        PgError::Url(format!("{e}{source}; write postgres://user:password@host:5432/database"))
    })?;
    if config.get_ssl_mode() == SslMode::Require {
        return Err(PgError::Url(
            "sslmode=require cannot be had: this version speaks to PostgreSQL without TLS".into(),
        ));
    }
    if config.get_application_name().is_none() {
        config.application_name("lockstep");
    }
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(Duration::from_secs(10));
    }
    if config.get_keepalives_idle() == KEEPALIVE_UNSET {
        let (idle, apart, often) = KEEPALIVE;
        config.keepalives_idle(idle).keepalives_interval(apart).keepalives_retries(often);
    }
    if config.get_tcp_user_timeout().is_none() {
        config.tcp_user_timeout(UNACKNOWLEDGED);
    }
    Ok(config)
}

/// Where a configuration leads, for people: no password.
pub fn place(config: &Config) -> String {
    let hosts = config.get_hosts().iter().enumerate().map(|(i, host)| match host {
        Host::Tcp(name) => format!("{name}:{}", port(config, i)),
        Host::Unix(path) => path.display().to_string(),
    });
    hosts.collect::<Vec<_>>().join(", ")
}

fn port(config: &Config, nth: usize) -> u16 {
    config.get_ports().get(nth).or(config.get_ports().first()).copied().unwrap_or(5432)
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

/// A pool of at most `size` connections, opened when needed. Nobody waits longer than `answer` for one.
pub fn pool(config: &Config, size: usize, answer: Duration) -> Result<Pool, PgError> {
    // Asked before it is lent: a connection that fell silent in the pool must not cost a client's write its patience.
    let manager = ManagerConfig { recycling_method: RecyclingMethod::Verified };
    let manager = Manager::from_config(config.clone(), NoTls, manager);
    let pool = Pool::builder(manager)
        .max_size(size)
        .runtime(Runtime::Tokio1)
        .wait_timeout(Some(answer))
        .create_timeout(Some(answer))
        .recycle_timeout(Some(answer));
    pool.build().map_err(|e| PgError::Pool(e.to_string()))
}

/// Opens a replication connection to the database of `config`: to the first of its hosts that answers within
/// `answer` and is no standby, since fences are read on the primary.
pub async fn replication(config: &Config, answer: Duration) -> Result<Wire<TcpStream>, PgError> {
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
        let Host::Tcp(host) = host else {
            last = PgError::Url("replication over a Unix socket is not supported yet; name a host".into());
            continue;
        };
        match within(answer, replication_at(host, port(config, i), &startup)).await {
            Ok(wire) => return Ok(wire),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn replication_at(host: &str, port: u16, startup: &Startup) -> Result<Wire<TcpStream>, PgError> {
    let socket = TcpStream::connect((host, port)).await?;
    socket.set_nodelay(true)?;
    let (idle, apart, often) = KEEPALIVE;
    let keepalive = TcpKeepalive::new().with_time(idle).with_interval(apart).with_retries(often);
    let options = SockRef::from(&socket);
    options.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    options.set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
    let mut wire = Wire::start(socket, startup).await?;
    let standby = wire.query("select pg_catalog.pg_is_in_recovery()").await?;
    if standby.first().and_then(|row| row.first()).is_some_and(|v| v.as_deref() == Some("t")) {
        return Err(PgError::NotInstalled(format!("{host}:{port} is a standby; name the primary")));
    }
    // Making a slot waits for open transactions. If this node dies meanwhile, the server must notice, or the slot
    // lives as long as they do. Servers on systems that cannot watch a socket refuse the setting and go without.
    match wire.query("set client_connection_check_interval = '2s'").await {
        Ok(_) | Err(PgError::Server { .. }) => Ok(wire),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_urls_say_what_to_write_and_no_password() {
        for url in [
            "nonsense",
            "postgres://u:secret@h:port/x",
            "host=h password=secret port=x",
            "postgres://u:secret@h/x?nonsense=1",
            "postgres://u:secret@h/x?sslmode=require",
        ] {
            let error = plain_config(url).expect_err(url).to_string();
            assert!(!error.contains("secret"), "{error}");
            assert!(error.contains("postgres://") || error.contains("TLS"), "{error}");
        }
        let config = plain_config("postgres://u:secret@one,two:5433/x").expect("a URL");
        assert_eq!(place(&config), "one:5432, two:5433");
    }
}
