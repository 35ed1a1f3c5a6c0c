//! Database URLs: one reading for queries and for replication.
//!
//! Both forms of libpq are read, `postgres://…` and `key=value`. What tokio-postgres knows is left to it; the rest,
//! TLS above all, is taken out here first. No error repeats a piece of the URL: in one with a password that was not
//! encoded, any piece may be of the password. So a parameter is called by its name only if it is a known one.

use crate::error::PgError;
use crate::tls::{Mode, Roots, Tls, TlsOptions};
use std::time::Duration;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};

/// A peer whose machine is gone says nothing. After so long without traffic the kernel asks it, so often, this far
/// apart; data that it does not acknowledge for [`UNACKNOWLEDGED`] ends the connection too.
pub(crate) const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(15), Duration::from_secs(5), 3);
/// See [`KEEPALIVE`].
pub(crate) const UNACKNOWLEDGED: Duration = Duration::from_secs(30);
/// PostgreSQL's and the kernel's default, which is to ask after two hours.
const KEEPALIVE_UNSET: Duration = Duration::from_secs(2 * 60 * 60);

/// Read by tokio-postgres.
const THEIRS: &[&str] = &[
    "user",
    "password",
    "dbname",
    "options",
    "application_name",
    "sslnegotiation",
    "host",
    "hostaddr",
    "port",
    "connect_timeout",
    "tcp_user_timeout",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_retries",
    "channel_binding",
    "load_balance_hosts",
];

/// Known to libpq, to poolers or to other clients, and of no use here: named in an error, so that it can be taken out.
const REFUSED: &[&str] = &[
    "client_min_messages",
    "connection_limit",
    "connection_timeout",
    "currentSchema",
    "max_protocol_version",
    "min_protocol_version",
    "passfile",
    "pgbouncer",
    "pool_mode",
    "pool_timeout",
    "prepareThreshold",
    "prepared_statements",
    "replication",
    "require_auth",
    "requirepeer",
    "schema",
    "scram_client_key",
    "scram_server_key",
    "search_path",
    "service",
    "servicefile",
    "socket_timeout",
    "ssl",
    "ssl_max_protocol_version",
    "ssl_min_protocol_version",
    "sslcertmode",
    "sslcrl",
    "sslcrldir",
    "sslkeylogfile",
    "sslpassword",
    "statement_cache_size",
    "statement_timeout",
    "supa",
    "uselibpqcompat",
    "workaround",
];

/// Read here.
const OURS: &[&str] = &["sslmode", "sslrootcert", "sslcert", "sslkey", "target_session_attrs"];

/// Accepted where they ask for what is done anyway: the value that this is.
const NOTHING_TO_DO: &[(&str, &[&str])] = &[
    ("gssencmode", &["disable", "prefer"]),
    ("gssdelegation", &["0"]),
    ("krbsrvname", &["postgres"]),
    ("gsslib", &["gssapi"]),
    ("sslcompression", &["0"]),
    ("sslsni", &["1"]),
    ("client_encoding", &["UTF8", "utf8", "UTF-8", "utf-8", "auto"]),
    ("fallback_application_name", &[]),
];

/// Where a URL leads, and how to get in.
#[derive(Debug, Clone)]
pub struct Target {
    /// Everything but TLS.
    config: Config,
    mode: Mode,
    tls: Tls,
}

impl Target {
    /// Reads a URL, and the files with certificates that it names.
    ///
    /// # Errors
    /// [`PgError::Url`], which says what is wrong but not the URL: it may hold a password.
    pub fn parse(url: &str) -> Result<Self, PgError> {
        let (kept, taken) = split(url)?;
        let taken = Taken::read(taken)?;
        let mut config: Config = kept.parse().map_err(|error: tokio_postgres::Error| {
            let why = std::error::Error::source(&error).map(|s| format!(": {}", told(&s.to_string())));
            PgError::Url(format!(
                "{error}{}; write postgres://user:password@host:5432/database",
                why.unwrap_or_default()
            ))
        })?;
        if config.get_hosts().iter().any(|host| too_many_at(host, is_url(url))) {
            return Err(PgError::Url("there is an @ too many; in a password, write %40".into()));
        }
        set_defaults(&mut config);
        let several = config.get_hosts().len().max(config.get_hostaddrs().len()) > 1;
        if taken.read_write || several {
            // Replication looks for the primary among several hosts; so must queries.
            config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        }
        let mut options = taken.tls;
        let sockets = config.get_hosts().iter().filter(|host| matches!(host, Host::Unix(_))).count();
        if sockets > 0 && sockets < config.get_hosts().len() {
            return Err(PgError::Url("hosts and Unix sockets cannot be mixed".into()));
        }
        if sockets > 0 {
            // As in libpq: a Unix socket carries no TLS, whatever `sslmode` says.
            options = TlsOptions { mode: Mode::Disable, ..TlsOptions::default() };
        }
        if config.get_ssl_negotiation() == tokio_postgres::config::SslNegotiation::Direct
            && options.mode < Mode::Require
        {
            return Err(PgError::Url("sslnegotiation=direct needs sslmode=require or a stricter one".into()));
        }
        Ok(Self { config, mode: options.mode, tls: Tls::new(&options)? })
    }

    /// Configurations to be tried one after another, as `sslmode` says.
    pub(crate) fn tries(&self) -> Vec<Config> {
        let with = |mode| {
            let mut config = self.config.clone();
            config.ssl_mode(mode);
            config
        };
        match self.mode {
            Mode::Disable => vec![with(SslMode::Disable)],
            Mode::Allow => vec![with(SslMode::Disable), with(SslMode::Require)],
            Mode::Prefer => vec![with(SslMode::Prefer), with(SslMode::Disable)],
            Mode::Require | Mode::VerifyCa | Mode::VerifyFull => vec![with(SslMode::Require)],
        }
    }

    /// Everything but TLS.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// How strict it is about TLS.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Makes TLS sessions.
    pub fn tls(&self) -> &Tls {
        &self.tls
    }

    /// Where it leads, for people: no password.
    pub fn place(&self) -> String {
        let hosts = self.config.get_hosts().iter().enumerate().map(|(i, host)| match host {
            Host::Tcp(name) => format!("{name}:{}", self.port(i)),
            Host::Unix(path) => path.display().to_string(),
        });
        hosts.collect::<Vec<_>>().join(", ")
    }

    /// The port of the nth host.
    pub(crate) fn port(&self, nth: usize) -> u16 {
        let ports = self.config.get_ports();
        ports.get(nth).or(ports.first()).copied().unwrap_or(5432)
    }
}

const SCHEMES: &[&str] = &["postgres://", "postgresql://"];

fn is_url(url: &str) -> bool {
    SCHEMES.iter().any(|scheme| url.starts_with(scheme))
}

/// Whether a piece of the password may stand in the host: in a URL, where the first @ ends it. A path may begin with one
/// (a socket without a file), and where it is written as `host=` it may hold any.
fn too_many_at(host: &Host, in_url: bool) -> bool {
    match host {
        Host::Tcp(name) => name.contains('@'),
        Host::Unix(path) => in_url && path.to_string_lossy().chars().skip(1).any(|c| c == '@'),
    }
}

fn set_defaults(config: &mut Config) {
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
}

/// A reason of tokio-postgres without what it repeats of the URL.
fn told(reason: &str) -> &str {
    if reason.starts_with("unknown option") { "unknown option" } else { reason }
}

/// A parameter of [`OURS`] and its value.
type Pair = (&'static str, String);

/// What was taken out of the URL.
#[derive(Debug, Default)]
struct Taken {
    tls: TlsOptions,
    read_write: bool,
}

impl Taken {
    fn read(pairs: Vec<Pair>) -> Result<Self, PgError> {
        let mut taken = Self::default();
        let (mut mode, mut cert, mut key) = (None, None, None);
        for (name, value) in pairs {
            match name {
                "sslmode" => mode = Some(ssl_mode(&value)?),
                "sslrootcert" if value == "system" => taken.tls.roots = Some(Roots::System),
                "sslrootcert" => taken.tls.roots = Some(Roots::File(value)),
                "sslcert" => cert = Some(value),
                "sslkey" => key = Some(value),
                _ => taken.read_write = read_write(&value)?,
            }
        }
        taken.tls.identity = match (cert, key) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            _ => return Err(PgError::Url("sslcert and sslkey go together".into())),
        };
        let of_system = taken.tls.roots == Some(Roots::System);
        if of_system && mode.is_some_and(|mode| mode != Mode::VerifyFull) {
            // As in libpq: anybody can have a certificate from one of these authorities, for a name of their own.
            return Err(PgError::Url("sslrootcert=system takes sslmode=verify-full".into()));
        }
        taken.tls.mode = mode.unwrap_or(if of_system { Mode::VerifyFull } else { Mode::Prefer });
        if taken.tls.mode < Mode::Require {
            // As in libpq: who would go on without TLS need not look at certificates.
            taken.tls.roots = None;
        }
        Ok(taken)
    }
}

fn ssl_mode(value: &str) -> Result<Mode, PgError> {
    Ok(match value {
        "disable" => Mode::Disable,
        "allow" => Mode::Allow,
        "prefer" => Mode::Prefer,
        "require" => Mode::Require,
        "verify-ca" => Mode::VerifyCa,
        "verify-full" => Mode::VerifyFull,
        _ => {
            return Err(PgError::Url(
                "sslmode is disable, allow, prefer, require, verify-ca or verify-full".into(),
            ));
        }
    })
}

fn read_write(value: &str) -> Result<bool, PgError> {
    match value {
        "any" => Ok(false),
        "read-write" | "primary" => Ok(true),
        _ => Err(PgError::Url(
            "target_session_attrs is any, read-write or primary: a node works with the primary".into(),
        )),
    }
}

/// What is left of the URL for tokio-postgres, and the parameters of [`OURS`].
fn split(url: &str) -> Result<(String, Vec<Pair>), PgError> {
    let mut taken = Vec::new();
    let scheme = SCHEMES.iter().find_map(|s| Some((*s, url.strip_prefix(s)?)));
    let Some((scheme, rest)) = scheme else {
        let mut kept = String::new();
        for (nth, (key, value)) in words(url)?.into_iter().enumerate() {
            if let Some(name) = taker(&key, &value, nth + 1)? {
                taken.push((name, value));
            } else if THEIRS.contains(&key.as_str()) {
                kept += &format!("{key}='{}' ", value.replace('\\', "\\\\").replace('\'', "\\'"));
            }
        }
        return Ok((kept, taken));
    };
    // A password may hold a question mark.
    let after = rest.find('@').unwrap_or(0);
    let Some(start) = rest[after..].find('?').map(|at| after + at) else {
        return Ok((url.to_owned(), taken));
    };
    let mut kept = Vec::new();
    for (nth, parameter) in rest[start + 1..].split('&').filter(|p| !p.is_empty()).enumerate() {
        let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let (key, value) = (decoded(key)?, decoded(value)?);
        if let Some(name) = taker(&key, &value, nth + 1)? {
            taken.push((name, value));
        } else if THEIRS.contains(&key.as_str()) {
            kept.push(parameter);
        }
    }
    let joint = if kept.is_empty() { "" } else { "?" };
    Ok((format!("{scheme}{}{joint}{}", &rest[..start], kept.join("&")), taken))
}

/// The name of a parameter that is read here; none for those that tokio-postgres reads and for those that change
/// nothing.
fn taker(key: &str, value: &str, nth: usize) -> Result<Option<&'static str>, PgError> {
    if let Some(name) = OURS.iter().find(|name| **name == key) {
        return Ok(Some(name));
    }
    if let Some((name, values)) = NOTHING_TO_DO.iter().find(|(name, _)| *name == key) {
        return if values.is_empty() || values.contains(&value) {
            Ok(None)
        } else {
            Err(PgError::Url(format!("{name} can only be {}; take it out", values.join(" or "))))
        };
    }
    if THEIRS.contains(&key) {
        return Ok(None);
    }
    if let Some(name) = REFUSED.iter().find(|name| **name == key) {
        return Err(PgError::Url(format!("{name} is not understood here; take it out")));
    }
    let alike = OURS.iter().chain(THEIRS).find(|name| strsim::levenshtein(key, name) <= 2);
    let alike = alike.map(|name| format!(", much like {name}")).unwrap_or_default();
    Err(PgError::Url(format!("unknown option: parameter {nth}{alike}; a password must be percent-encoded")))
}

/// `%2F` is a slash; a plus is a plus, as in libpq.
fn decoded(text: &str) -> Result<String, PgError> {
    let text = percent_encoding::percent_decode_str(text).decode_utf8();
    Ok(text.map_err(|_| PgError::Url("a parameter is not UTF-8".into()))?.into_owned())
}

/// `key=value`, `key='it\'s'`, with blanks around.
fn words(text: &str) -> Result<Vec<(String, String)>, PgError> {
    let wrong = || {
        PgError::Url(
            "neither postgres://user:password@host:5432/database nor key=value pairs; write the former"
                .into(),
        )
    };
    let mut pairs = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (key, tail) = rest.split_once('=').ok_or_else(wrong)?;
        let tail = tail.trim_start();
        let quoted = tail.starts_with('\'');
        let mut chars = tail.char_indices().skip(usize::from(quoted));
        let (mut value, mut end) = (String::new(), None);
        while let Some((at, char)) = chars.next() {
            match char {
                '\\' => value.push(chars.next().ok_or_else(wrong)?.1),
                '\'' if quoted => {
                    end = Some(at + 1);
                    break;
                }
                c if c.is_whitespace() && !quoted => {
                    end = Some(at);
                    break;
                }
                c => value.push(c),
            }
        }
        if quoted && end.is_none() {
            return Err(wrong());
        }
        pairs.push((key.trim().to_owned(), value));
        rest = tail[end.unwrap_or(tail.len())..].trim_start();
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(url: &str) -> String {
        Target::parse(url).expect_err(url).to_string()
    }

    #[test]
    fn errors_say_what_to_write_and_repeat_nothing() {
        for (url, says) in [
            ("nonsense", "write the former"),
            ("postgres://u:secret@h:port/x", "postgres://"),
            ("postgres://u:/pa@%2Fsecret%40h/x", "an @ too many"),
            ("host=h password=secret port=x", "postgres://"),
            ("host=h password='secret", "write the former"),
            ("postgres://u:secret@h/x?nonsense=1", "parameter 1"),
            ("postgres://u:secret@h/x?sslmode=disable&secret=1", "parameter 2"),
            ("postgres://u:secret@h/x?ssl_mode=require", "much like sslmode"),
            ("postgres://u:p@secret?secret=@h/x", "unknown option"),
            ("postgres://u:p@secret@h/x", "%40"),
            ("postgres://u:secret@h/x?sslmode=secret", "verify-full"),
            ("postgres://u:secret@h/x?sslmode=verify-full&sslrootcert=/secret", "the file of sslrootcert"),
            ("postgres://u:secret@h/x?sslmode=require&sslrootcert=system", "verify-full"),
            ("postgres://u:secret@h/x?sslcert=/secret", "go together"),
            ("postgres://u:secret@h/x?target_session_attrs=standby", "primary"),
            ("postgres://u:secret@h/x?pgbouncer=true", "pgbouncer is not understood"),
            ("postgres://u:secret@h/x?connection_limit=1", "connection_limit is not understood"),
            ("host=h user=u password=secret sslcrl=x", "sslcrl is not understood"),
            ("postgres://u:secret@h/x?gssencmode=require", "gssencmode can only be"),
            ("postgres://u:secret@h/x?sslnegotiation=direct", "sslmode=require"),
            ("postgres://u:secret@h,%2Fsecret/x", "cannot be mixed"),
            // libpq's escape is a backslash.
            ("host=h user=u password='sec''ret'", "write the former"),
        ] {
            let error = error(url);
            assert!(error.contains(says) && !error.contains("secret"), "{url}: {error}");
        }
        // As in libpq: without a mode that verifies, the file is not read.
        assert!(Target::parse("postgres://u:secret@h/x?sslrootcert=/secret").is_ok());
    }

    /// The forms that hosting companies print.
    #[test]
    fn urls_of_hosted_databases() {
        for (url, mode, place) in [
            (
                "postgresql://u:p%40ss@ep-x-pooler.eu.aws.neon.tech/neondb?sslmode=require&channel_binding=require",
                Mode::Require,
                "ep-x-pooler.eu.aws.neon.tech:5432",
            ),
            (
                "postgres://u:p@ep-x.neon.tech/db?options=endpoint%3Dep-x&sslmode=require",
                Mode::Require,
                "ep-x.neon.tech:5432",
            ),
            (
                "postgresql://postgres.ref:p@aws-0-eu.pooler.supabase.com:6543/postgres",
                Mode::Prefer,
                "aws-0-eu.pooler.supabase.com:6543",
            ),
            (
                "postgres://u%40server:p@s.postgres.database.azure.com:5432/d?sslmode=require",
                Mode::Require,
                "s.postgres.database.azure.com:5432",
            ),
            ("host=a.rds.amazonaws.com port=5433 dbname=d user=u", Mode::Prefer, "a.rds.amazonaws.com:5433"),
            (
                "postgres://u:p@/d?host=/cloudsql/project:region:instance",
                Mode::Disable,
                "/cloudsql/project:region:instance",
            ),
            ("user=u host=/var/run/postgresql sslmode=require", Mode::Disable, "/var/run/postgresql"),
            ("postgres://u:p@one,two:5433/x?sslmode=disable", Mode::Disable, "one:5432, two:5433"),
            (
                "postgres://u:p@h/x?application_name=a&connect_timeout=5&gssencmode=disable",
                Mode::Prefer,
                "h:5432",
            ),
        ] {
            let target = Target::parse(url).unwrap_or_else(|e| panic!("{url}: {e}"));
            assert_eq!((target.mode(), target.place().as_str()), (mode, place), "{url}");
        }
        let neon = Target::parse("postgres://u:p%40s?s@h/d?options=endpoint%3Dep-x&channel_binding=require")
            .expect("a password with a question mark");
        assert_eq!(neon.config().get_password(), Some(&b"p@s?s"[..]));
        assert_eq!(neon.config().get_options(), Some("endpoint=ep-x"));
        assert_eq!(neon.config().get_channel_binding(), tokio_postgres::config::ChannelBinding::Require);
        let pairs = Target::parse(r"host=h user='a \'b' password=p\ q dbname = d").expect("pairs");
        assert_eq!(pairs.config().get_user(), Some("a 'b"));
        assert_eq!(pairs.config().get_password(), Some(&b"p q"[..]));
        assert_eq!(pairs.config().get_dbname(), Some("d"));
        let several = Target::parse("postgres://u@one,two/d").expect("two hosts");
        assert_eq!(several.config().get_target_session_attrs(), TargetSessionAttrs::ReadWrite);
    }
}
