//! Settings: a flag beats an environment variable, which beats `lockstep.toml`, which beats the default.

use anyhow::{Context, Result, bail};
use clap::Args;
use lockstep_pg::gc::GcOptions;
use serde::Deserialize;
use std::net::SocketAddr;
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
        let text = text.trim();
        let (number, seconds) = match text.as_bytes().last() {
            Some(b'd') => (&text[..text.len() - 1], 86_400),
            Some(b'h') => (&text[..text.len() - 1], 3_600),
            Some(b'm') => (&text[..text.len() - 1], 60),
            Some(b's') => (&text[..text.len() - 1], 1),
            _ => return Err(format!("{text:?} needs a unit: 30d, 12h, 90m or 45s")),
        };
        let number: u64 =
            number.parse().map_err(|_| format!("{text:?} is not a length of time such as 30d"))?;
        number
            .checked_mul(seconds)
            .map(Duration::from_secs)
            .map(Self)
            .ok_or_else(|| format!("{text:?} is too long"))
    }
}

impl TryFrom<String> for Span {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
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

    /// Address and port to listen on. Loopback only: there is no authentication yet [default: 127.0.0.1:4000]
    #[arg(long, env = "LOCKSTEP_LISTEN", value_name = "ADDRESS:PORT")]
    pub listen: Option<SocketAddr>,

    /// A folder of files to serve beside the socket, for example a built web app
    #[arg(long = "static", env = "LOCKSTEP_STATIC", value_name = "FOLDER")]
    #[serde(rename = "static")]
    pub static_files: Option<PathBuf>,

    /// Connections for catch-ups and polls [default: 8]
    #[arg(long, env = "LOCKSTEP_READ_CONNECTIONS", value_name = "N")]
    pub read_connections: Option<usize>,

    /// Connections for clients' writes [default: 8]
    #[arg(long, env = "LOCKSTEP_WRITE_CONNECTIONS", value_name = "N")]
    pub write_connections: Option<usize>,

    /// How long a client may be away and still be told only what changed [default: 30d]
    #[arg(long, env = "LOCKSTEP_RETENTION", value_name = "TIME")]
    pub retention: Option<Span>,

    /// How long the number of a client that does not write is kept; longer than any outbox [default: 60d]
    #[arg(long, env = "LOCKSTEP_CLIENT_RETENTION", value_name = "TIME")]
    pub client_retention: Option<Span>,

    /// Between two collections of the change logs, by one node of all [default: 1h]
    #[arg(long, env = "LOCKSTEP_GC_INTERVAL", value_name = "TIME")]
    pub gc_interval: Option<Span>,

    /// Log lines as JSON
    #[arg(long, env = "LOCKSTEP_LOG_JSON", num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub log_json: Option<bool>,
}

/// What `serve` runs with.
#[derive(Debug, Clone)]
pub struct Serve {
    /// The primary.
    pub database_url: String,
    /// The database that is read.
    pub read_database_url: String,
    /// Where to listen; loopback.
    pub listen: SocketAddr,
    /// Files to serve.
    pub static_files: Option<PathBuf>,
    /// Pool sizes.
    pub read_connections: usize,
    /// Pool sizes.
    pub write_connections: usize,
    /// What garbage collection keeps, and how often it runs.
    pub gc: GcOptions,
    /// JSON logs.
    pub log_json: bool,
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
    toml::from_str(&text).with_context(|| format!("{} is not a valid configuration", path.display()))
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
        let interval = self.gc_interval.or(file.gc_interval).map_or(Duration::from_secs(3600), |span| span.0);
        let gc =
            gc_options(self.retention.or(file.retention), self.client_retention.or(file.client_retention));
        Ok(Serve {
            gc: GcOptions { at_most_every: Some(interval), ..gc },
            read_database_url: self
                .read_database_url
                .or(file.read_database_url)
                .unwrap_or_else(|| database_url.clone()),
            database_url,
            listen,
            static_files: self.static_files.or(file.static_files),
            read_connections: self.read_connections.or(file.read_connections).unwrap_or(8),
            write_connections: self.write_connections.or(file.write_connections).unwrap_or(8),
            log_json: self.log_json.or(file.log_json).unwrap_or(false),
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
