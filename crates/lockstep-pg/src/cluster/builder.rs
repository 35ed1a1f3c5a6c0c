//! What can be chosen about a cluster before it starts.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use super::account::Account;
use super::home::Home;
use super::programs::Programs;
use super::{Cluster, free_port, is_free, settings, template};

/// Describes a cluster; see [`Cluster::builder`].
#[derive(Clone, Debug, Default)]
pub struct Builder {
    major: Option<u32>,
    home: Option<PathBuf>,
    port: Option<u16>,
    durable: Option<bool>,
    own_initdb: bool,
    sockets: Option<PathBuf>,
    settings: Vec<(String, String)>,
}

impl Builder {
    /// The major version, 14 to 18. Without it: that of `LOCKSTEP_PG_BIN`, else `LOCKSTEP_PG_MAJOR`, else 17.
    #[must_use]
    pub fn major(mut self, major: u32) -> Builder {
        self.major = Some(major);
        self
    }

    /// Keeps the cluster in this folder, which will hold `data/`, `password` and `postgres.log`; it is made if absent.
    #[must_use]
    pub fn home(mut self, folder: impl Into<PathBuf>) -> Builder {
        self.home = Some(folder.into());
        self
    }

    /// This port on 127.0.0.1 or none. Without it a free one is chosen, for a kept cluster that of the last time.
    #[must_use]
    pub fn port(mut self, port: u16) -> Builder {
        self.port = Some(port);
        self
    }

    /// Whether commits survive a failure of the machine (`fsync`). Without it: yes if kept, no if temporary.
    /// A crash of the server alone, such as an immediate stop, loses nothing either way.
    #[must_use]
    pub fn durable(mut self, durable: bool) -> Builder {
        self.durable = Some(durable);
        self
    }

    /// Runs `initdb` for this cluster alone. Otherwise temporary clusters are copies of one template and share its
    /// system identifier; a test that tells servers apart by it needs this.
    #[must_use]
    pub fn own_initdb(mut self) -> Builder {
        self.own_initdb = true;
        self
    }

    /// Listens on a Unix socket in this folder too, which the server's user must be able to write to.
    #[must_use]
    pub fn sockets_in(mut self, folder: impl Into<PathBuf>) -> Builder {
        self.sockets = Some(folder.into());
        self
    }

    /// A setting of the server. A later one wins, also over the defaults here; [`Cluster::set`] wins over all.
    #[must_use]
    pub fn setting(mut self, key: impl Into<String>, value: impl Into<String>) -> Builder {
        self.settings.push((key.into(), value.into()));
        self
    }

    /// Starts the server and waits until it answers. When it fails nothing is left behind but a kept cluster's data.
    pub fn start(self) -> Result<Cluster> {
        let account = Account::current();
        let programs = Programs::find(self.major, account)?;
        let home = match &self.home {
            Some(folder) => Home::kept(folder, account)?,
            None => Home::temporary(account)?,
        };
        let port = match self.port.or_else(|| home.last_port().filter(|port| is_free(*port))) {
            Some(port) => port,
            None => free_port()?,
        };
        // From here on dropping the cluster cleans up.
        let mut cluster = Cluster {
            home,
            programs,
            account,
            password: String::new(),
            port,
            port_is_fixed: self.port.is_some(),
            sockets: self.sockets.clone().unwrap_or_default(),
            child: None,
        };
        self.prepare(&cluster)?;
        cluster.password =
            fs::read_to_string(cluster.home.password_file()).context("cannot read the password")?;
        cluster.launch()?;
        cluster.home.remember_port(cluster.port)?;
        Ok(cluster)
    }

    fn prepare(&self, cluster: &Cluster) -> Result<()> {
        let Cluster { home, programs, account, .. } = cluster;
        let durable = self.durable.unwrap_or(!home.is_temporary());
        if !home.data().exists() {
            if home.is_temporary() && !self.own_initdb {
                template::copy(home, programs, *account)?;
            } else {
                template::create(home, programs, *account, durable)?;
            }
        }
        let of_data =
            fs::read_to_string(home.data().join("PG_VERSION")).context("the data folder is not complete")?;
        if of_data.trim() != programs.major().to_string() {
            bail!(
                "{} holds data of PostgreSQL {}, and this is {}: ask for that version, or forget the data \
                 (`cargo x demo --fresh` forgets the demo's)",
                home.root().display(),
                of_data.trim(),
                programs.major()
            );
        }
        let mut all = defaults(durable);
        all.extend(self.settings.iter().cloned());
        settings::write(&home.data().join(settings::FILE), &settings::render(&all), *account)?;
        Ok(())
    }
}

fn defaults(durable: bool) -> Vec<(String, String)> {
    let fsync = if durable { "on" } else { "off" };
    let pairs = [
        ("wal_level", "logical"),
        ("max_wal_senders", "20"),
        ("max_replication_slots", "20"),
        ("max_connections", "100"),
        ("timezone", "UTC"),
        ("log_line_prefix", "%m [%p] "),
        ("fsync", fsync),
        // Worth something only together with fsync; both double the WAL or the time of a test otherwise.
        ("full_page_writes", fsync),
    ];
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec()
}
