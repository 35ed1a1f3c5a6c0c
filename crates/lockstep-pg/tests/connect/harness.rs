//! One server with TLS for this test binary, and how both kinds of connection fare.

use lockstep_pg::PgError;
use lockstep_pg::cluster::Cluster;
use lockstep_pg::connect::{self, Pool};
use lockstep_pg::lease::Lease;
use lockstep_pg::target::Target;
use rcgen::{BasicConstraints, Certificate, CertificateParams, IsCa, Issuer, KeyPair};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;
use tempfile::TempDir;

pub const ANSWER: Duration = Duration::from_secs(10);

/// A server, and files for its clients.
pub struct Server {
    pub cluster: Cluster,
    folder: TempDir,
}

/// An authority that signs, and its certificate.
pub struct Authority {
    pub certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::new([]).expect("no names");
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    /// Certificate and key for these names.
    pub fn sign(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> (String, String) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        (params.signed_by(&key, &self.issuer).expect("signed").pem(), key.serialize_pem())
    }
}

/// Roles: `plain` (trust), `clear` (password in clear), `md5`, `scram`, and what the URL's `sslmode` may try.
const HBA: &str = "
local all all trust
host all plain 127.0.0.1/32 trust
host all clear 127.0.0.1/32 password
host all md5 127.0.0.1/32 md5
hostssl all only_tls 127.0.0.1/32 scram-sha-256
host all only_tls 127.0.0.1/32 reject
hostnossl all no_tls 127.0.0.1/32 scram-sha-256
host all no_tls 127.0.0.1/32 reject
host all all 127.0.0.1/32 scram-sha-256
";

const ROLES: &str = "
set password_encryption = 'md5'; create role md5 login replication password 'it''s m@d';
set password_encryption = 'scram-sha-256';
create role plain login replication; create role clear login replication password 'it''s m@d';
create role scram login replication password 'it''s m@d';
create role only_tls login replication password 'it''s m@d';
create role no_tls login replication password 'it''s m@d';
";

/// Never dropped: the server stops when this process ends.
static SERVER: LazyLock<Server> = LazyLock::new(|| Server::start("localhost"));
pub static AUTHORITY: LazyLock<Authority> = LazyLock::new(|| Authority::new("the tests"));

/// The server that has a certificate for `localhost`.
pub fn server() -> &'static Server {
    &SERVER
}

impl Server {
    /// A server with TLS; its certificate is for this name.
    pub fn start(name: &str) -> Self {
        let (certificate, key) = AUTHORITY.sign(&[name], |_| {});
        Self::start_with(&certificate, &key)
    }

    pub fn start_with(certificate: &str, key: &str) -> Self {
        let server = Self::without_tls();
        server.give("server.crt", certificate);
        server.give("server.key", key);
        server.cluster.set("ssl", "on").expect("TLS");
        server
    }

    pub fn without_tls() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).expect("its mode");
        let cluster = Cluster::builder().sockets_in(folder.path()).start().expect("a cluster");
        let server = Self { cluster, folder };
        // The caller may be inside a runtime of its own.
        std::thread::scope(|scope| scope.spawn(|| make_roles(&server.cluster.url())).join().expect("roles"));
        server.give("pg_hba.conf", HBA);
        server.cluster.set("lockstep.reload", "1").expect("a reload");
        server.file("authority.pem", &AUTHORITY.certificate.pem());
        server
    }

    /// Puts a file into the data folder, as the server wants it.
    fn give(&self, name: &str, text: &str) {
        let (data, path) = (self.cluster.data_dir(), self.cluster.data_dir().join(name));
        fs::write(&path, text).expect("written");
        let owner = fs::metadata(&data).expect("the data");
        chown(&path, Some(owner.uid()), Some(owner.gid())).expect("its owner");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("its mode");
    }

    /// A file for clients.
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, text).expect("written");
        path
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A URL of `role` with its password, at `host`.
    pub fn url(&self, role: &str, host: &str, parameters: &str) -> String {
        let parameters = parameters.replace("FOLDER", &self.folder.path().display().to_string());
        format!("postgres://{role}:it's%20m%40d@{host}:{}/postgres?{parameters}", self.cluster.port())
    }
}

#[tokio::main(flavor = "current_thread")]
async fn make_roles(url: &str) {
    let (client, _task) = connect::open(&Target::parse(url).expect("a URL")).await.expect("the superuser");
    client.batch_execute(ROLES).await.expect("roles");
}

/// How both kinds of connection fared: whether TLS is spoken, or the error with its advice. They must agree.
pub async fn both(url: &str) -> Result<bool, String> {
    let sql = "select ssl::text from pg_catalog.pg_stat_ssl where pid = pg_catalog.pg_backend_pid()";
    let queries = ask_query(url, sql).await;
    let replication = ask_replication(url, sql).await;
    match (queries, replication) {
        (Ok(one), Ok(other)) => {
            assert_eq!(one, other, "{url}");
            Ok(one.starts_with('t'))
        }
        (Err(one), Err(other)) => {
            assert!(!one.contains("m@d") && !other.contains("m@d"), "{one} / {other}");
            Err(format!("{one} / {other}"))
        }
        (one, other) => panic!("{url}: queries {one:?}, replication {other:?}"),
    }
}

fn told(error: &PgError) -> String {
    format!("{error}; {}", error.advice().unwrap_or_default())
}

/// The first value, by a pooled connection.
pub async fn ask_query(url: &str, sql: &str) -> Result<String, String> {
    let ask = async {
        let pool = Pool::new(&Target::parse(url)?, 1, ANSWER)?;
        let lease = Lease::of(&pool).await?;
        let rows = lease.simple_query(sql).await?;
        let value = rows.iter().find_map(|m| match m {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        });
        lease.end(Ok(value.unwrap_or_default()), ANSWER).await
    };
    ask.await.map_err(|error: PgError| told(&error))
}

/// The same by a replication connection.
pub async fn ask_replication(url: &str, sql: &str) -> Result<String, String> {
    let ask = async {
        let mut wire = connect::replication(&Target::parse(url)?, ANSWER).await?;
        let rows = wire.query(sql).await?;
        wire.terminate().await;
        Ok(rows.into_iter().flatten().next().flatten().unwrap_or_default())
    };
    ask.await.map_err(|error: PgError| told(&error))
}
