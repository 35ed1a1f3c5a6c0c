//! What `initdb` makes: for a kept cluster its own, for temporary ones a copy of one that is made once per version.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::account::Account;
use super::home::Home;
use super::programs::Programs;
use super::{USER, place, settings};

/// Part of a template's name: raise it when [`initialize`] does something else than before.
const FORMAT: u32 = 2;

/// Fills `home` by its own run of `initdb`.
pub(super) fn create(home: &Home, programs: &Programs, account: Account, durable: bool) -> Result<()> {
    // Its name until it is complete, so that a killed run leaves nothing that looks like a cluster.
    let unfinished = home.root().join("data.unfinished");
    place::remove(&unfinished)?;
    let password = home.password_file();
    if password.exists() {
        fs::remove_file(&password)?;
    }
    initialize(&unfinished, &password, programs, account, durable)?;
    fs::rename(&unfinished, home.data()).context("cannot name the new data folder")
}

/// Fills `home` by copying. All copies share the template's password and its system identifier.
pub(super) fn copy(home: &Home, programs: &Programs, account: Account) -> Result<()> {
    let template = ensure(programs, account)?;
    copy_owned(&template.join("data"), &home.data(), account)
        .context("cannot copy the prepared data folder")?;
    let password = home.password_file();
    fs::copy(template.join("password"), &password).context("cannot copy the password file")?;
    account.own(&password)?;
    Ok(())
}

/// The template of this version, made if it is not there yet. Processes that start at once wait for the first.
fn ensure(programs: &Programs, account: Account) -> Result<PathBuf> {
    let base = place::temporary_folder(account)?;
    let template = base.join(format!("template-{}-{FORMAT}", programs.fingerprint()));
    if template.join("data").exists() {
        return Ok(template);
    }
    let _lock = place::lock(&base.join("template.lock"))?;
    if !template.join("data").exists() {
        let unfinished = base.join("template.unfinished");
        place::remove(&unfinished)?;
        place::remove(&template)?;
        fs::create_dir(&unfinished)?;
        account.own(&unfinished)?;
        initialize(&unfinished.join("data"), &unfinished.join("password"), programs, account, false)?;
        fs::rename(&unfinished, &template)?;
    }
    Ok(template)
}

fn initialize(
    data: &Path,
    password: &Path,
    programs: &Programs,
    account: Account,
    durable: bool,
) -> Result<()> {
    write_password(password, account)?;
    let folder = data.parent().context("a data folder needs a parent")?;
    let mut initdb = clean_command(&programs.bin.join("initdb"), folder);
    initdb.arg("--pgdata").arg(data).arg("--pwfile").arg(password);
    initdb.args([
        "--username",
        USER,
        "--auth=scram-sha-256",
        "--encoding=UTF8",
        "--locale=C",
        "--no-instructions",
    ]);
    if !durable {
        initdb.arg("--no-sync");
    }
    account.apply(&mut initdb);
    let output =
        initdb.output().with_context(|| format!("cannot run {}", programs.bin.join("initdb").display()))?;
    if !output.status.success() {
        place::remove(data)?;
        let said = [output.stdout, output.stderr].concat();
        bail!(
            "initdb of PostgreSQL {} failed ({}):\n{}",
            programs.version,
            output.status,
            String::from_utf8_lossy(&said)
        );
    }
    let mut config = fs::File::options().append(true).open(data.join("postgresql.conf"))?;
    writeln!(config, "\ninclude_if_exists = '{}'", settings::FILE)?;
    Ok(())
}

fn write_password(path: &Path, account: Account) -> Result<()> {
    let mut file = fs::File::options().write(true).create_new(true).mode(0o600).open(path)?;
    write!(file, "{:032x}", rand::random::<u128>())?;
    account.own(path).with_context(|| format!("cannot give {} to the server's user", path.display()))
}

/// A program of PostgreSQL, free of what the caller's environment would make it do otherwise.
pub(super) fn clean_command(program: &Path, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(folder).stdin(Stdio::null()).env_clear();
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    // Messages are matched by text; the time zone saves initdb the search for the machine's.
    command.env("LC_ALL", "C").env("TZ", "UTC");
    command
}

fn copy_owned(from: &Path, to: &Path, account: Account) -> std::io::Result<()> {
    fs::create_dir(to)?;
    fs::set_permissions(to, fs::metadata(from)?.permissions())?;
    account.own(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_owned(&entry.path(), &target, account)?;
        } else {
            fs::copy(entry.path(), &target)?;
            account.own(&target)?;
        }
    }
    Ok(())
}
