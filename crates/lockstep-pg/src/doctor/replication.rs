//! Whether a replication connection can be had, and whether it leads to the server itself.

use super::facts::Replication;
use super::findings::{Finding, Mend};
use crate::connect;
use crate::error::PgError;
use crate::lease::within;
use crate::target::Target;
use std::time::Duration;

/// Opens a replication connection and asks who is at its other end.
pub(super) async fn ask(target: &Target, system: &str, answer: Duration) -> Replication {
    let asked = async {
        let mut wire = connect::replication(target, answer).await?;
        let said = wire.backend_pid().map(|pid| pid.to_string());
        let sql = "select pg_catalog.pg_backend_pid(), system_identifier from pg_catalog.pg_control_system()";
        let rows = within(answer, wire.query(sql)).await;
        wire.terminate().await;
        Ok::<_, PgError>((said, rows?))
    };
    match asked.await {
        Ok((said, rows)) => {
            let mut row = rows.into_iter().next().unwrap_or_default().into_iter().flatten();
            let (pid, theirs) = (row.next(), row.next().unwrap_or_default());
            if said.is_some() && said != pid {
                Replication::Pooler("the process that it names is not the one that answers".into())
            } else if theirs != system {
                Replication::ElsewhereThan { system: theirs.parse().unwrap_or_default() }
            } else {
                Replication::Works
            }
        }
        Err(error @ PgError::Pooler) => Replication::Pooler(error.to_string()),
        Err(error @ PgError::Server { .. }) => refused(&error),
        Err(error) => Replication::Unreachable(error.to_string()),
    }
}

/// PgBouncer before 1.23 knows no replication connections, and says so with a code that PostgreSQL has no use for here.
fn refused(error: &PgError) -> Replication {
    let code = error.sqlstate().unwrap_or_default().to_owned();
    let said = error.to_string();
    if code == "08P01" || said.contains("unsupported startup parameter") {
        Replication::Pooler(said)
    } else {
        let advice = error.advice().map(|advice| format!("; {advice}")).unwrap_or_default();
        Replication::Refused(code, format!("{said}{advice}"))
    }
}

pub(super) fn judge(replication: &Replication, found: &mut Vec<Finding>) {
    let polling =
        "Without a stream, nodes serve by asking the database again and again: right, but slower and dearer.";
    let direct = "name the server's own host and port in the replication URL (hosted databases call it the direct or \
                  session connection), and let only queries go through the pooler";
    match replication {
        Replication::NotTried | Replication::Works => {}
        Replication::Pooler(said) => found.push(
            Finding::error("pooler", format!("A pooler answers replication connections: {said}"), polling)
                .mend(Mend::Advice(direct.into())),
        ),
        Replication::ElsewhereThan { system } => found.push(
            Finding::error(
                "another_server",
                format!("Replication leads to another server (system identifier {system}) than queries"),
                "A stream of one server and the tables of another never agree; the node refuses to start.",
            )
            .mend(Mend::Advice("name the same server in both URLs".into())),
        ),
        // The role's lack of REPLICATION is told by `server`, with the SQL that mends it.
        Replication::Refused(code, said)
            if code == "42501" || code == "28000" && said.contains("REPLICATION") => {}
        Replication::Refused(_, said) => {
            found.push(Finding::error(
                "replication_refused",
                format!("No replication connection can be had: {said}"),
                polling,
            ));
        }
        Replication::Unreachable(why) => found.push(
            Finding::error(
                "replication_unreachable",
                format!("No replication connection can be had: {why}"),
                polling,
            )
            .mend(Mend::Advice(
                "check host, port and pg_hba.conf; replication needs no line of its own there".into(),
            )),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_pooler_says_is_told_from_what_the_server_says() {
        let error =
            |code: &str, message: &str| PgError::Server { code: code.into(), message: message.into() };
        let pooler = refused(&error("08P01", "unsupported startup parameter: replication"));
        assert!(matches!(pooler, Replication::Pooler(_)), "{pooler:?}");
        let full =
            refused(&error("53300", "number of requested standby connections exceeds max_wal_senders"));
        assert!(
            matches!(&full, Replication::Refused(code, said) if code == "53300" && said.contains("raise")),
            "{full:?}"
        );
    }
}
