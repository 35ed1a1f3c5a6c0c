//! Brings what a fresh clone lacks. Each step is skipped while its inputs are those of the last time.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use lockstep_pg::cluster;

use crate::{child, console, workspace};

const NODE_MAJOR: u32 = 20;

/// Options of `cargo x setup`.
#[derive(clap::Args)]
pub struct Options {
    /// Major versions of PostgreSQL, such as `14,18`; without it those that the tests use.
    #[arg(long, value_delimiter = ',')]
    pg: Vec<u32>,
}

/// `cargo x setup`.
pub fn run(options: &Options) -> Result<ExitCode> {
    let majors = if options.pg.is_empty() { cluster::majors()? } else { options.pg.clone() };
    for major in majors {
        postgres(major)?;
    }
    if options.pg.is_empty() {
        web_packages()?;
    }
    println!("All there.");
    Ok(ExitCode::SUCCESS)
}

/// PostgreSQL's programs of one major version, unless the environment names a folder with programs.
pub fn postgres(major: u32) -> Result<()> {
    let folder = workspace::root().join("tools/postgres").join(major.to_string());
    if !folder.is_dir() {
        bail!("there is no tools/postgres/{major}: the majors 14 to 18 are known");
    }
    let result = cluster::npm_folder(&workspace::root(), major).join("native/bin/postgres");
    let inputs = [folder.join("package-lock.json")];
    unless_same(&format!("postgres-{major}"), &inputs, &result, || {
        console::step(&format!("Fetching PostgreSQL {major} (25 MB)"), || {
            npm_ci(&folder, &format!("npm-ci-postgres-{major}"))?;
            if !result.exists() {
                bail!(
                    "no build of PostgreSQL {major} for this machine: set LOCKSTEP_PG_BIN to a folder with programs"
                );
            }
            Ok(())
        })
    })
}

/// Whether the programs of this major version are where the environment or Debian puts them.
pub fn has_postgres(major: u32) -> bool {
    let named = std::env::var_os("LOCKSTEP_PG_BIN").map(PathBuf::from);
    let debian = PathBuf::from(format!("/usr/lib/postgresql/{major}/bin"));
    let version = |bin: &PathBuf| child::ask(&bin.join("postgres").to_string_lossy(), &["--version"]);
    let is_it = |text: String| text.starts_with(&format!("postgres (PostgreSQL) {major}"));
    named.into_iter().chain([debian]).any(|bin| version(&bin).is_some_and(is_it))
}

/// The npm packages of the client, the app and the browser tests.
pub fn web_packages() -> Result<()> {
    require_node()?;
    let root = workspace::root();
    let inputs = [root.join("package-lock.json")];
    unless_same("web-packages", &inputs, &root.join("node_modules/.package-lock.json"), || {
        console::step("Installing npm packages", || npm_ci(&root, "npm-ci"))
    })
}

/// The client library and the to-do app, built.
pub fn web_app() -> Result<()> {
    web_packages()?;
    let root = workspace::root();
    let mut inputs = sources("packages/client")?;
    inputs.push(root.join("package-lock.json"));
    unless_same("client", &inputs, &root.join("packages/client/dist"), || {
        console::step("Building the client library", || build("packages/client"))
    })?;
    inputs.extend(sources("apps/todo")?);
    unless_same("todo", &inputs, &root.join("apps/todo/dist/index.html"), || {
        console::step("Building the to-do app", || build("apps/todo"))
    })
}

/// The path of the binary `lockstep`, built.
pub fn server() -> Result<PathBuf> {
    console::step("Building the server (minutes the first time)", || program("lockstep-server", "lockstep"))
}

/// The path of a package's program, built.
pub fn program(package: &str, name: &str) -> Result<PathBuf> {
    let mut build = Command::new(cargo());
    build.args(["build", "--package", package, "--bin", name]);
    executable(build, "cargo-build")
}

/// The program that a `cargo build` makes.
pub fn executable(mut build: Command, log: &str) -> Result<PathBuf> {
    build.arg("--message-format=json-render-diagnostics").current_dir(workspace::root());
    let built = child::must(build, log)?;
    let message = |line: &str| serde_json::from_str::<serde_json::Value>(line).ok();
    let text = built.text();
    let mut programs =
        text.lines().filter_map(message).filter_map(|m| Some(m["executable"].as_str()?.into()));
    programs.next_back().context("cargo did not say where it put the program")
}

/// The cargo that runs us, or else the one on the path.
pub fn cargo() -> std::ffi::OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// The path of a Chromium; as root on Debian it is installed if need be.
pub fn chromium() -> Result<PathBuf> {
    if let Some(named) = std::env::var_os("CHROMIUM").filter(|named| !named.is_empty()) {
        let path = PathBuf::from(named);
        if !path.exists() {
            bail!("CHROMIUM is {}, which does not exist", path.display());
        }
        return Ok(path);
    }
    if let Some(found) = installed_chromium() {
        return Ok(found);
    }
    apt("Chromium", "chromium").context("or set CHROMIUM to its path")?;
    installed_chromium().context("apt-get installed chromium, but /usr/bin/chromium is not there")
}

/// PgBouncer, for the tests that go through a pooler.
pub fn pgbouncer() -> Result<()> {
    if Path::new("/usr/sbin/pgbouncer").exists() { Ok(()) } else { apt("PgBouncer", "pgbouncer") }
}

/// nginx, for the tests behind a proxy. Debian starts it when it is installed; that is the machine's business.
pub fn nginx() -> Result<()> {
    let named = std::env::var_os("NGINX").map_or_else(|| PathBuf::from("/usr/sbin/nginx"), PathBuf::from);
    if named.exists() { Ok(()) } else { apt("nginx", "nginx") }
}

/// `pg_dump` and `psql` of 15, for the tests that leave and come back.
pub fn pg_dump() -> Result<()> {
    let there = Path::new("/usr/lib/postgresql/15/bin/pg_dump").exists();
    if there { Ok(()) } else { apt("pg_dump", "postgresql-client-15") }
}

/// Installs a package of Debian's, which only root may.
fn apt(what: &str, package: &str) -> Result<()> {
    let command = format!("apt-get install -y {package}");
    if !nix::unistd::geteuid().is_root() || !Path::new("/usr/bin/apt-get").exists() {
        bail!("{what} is not here: `sudo {command}` brings it");
    }
    console::step(&format!("Installing {what} (`{command}`)"), || {
        for arguments in [&["update"][..], &["install", "-y", "--no-install-recommends", package]] {
            let mut apt = Command::new("apt-get");
            apt.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
            child::must(apt, "apt-get")?;
        }
        Ok(())
    })
}

fn installed_chromium() -> Option<PathBuf> {
    let path = PathBuf::from("/usr/bin/chromium");
    path.exists().then_some(path)
}

fn require_node() -> Result<()> {
    let version = child::ask("node", &["--version"]).unwrap_or_default();
    let major =
        version.trim_start_matches('v').split('.').next().and_then(|digits| digits.parse::<u32>().ok());
    match major {
        Some(major) if major >= NODE_MAJOR => Ok(()),
        Some(_) => {
            bail!("Node {NODE_MAJOR} or newer is needed, and `node` is {version}: see https://nodejs.org")
        }
        None => bail!("Node {NODE_MAJOR} or newer is needed, with npm: see https://nodejs.org"),
    }
}

/// Installs what the lock file says. Scripts of packages are not run: none of ours needs one.
fn npm_ci(folder: &Path, log: &str) -> Result<()> {
    let mut npm = Command::new("npm");
    npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(folder);
    child::must(npm, log).map(drop)
}

fn build(package: &str) -> Result<()> {
    let mut npm = Command::new("npm");
    npm.args(["run", "build", "--workspace", package]).current_dir(workspace::root());
    child::must(npm, &format!("build-{}", package.replace('/', "-"))).map(drop)
}

/// The files of one folder of the clone, build results left out.
fn sources(folder: &str) -> Result<Vec<PathBuf>> {
    let root = workspace::root();
    let found = workspace::files()?.into_iter().filter(|file| file.starts_with(folder));
    let files: Vec<PathBuf> = found.map(|file| root.join(file)).collect();
    if files.is_empty() {
        bail!("this clone has no {folder}");
    }
    Ok(files)
}

/// Does the work unless `result` exists and was made from the same contents of `inputs`.
fn unless_same(
    name: &str,
    inputs: &[PathBuf],
    result: &Path,
    work: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let folder = workspace::state()?.join("stamps");
    fs::create_dir_all(&folder)?;
    let stamp = folder.join(name);
    let now = fingerprint(inputs)?;
    if result.exists() && fs::read_to_string(&stamp).is_ok_and(|then| then == now) {
        return Ok(());
    }
    work()?;
    workspace::write_atomically(&stamp, &now)
}

/// FNV-1a over names and contents. It guards against stale builds, not against malice.
fn fingerprint(inputs: &[PathBuf]) -> Result<String> {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for path in inputs {
        let contents = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        for byte in path.as_os_str().as_encoded_bytes().iter().chain(&[0]).chain(&contents) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    Ok(format!("{hash:016x}"))
}
