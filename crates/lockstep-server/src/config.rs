//! Settings: a flag beats an environment variable, which beats `lockstep.toml`, which beats the default.

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// The file that is read if it exists and no other is named.
pub const FILE: &str = "lockstep.toml";

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
    /// JSON logs.
    pub log_json: bool,
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
        Ok(Serve {
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
