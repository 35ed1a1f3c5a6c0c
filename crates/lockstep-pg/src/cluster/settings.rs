//! PostgreSQL's settings as text: the file a cluster is started with, and `postgresql.auto.conf`.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use super::account::Account;

/// Read by `postgresql.conf`, written anew on every start.
pub(super) const FILE: &str = "lockstep.conf";
/// Read last by the server, so what it says wins; `ALTER SYSTEM` writes the same file.
pub(super) const AUTO_FILE: &str = "postgresql.auto.conf";

/// One setting per line; a later one wins over an earlier one.
pub(super) fn render(settings: &[(String, String)]) -> String {
    let mut text =
        String::from("# Written when the cluster starts: edit postgresql.auto.conf or use ALTER SYSTEM.\n");
    for (key, value) in settings {
        text.push_str(&line(key, value));
    }
    text
}

fn line(key: &str, value: &str) -> String {
    format!("{key} = '{}'\n", value.replace('\\', "\\\\").replace('\'', "''"))
}

/// `text` with `key` set to `value`, other settings untouched.
pub(super) fn replaced(text: &str, key: &str, value: &str) -> String {
    let names_key = |line: &&str| line.split('=').next().is_some_and(|name| name.trim() == key);
    let mut kept: String =
        text.lines().filter(|line| !names_key(line)).map(|line| format!("{line}\n")).collect();
    kept.push_str(&line(key, value));
    kept
}

/// Replaces a file in one step, so that a server that reads it at this moment sees the old or the new text.
pub(super) fn write(path: &Path, text: &str, account: Account) -> io::Result<()> {
    let next = path.with_extension("next");
    let mut file = fs::File::create(&next)?;
    file.write_all(text.as_bytes())?;
    account.own(&next)?;
    fs::rename(&next, path)
}

#[cfg(test)]
mod tests {
    use super::{line, replaced};

    #[test]
    fn quotes_are_doubled() {
        assert_eq!(line("a.b", r"it's \ here"), "a.b = 'it''s \\\\ here'\n");
    }

    #[test]
    fn a_setting_is_replaced_and_others_stay() {
        let text = "# by hand\nwal_sender_timeout = '1s'\nwal_sender_timeout_x = '2'\n";
        let next = replaced(text, "wal_sender_timeout", "9s");
        assert_eq!(next, "# by hand\nwal_sender_timeout_x = '2'\nwal_sender_timeout = '9s'\n");
    }
}
