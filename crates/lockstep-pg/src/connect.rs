//! Connections: the pool for queries, and the one for replication. Both go where a [`Target`] leads.

use crate::error::PgError;
use crate::lease::within;
use crate::session::SESSION;
use crate::target::{KEEPALIVE, Target, UNACKNOWLEDGED};
use crate::tls::Tls;
use crate::wire::{Binding, Startup, Wire};
use bytes::BytesMut;
use deadpool_postgres::{Connect, Manager, ManagerConfig, RecyclingMethod, Runtime};
use futures_util::future::{BoxFuture, FutureExt};
use postgres_protocol::message::frontend;
use socket2::{SockRef, TcpKeepalive};
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;
use tokio_postgres::config::{ChannelBinding, Host, SslMode, SslNegotiation, TargetSessionAttrs};
use tokio_postgres::{Client, Config};

/// Connections for queries, opened when needed.
#[derive(Debug, Clone)]
pub struct Pool {
    inner: deadpool_postgres::Pool,
    tls: Tls,
}

impl Pool {
    /// At most `size` connections. Nobody waits longer than `answer` for one.
    ///
    /// # Errors
    /// If the pool cannot be made.
    pub fn new(target: &Target, size: usize, answer: Duration) -> Result<Self, PgError> {
        // Asked before it is lent: a connection that fell silent in the pool must not cost a client's write its patience.
        let manager = ManagerConfig { recycling_method: RecyclingMethod::Verified };
        let manager = Manager::from_connect(target.config().clone(), Opener(target.clone()), manager);
        let pool = deadpool_postgres::Pool::builder(manager)
            .max_size(size)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(answer))
            .create_timeout(Some(answer))
            .recycle_timeout(Some(answer));
        let inner = pool.build().map_err(|e| PgError::Pool(e.to_string()))?;
        Ok(Self { inner, tls: target.tls().clone() })
    }

    pub(crate) async fn get(&self) -> Result<deadpool_postgres::Object, PgError> {
        Ok(self.inner.get().await?)
    }

    pub(crate) fn tls(&self) -> Tls {
        self.tls.clone()
    }
}

struct Opener(Target);

impl Connect for Opener {
    fn connect(&self, _: &Config) -> BoxFuture<'_, Result<(Client, JoinHandle<()>), tokio_postgres::Error>> {
        open(&self.0).boxed()
    }
}

/// A connection of its own. The task ends with it.
///
/// # Errors
/// If no host can be reached, or none lets us in.
pub async fn open(target: &Target) -> Result<(Client, JoinHandle<()>), tokio_postgres::Error> {
    let mut tries = target.tries().into_iter();
    // `tries` is never empty; an empty one would be the configuration as it is.
    let mut config = tries.next().unwrap_or_else(|| target.config().clone());
    loop {
        let error = match config.connect(target.tls().clone()).await {
            Ok((client, connection)) => {
                let task = async move {
                    // An error here reaches whoever uses the client as a closed connection.
                    let _ = connection.await;
                };
                return Ok((client, tokio::spawn(task)));
            }
            Err(error) => error,
        };
        // Whoever cannot be reached, or does not take the password, would say so again.
        let state = error.code().map(tokio_postgres::error::SqlState::code);
        let other_way = is_tls(&error) || state == Some(REFUSED_BY_HBA);
        match tries.next().filter(|_| other_way) {
            Some(next) => config = next,
            None => return Err(error),
        }
    }
}

/// SQLSTATE of a client that no line of pg_hba.conf lets in, as it came: with or without TLS.
const REFUSED_BY_HBA: &str = "28000";

/// The handshake failed.
fn is_tls(error: &tokio_postgres::Error) -> bool {
    error.to_string().contains("TLS")
}

/// Any byte stream to a server.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin + std::fmt::Debug {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + std::fmt::Debug> Duplex for S {}

/// A replication connection's stream: a socket, or TLS over one.
pub type Stream = Box<dyn Duplex>;

/// Opens a replication connection to the database that `target` names: to the first of its hosts that answers within
/// `answer` and is no standby, since fences are read on the primary.
///
/// # Errors
/// That of the last host.
pub async fn replication(target: &Target, answer: Duration) -> Result<Wire<Stream>, PgError> {
    let mut startup = startup(target.config())?;
    let session = SESSION.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    // What `options` sets too is set by the parameters after it.
    startup.parameters.splice(0..0, session);
    startup.parameters.push(("replication".into(), "database".into()));
    let (wire, _) = first_host(target, |config, nth| {
        let (target, startup) = (target.clone(), startup.clone());
        async move { within(answer, replication_at(&target, &config, nth, &startup)).await }
    })
    .await?;
    Ok(wire)
}

/// Where a connection leads, so that a request to cancel can be sent there too.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) config: Config,
    pub(crate) nth: usize,
}

/// Opens a connection for large reads, without settings: a pooler would refuse or forget them.
pub(crate) async fn for_reading(target: &Target, answer: Duration) -> Result<(Wire<Stream>, Place), PgError> {
    let mut startup = startup(target.config())?;
    startup.parameters.push(("client_encoding".into(), "UTF8".into()));
    let several = target.config().get_target_session_attrs() == TargetSessionAttrs::ReadWrite;
    first_host(target, |config, nth| {
        let (target, startup) = (target.clone(), startup.clone());
        async move {
            let connecting = async {
                let mut wire = wire_at(&target, &config, nth, &startup).await?;
                if several {
                    refuse_standby(&target, &mut wire).await?;
                }
                Ok(wire)
            };
            within(answer, connecting).await
        }
    })
    .await
}

async fn first_host<F: Future<Output = Result<Wire<Stream>, PgError>>>(
    target: &Target,
    connect: impl Fn(Config, usize) -> F,
) -> Result<(Wire<Stream>, Place), PgError> {
    let mut last = PgError::Url("it names no host".into());
    for config in target.tries() {
        for nth in 0..config.get_hosts().len().max(config.get_hostaddrs().len()) {
            match connect(config.clone(), nth).await {
                Ok(wire) => return Ok((wire, Place { config, nth })),
                Err(error) => last = error,
            }
        }
        let other_way = matches!(last, PgError::Tls(_)) || last.sqlstate() == Some(REFUSED_BY_HBA);
        if !other_way {
            break;
        }
    }
    Err(last)
}

fn startup(config: &Config) -> Result<Startup, PgError> {
    let user = config.get_user().ok_or_else(|| PgError::Url("it names no user".into()))?;
    let mut parameters = Vec::new();
    let mut add = |name: &str, value: &str| parameters.push((name.into(), value.into()));
    add("database", config.get_dbname().unwrap_or(user));
    add("application_name", config.get_application_name().unwrap_or("lockstep"));
    if let Some(options) = config.get_options() {
        add("options", options);
    }
    Ok(Startup {
        user: user.into(),
        password: config.get_password().map(<[u8]>::to_vec),
        parameters,
        binding: Binding::default(),
    })
}

async fn replication_at(
    target: &Target,
    config: &Config,
    nth: usize,
    startup: &Startup,
) -> Result<Wire<Stream>, PgError> {
    let mut wire = wire_at(target, config, nth, startup).await.map_err(not_a_pooler)?;
    refuse_standby(target, &mut wire).await?;
    // Making a slot waits for open transactions. If this node dies meanwhile, the server must notice, or the slot
    // lives as long as they do. Servers on systems that cannot watch a socket refuse the setting and go without.
    match wire.query("set client_connection_check_interval = '2s'").await {
        Ok(_) | Err(PgError::Server { .. }) => Ok(wire),
        Err(error) => Err(error),
    }
}

async fn refuse_standby(target: &Target, wire: &mut Wire<Stream>) -> Result<(), PgError> {
    let standby = wire.query("select pg_catalog.pg_is_in_recovery()").await?;
    if standby.first().and_then(|row| row.first()).is_some_and(|v| v.as_deref() == Some("t")) {
        return Err(PgError::Standby(target.place()));
    }
    Ok(())
}

async fn wire_at(
    target: &Target,
    config: &Config,
    nth: usize,
    startup: &Startup,
) -> Result<Wire<Stream>, PgError> {
    let (stream, end_point) = stream_to(target, config, nth).await?;
    let mut startup = startup.clone();
    startup.binding = match config.get_channel_binding() {
        ChannelBinding::Disable => Binding::default(),
        binding => Binding { end_point, required: binding == ChannelBinding::Require },
    };
    Wire::start(stream, &startup).await
}

/// A stream to one of the hosts, and what the server's certificate binds a password to.
pub(crate) async fn stream_to(
    target: &Target,
    config: &Config,
    nth: usize,
) -> Result<(Stream, Option<Vec<u8>>), PgError> {
    let host = config.get_hosts().get(nth);
    let address = config.get_hostaddrs().get(nth);
    let port = target.port(nth);
    match (host, address) {
        (Some(Host::Unix(folder)), _) => Ok((unix(folder, port).await?, None)),
        (Some(Host::Tcp(name)), _) => tcp(target, config, name, address, port).await,
        (None, Some(address)) => tcp(target, config, &address.to_string(), Some(address), port).await,
        (None, None) => Err(PgError::Url("it names no host".into())),
    }
}

/// PgBouncer before 1.23 refuses the parameter that makes a connection one for replication.
fn not_a_pooler(error: PgError) -> PgError {
    match &error {
        PgError::Server { code, message } if code == "08P01" && message.contains("startup parameter") => {
            PgError::Pooler
        }
        _ => error,
    }
}

async fn unix(folder: &Path, port: u16) -> Result<Stream, PgError> {
    Ok(Box::new(UnixStream::connect(folder.join(format!(".s.PGSQL.{port}"))).await?))
}

async fn tcp(
    target: &Target,
    config: &Config,
    name: &str,
    address: Option<&IpAddr>,
    port: u16,
) -> Result<(Stream, Option<Vec<u8>>), PgError> {
    let connecting = async {
        Ok(match address {
            Some(address) => TcpStream::connect((*address, port)).await?,
            None => TcpStream::connect((name, port)).await?,
        })
    };
    let patience = config.get_connect_timeout().copied().unwrap_or(Duration::from_secs(10));
    let mut socket = within(patience, connecting).await?;
    socket.set_nodelay(true)?;
    let (idle, apart, often) = KEEPALIVE;
    let keepalive = TcpKeepalive::new().with_time(idle).with_interval(apart).with_retries(often);
    let options = SockRef::from(&socket);
    options.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    options.set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
    if config.get_ssl_mode() == SslMode::Disable {
        return Ok((Box::new(socket), None));
    }
    if config.get_ssl_negotiation() == SslNegotiation::Postgres && !offers_tls(&mut socket).await? {
        return if config.get_ssl_mode() == SslMode::Require {
            Err(PgError::Tls(std::io::Error::other("the server does not speak it; set ssl = on there")))
        } else {
            Ok((Box::new(socket), None))
        };
    }
    let secure = target.tls().connect(name, socket).await.map_err(PgError::Tls)?;
    let end_point = secure.end_point();
    Ok((Box::new(secure), end_point))
}

async fn offers_tls(socket: &mut TcpStream) -> Result<bool, PgError> {
    let mut out = BytesMut::new();
    frontend::ssl_request(&mut out);
    socket.write_all(&out).await?;
    // One byte exactly: what follows it in clear text must not be taken for a part of the session.
    let mut answer = [0];
    socket.read_exact(&mut answer).await?;
    match answer[0] {
        b'S' => Ok(true),
        b'N' => Ok(false),
        _ => Err(PgError::Protocol("to the question for TLS")),
    }
}
