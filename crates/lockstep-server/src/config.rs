//! Settings: a flag beats an environment variable, which beats `lockstep.toml`, which beats the default.

use anyhow::{Context, Result, anyhow, bail};
use clap::{Args, ValueEnum};
use lockstep_core::limits;
use lockstep_pg::gc::GcOptions;
use serde::{Deserialize, Deserializer};
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// The file that is read if it exists and no other is named.
pub const FILE: &str = "lockstep.toml";

/// A length of time as people write it: `30d`, `12h`, `90m`, `45s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Span(pub Duration);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const UNITS: [(char, u64); 4] = [('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];
        let unit = UNITS.iter().find_map(|(unit, seconds)| Some((text.strip_suffix(*unit)?, *seconds)));
        let (number, seconds) = unit.ok_or("a length of time needs a unit: 30d, 12h, 90m or 45s")?;
        let number: u64 = number.parse().map_err(|_| "not a length of time such as 30d")?;
        Ok(Self(number.checked_mul(seconds).map(Duration::from_secs).ok_or("too long")?))
    }
}

impl TryFrom<String> for Span {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Settings of `lockstep serve`. Each is a flag, an environment variable, and a line of `lockstep.toml`
/// (`listen = "127.0.0.1:4000"`).
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ServeSettings {
    /// The primary: slot, fences and writes. postgres://user:password@host:5432/database
    #[arg(skip)]
    pub database_url: Option<String>,

    /// Where first loads and catch-ups are read, if not on the primary. Must be the primary's own server today
    #[arg(long, env = "LOCKSTEP_READ_DATABASE_URL", value_name = "URL", hide_env_values = true)]
    pub read_database_url: Option<String>,

    /// The server itself, if --database-url leads to a pooler, which cannot carry replication [default: --database-url]
    #[arg(long, env = "LOCKSTEP_REPLICATION_URL", value_name = "URL", hide_env_values = true)]
    pub replication_url: Option<String>,

    /// The same database, as the role that runs clients' writes [default: --database-url]
    #[arg(long, env = "LOCKSTEP_WRITE_URL", value_name = "URL", hide_env_values = true)]
    pub write_url: Option<String>,

    /// Address and port to listen on. Loopback only: there is no authentication yet [default: 127.0.0.1:4000]
    #[arg(long, env = "LOCKSTEP_LISTEN", value_name = "ADDRESS:PORT", value_parser = address)]
    #[serde(deserialize_with = "listed_address")]
    pub listen: Option<SocketAddr>,

    /// A folder of files to serve beside the socket, for example a built web app
    #[arg(long = "static", env = "LOCKSTEP_STATIC", value_name = "FOLDER")]
    #[serde(rename = "static")]
    pub static_files: Option<PathBuf>,

    /// Connections for first loads and catch-ups [default: 8]. Five more are for the stream, polls and fences
    #[arg(long, env = "LOCKSTEP_READ_CONNECTIONS", value_name = "N")]
    pub read_connections: Option<usize>,

    /// Connections for clients' writes [default: 8]
    #[arg(long, env = "LOCKSTEP_WRITE_CONNECTIONS", value_name = "N")]
    pub write_connections: Option<usize>,

    /// Seconds that PostgreSQL may leave a small question unanswered before the connection is given up [default: 10]
    #[arg(long, env = "LOCKSTEP_DATABASE_TIMEOUT", value_name = "SECONDS")]
    pub database_timeout: Option<NonZeroU32>,

    /// Bytes that may wait for one client. One that does not read is closed there, and resumes [default: 268435456]
    #[arg(long, env = "LOCKSTEP_QUEUE_BYTES", value_name = "BYTES")]
    pub queue_bytes: Option<usize>,

    /// Bytes that may wait for all clients together. Past it those that do not read are closed [default: 1073741824]
    #[arg(long, env = "LOCKSTEP_NODE_QUEUE_BYTES", value_name = "BYTES")]
    pub node_queue_bytes: Option<usize>,

    /// Bytes of all clients' messages that are read and not served yet. Past it those that send much wait [default: 268435456]
    #[arg(long, env = "LOCKSTEP_NODE_UNSERVED_BYTES", value_name = "BYTES")]
    pub node_unserved_bytes: Option<usize>,

    /// Bytes of recent commits kept in memory, which answer clients that come back after a moment without PostgreSQL.
    /// 0: none [default: 33554432]
    #[arg(long, env = "LOCKSTEP_WINDOW_BYTES", value_name = "BYTES")]
    pub window_bytes: Option<usize>,

    /// Connections of clients. More are sent to another node [default: 50000]
    #[arg(long, env = "LOCKSTEP_SESSIONS", value_name = "N")]
    pub sessions: Option<usize>,

    /// Clients that may wait for their first rows or changes. More are told when to come again [default: 10000]
    #[arg(long, env = "LOCKSTEP_WAITING_SESSIONS", value_name = "N")]
    pub waiting_sessions: Option<usize>,

    /// How long a client may be away and still be told only what changed [default: 30d]
    #[arg(long, env = "LOCKSTEP_RETENTION", value_name = "TIME")]
    pub retention: Option<Span>,

    /// How long the number of a client that does not write is kept; longer than any outbox [default: 60d]
    #[arg(long, env = "LOCKSTEP_CLIENT_RETENTION", value_name = "TIME")]
    pub client_retention: Option<Span>,

    /// Between two collections of the change logs, by one node of all [default: 1h]
    #[arg(long, env = "LOCKSTEP_GC_INTERVAL", value_name = "TIME")]
    pub gc_interval: Option<Span>,

    /// Take a client's address from the last entry of X-Forwarded-For: for a node that only a proxy reaches
    #[arg(long, env = "LOCKSTEP_TRUST_PROXY", num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub trust_proxy: Option<bool>,

    /// When the node is told to stop: over how long its clients are sent away, at most [default: 10s]
    #[arg(long, env = "LOCKSTEP_DRAIN", value_name = "TIME")]
    pub drain: Option<Span>,

    /// How log lines are written [default: text]. LOCKSTEP_LOG chooses which (error, warn, info, debug)
    #[arg(long, env = "LOCKSTEP_LOG_FORMAT", value_enum, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
}

/// What `serve` runs with.
#[derive(Debug, Clone)]
pub struct Serve {
    /// The primary.
    pub database_url: String,
    /// The database that is read.
    pub read_database_url: String,
    /// The server itself.
    pub replication_url: String,
    /// The database, as the role that writes.
    pub write_url: String,
    /// Where to listen; loopback.
    pub listen: SocketAddr,
    /// Files to serve.
    pub static_files: Option<PathBuf>,
    /// Pool sizes.
    pub read_connections: usize,
    /// Pool sizes.
    pub write_connections: usize,
    /// How long a small question to PostgreSQL may stay unanswered.
    pub database_timeout: Duration,
    /// What may wait for one client.
    pub queue_bytes: usize,
    /// What may wait for all of them.
    pub node_queue_bytes: usize,
    /// What all clients may have sent that is not served.
    pub node_unserved_bytes: usize,
    /// Recent commits kept for clients that come back.
    pub window_bytes: usize,
    /// Connections of clients.
    pub sessions: usize,
    /// Clients that may wait to be brought up to date.
    pub waiting_sessions: usize,
    /// What garbage collection keeps, and how often it runs.
    pub gc: GcOptions,
    /// Clients' addresses are what the proxy says.
    pub trust_proxy: bool,
    /// How long clients may take to be sent away.
    pub drain: Duration,
    /// How log lines are written.
    pub log_format: LogFormat,
}

/// What garbage collection keeps, where nothing else is said.
pub fn gc_options(retention: Option<Span>, client_retention: Option<Span>) -> GcOptions {
    let default = GcOptions::default();
    GcOptions {
        retention: retention.map_or(default.retention, |span| span.0),
        client_retention: client_retention.map_or(default.client_retention, |span| span.0),
        ..default
    }
}

/// Reads `lockstep.toml`, or the file named.
///
/// # Errors
/// If a named file does not exist, or any cannot be read or holds an unknown setting.
pub fn read_file(named: Option<&Path>) -> Result<ServeSettings> {
    let path = named.unwrap_or(Path::new(FILE));
    if named.is_none() && !path.exists() {
        return Ok(ServeSettings::default());
    }
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    parse(&text).map_err(|(line, what)| anyhow!("{}, line {line}: {what}", path.display()))
}

/// The parser's own error repeats the line, which may hold the database's password.
fn parse(text: &str) -> Result<ServeSettings, (usize, String)> {
    toml::from_str(text).map_err(|error: toml::de::Error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        (1 + before.matches('\n').count(), error.message().trim_end().replace('\n', "; "))
    })
}

/// `127.0.0.1:4000`; `localhost:4000` is the same.
fn address(text: &str) -> Result<SocketAddr, String> {
    let numeric = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
    let parsed = numeric.as_deref().unwrap_or(text).parse();
    parsed.map_err(|_| "not an address with a port, such as 127.0.0.1:4000".to_owned())
}

fn listed_address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(deserializer)?;
    address(&text).map(Some).map_err(serde::de::Error::custom)
}

/// The database's URL from flag or environment (already merged by clap) or file.
///
/// # Errors
/// If there is none.
pub fn database_url(flag: Option<String>, file: &ServeSettings) -> Result<String> {
    flag.or_else(|| file.database_url.clone()).context(
        "no database: give --database-url, set LOCKSTEP_DATABASE_URL, or write `database-url = \"postgres://…\"` \
         into lockstep.toml",
    )
}

impl ServeSettings {
    /// Fills what is missing from the file, then from the defaults.
    ///
    /// # Errors
    /// If the listening address is not a loopback one.
    pub fn resolve(self, database_url: String, file: ServeSettings) -> Result<Serve> {
        let listen = self.listen.or(file.listen).unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 4000)));
        if !listen.ip().is_loopback() {
            bail!(
                "{listen} is not a loopback address; this version has no authentication and listens on loopback only"
            );
        }
        let static_files = self.static_files.or(file.static_files);
        if let Some(folder) = &static_files
            && !folder.join("index.html").is_file()
        {
            bail!("--static {}: there is no index.html in it; build the web app first", folder.display());
        }
        let interval = self.gc_interval.or(file.gc_interval).map_or(Duration::from_secs(3600), |span| span.0);
        let gc =
            gc_options(self.retention.or(file.retention), self.client_retention.or(file.client_retention));
        Ok(Serve {
            gc: GcOptions { at_most_every: Some(interval), ..gc },
            read_database_url: self
                .read_database_url
                .or(file.read_database_url)
                .unwrap_or_else(|| database_url.clone()),
            replication_url: self
                .replication_url
                .or(file.replication_url)
                .unwrap_or_else(|| database_url.clone()),
            write_url: self.write_url.or(file.write_url).unwrap_or_else(|| database_url.clone()),
            database_url,
            listen,
            static_files,
            read_connections: self.read_connections.or(file.read_connections).unwrap_or(8),
            write_connections: self.write_connections.or(file.write_connections).unwrap_or(8),
            database_timeout: Duration::from_secs(
                self.database_timeout.or(file.database_timeout).map_or(10, NonZeroU32::get).into(),
            ),
            queue_bytes: self.queue_bytes.or(file.queue_bytes).unwrap_or(limits::QUEUE_BYTES),
            node_queue_bytes: self
                .node_queue_bytes
                .or(file.node_queue_bytes)
                .unwrap_or(limits::NODE_QUEUE_BYTES),
            node_unserved_bytes: self
                .node_unserved_bytes
                .or(file.node_unserved_bytes)
                .unwrap_or(limits::NODE_UNSERVED_BYTES),
            window_bytes: self.window_bytes.or(file.window_bytes).unwrap_or(limits::WINDOW_BYTES),
            sessions: self.sessions.or(file.sessions).unwrap_or(limits::SESSIONS),
            waiting_sessions: self
                .waiting_sessions
                .or(file.waiting_sessions)
                .unwrap_or(limits::WAITING_SESSIONS)
                .max(1),
            trust_proxy: self.trust_proxy.or(file.trust_proxy).unwrap_or(false),
            drain: self.drain.or(file.drain).map_or(Duration::from_secs(10), |span| span.0),
            log_format: self.log_format.or(file.log_format).unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_beat_the_file_and_the_file_the_defaults() {
        let file: ServeSettings =
            toml::from_str("listen = \"127.0.0.1:5000\"\nread-connections = 3").unwrap();
        let flags = ServeSettings { read_connections: Some(4), ..ServeSettings::default() };
        let serve = flags.resolve("postgres://x".into(), file).unwrap();
        assert_eq!((serve.listen.port(), serve.read_connections, serve.write_connections), (5000, 4, 8));
        assert_eq!(serve.read_database_url, "postgres://x");
    }

    #[test]
    fn an_error_in_the_file_names_the_line_and_repeats_none_of_it() {
        for (text, line, says) in [
            ("\ndatabase-url = \"postgres://u:secret@h/x\nlisten = 1", 2, ""),
            ("database-url = [\"postgres://u:secret@h/x\"]", 1, "expected a string"),
            ("# all\n\nlisen = 1", 3, "unknown field `lisen`"),
            ("listen = \"secret\"", 1, "127.0.0.1:4000"),
            ("database-timeout = 0", 1, "nonzero"),
        ] {
            let (at, what) = parse(text).unwrap_err();
            assert_eq!(at, line, "{what}");
            assert!(what.contains(says) && !what.contains("secret"), "{what}");
        }
        assert_eq!(
            parse("listen = \"localhost:7\"").unwrap().listen,
            Some(SocketAddr::from(([127, 0, 0, 1], 7)))
        );
    }

    #[test]
    fn lengths_of_time() {
        let file: ServeSettings = toml::from_str("retention = \"12h\"\ngc-interval = \"90s\"").unwrap();
        let flags = ServeSettings { gc_interval: Some("2m".parse().unwrap()), ..ServeSettings::default() };
        let gc = flags.resolve("postgres://x".into(), file).unwrap().gc;
        let days = |n: u64| Duration::from_secs(n * 86_400);
        assert_eq!((gc.retention, gc.client_retention), (days(1) / 2, days(60)));
        assert_eq!(gc.at_most_every, Some(Duration::from_secs(120)));
        for bad in ["", "30", "d", "-1d", "1.5h", "1w", "999999999999999999d", "3ü"] {
            assert!(bad.parse::<Span>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn refuses_unknown_settings_and_open_addresses() {
        assert!(toml::from_str::<ServeSettings>("lisen = 1").is_err());
        let open = ServeSettings { listen: Some("0.0.0.0:1".parse().unwrap()), ..ServeSettings::default() };
        assert!(
            open.resolve(String::new(), ServeSettings::default())
                .unwrap_err()
                .to_string()
                .contains("loopback")
        );
    }
}
