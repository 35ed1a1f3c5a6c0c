//! What is open at this moment: transactions that hold something up, and standbys that do not answer. Pure.

use super::DoctorOptions;
use super::facts::Server;
use super::findings::{Finding, Mend};

const HOLDS_UP: &str = "Until it ends, a node that starts with no other beside it cannot make its slot and serves by \
                        polling, and no log entry that is younger is collected; in whichever database it is.";

pub(super) fn judge(server: &Server, options: &DoctorOptions, found: &mut Vec<Finding>) {
    let long = i64::try_from(options.open_for.as_secs()).unwrap_or(i64::MAX);
    for open in server.writers.iter().filter(|open| open.seconds >= long) {
        found.push(
            Finding::warning(
                "open_transaction",
                format!(
                    "Process {} in database {} has a writing transaction open since {} ({})",
                    open.pid,
                    open.database.as_deref().unwrap_or("?"),
                    open.since,
                    open.state.as_deref().unwrap_or("state unknown")
                ),
                HOLDS_UP,
            )
            .sql(format!("select pg_terminate_backend({})", open.pid)),
        );
    }
    for prepared in server.prepared.iter().filter(|prepared| prepared.seconds >= long) {
        let mut finding = Finding::warning(
            "prepared_transaction",
            format!(
                "Transaction {:?} of database {} is prepared since {} and neither committed nor rolled back",
                prepared.gid, prepared.database, prepared.since
            ),
            HOLDS_UP,
        );
        if prepared.database != server.database {
            finding = finding.mend(Mend::Advice(format!("connect to database {}", prepared.database)));
        }
        found.push(
            finding
                .sql(format!("rollback prepared {}", prepared.literal))
                .mend(Mend::Advice("or commit prepared, if its coordinator says so".into())),
        );
    }
    standbys(server, long, found);
}

fn standbys(server: &Server, long: i64, found: &mut Vec<Finding>) {
    let waiting: Vec<_> = server.waiting_for_standby.iter().filter(|open| open.seconds >= long).collect();
    let none =
        server.sees_all && !server.synchronous_standby_names.is_empty() && server.synchronous_standbys == 0;
    if !none && waiting.is_empty() {
        return;
    }
    let mut what = if none {
        format!(
            "synchronous_standby_names is {:?} and no standby of such a name is connected",
            server.synchronous_standby_names
        )
    } else {
        "A synchronous standby does not answer".to_owned()
    };
    if let Some(first) = waiting.first() {
        what += &format!(
            "; {} commits wait for it, the first since {} (process {})",
            waiting.len(),
            first.since,
            first.pid
        );
    }
    found.push(
        Finding::error(
            "standby_silent",
            what,
            "Commits that wait for it are in the stream and visible to nobody; clients are shown them, and no acknowledgement \
             of a write is released, until it answers or is given up.",
        )
        .mend(Mend::Advice("bring the standby back, or give it up:".into()))
        .sql("alter system set synchronous_standby_names = ''")
        .sql("select pg_reload_conf()"),
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::facts::{Open, Prepared};
    use std::time::Duration;

    #[test]
    fn only_what_is_open_for_long_is_named() {
        let server = Server {
            writers: vec![
                Open { pid: 7, seconds: 59, ..Open::default() },
                Open { pid: 8, seconds: 60, ..Open::default() },
            ],
            prepared: vec![Prepared {
                gid: "a'b".into(),
                literal: "'a''b'".into(),
                seconds: 61,
                ..Prepared::default()
            }],
            ..Server::default()
        };
        let mut found = Vec::new();
        judge(
            &server,
            &DoctorOptions { open_for: Duration::from_secs(60), ..DoctorOptions::default() },
            &mut found,
        );
        let sql: Vec<_> = found.iter().flat_map(|finding| &finding.mend).collect();
        assert_eq!(sql[0], &Mend::Sql("select pg_terminate_backend(8)".into()));
        assert_eq!(sql[1], &Mend::Sql("rollback prepared 'a''b'".into()));
        assert_eq!(found.len(), 2);
    }
}
