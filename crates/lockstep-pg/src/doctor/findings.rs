//! Findings: what, why it matters, and what mends it. Pure.

use super::facts::Facts;
use super::{DoctorOptions, activity, replication, server, tables};
use serde::Serialize;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Something does not work, or will lose changes: to be mended.
    Error,
    /// It works, and this is good to know.
    Warning,
}

/// One step of a mend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mend {
    /// A statement to run in this database, without its semicolon.
    Sql(String),
    /// The server has to be restarted afterwards.
    Restart,
    /// A command to run.
    Command(String),
    /// What no statement can do.
    Advice(String),
}

/// Something found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// A short name that stays the same when the sentences change.
    pub code: &'static str,
    /// How bad it is.
    pub level: Level,
    /// What is so.
    pub what: String,
    /// Why it matters.
    pub why: String,
    /// What mends it; of several, all are needed, in this order.
    pub mend: Vec<Mend>,
}

impl Finding {
    /// To be mended.
    pub(super) fn error(code: &'static str, what: impl Into<String>, why: impl Into<String>) -> Self {
        Self { code, level: Level::Error, what: what.into(), why: why.into(), mend: Vec::new() }
    }

    /// Good to know.
    pub(super) fn warning(code: &'static str, what: impl Into<String>, why: impl Into<String>) -> Self {
        Self { level: Level::Warning, ..Self::error(code, what, why) }
    }

    pub(super) fn mend(mut self, mend: Mend) -> Self {
        self.mend.push(mend);
        self
    }

    pub(super) fn sql(self, sql: impl Into<String>) -> Self {
        self.mend(Mend::Sql(sql.into()))
    }

    pub(super) fn command(self, command: impl Into<String>) -> Self {
        self.mend(Mend::Command(command.into()))
    }
}

/// Everything that is to be said about these facts, errors first.
pub(super) fn judge(facts: &Facts, options: &DoctorOptions) -> Vec<Finding> {
    let mut found = Vec::new();
    server::judge(&facts.server, options, &mut found);
    // On a standby every other answer would be about the wrong server.
    if !facts.server.standby {
        replication::judge(&facts.replication, &mut found);
        tables::judge(facts, &mut found);
        activity::judge(&facts.server, options, &mut found);
    }
    found.sort_by_key(|finding| finding.level);
    found
}
