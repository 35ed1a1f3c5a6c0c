//! What is installed, and each tracked table. Pure.

use super::facts::{Facts, Installation, Log};
use super::findings::{Finding, Mend};

/// A log that was not collected for longer grows without bound.
const COLLECTED_WITHIN: i64 = 2 * 24 * 3600;

const LOST: &str = "Changes are not logged: clients that were away never learn of them.";

pub(super) fn judge(facts: &Facts, found: &mut Vec<Finding>) {
    let server = &facts.server;
    if !server.installed {
        found.push(
            Finding::error(
                "not_installed",
                "Lockstep is not installed in this database",
                "A node has nothing to serve here.",
            )
            .command("lockstep install"),
        );
        return;
    }
    rights(facts, found);
    if let Some(installation) = &facts.installation {
        installed(installation, &facts.logs, found);
        for log in &facts.logs {
            match &log.name {
                Some(name) => table(log, name, installation, found),
                None => dropped(log, found),
            }
        }
    }
}

fn rights(facts: &Facts, found: &mut Vec<Finding>) {
    let role = &facts.server.role;
    if !facts.node_lacks.is_empty() {
        let finding = Finding::error(
            "rights",
            format!("Role {role} lacks rights that a node needs"),
            "A node under this role cannot start, cannot load a table, or cannot collect the logs.",
        );
        found.push(facts.node_lacks.iter().fold(finding, Finding::sql));
    } else if !facts.writer_lacks.is_empty() {
        let finding = Finding::warning(
            "not_a_writer",
            format!("Role {role} may not run all of clients' writes"),
            "They are refused, unless --write-url names a role that may.",
        );
        found.push(facts.writer_lacks.iter().fold(finding, Finding::sql));
    }
}

fn installed(installation: &Installation, logs: &[Log], found: &mut Vec<Finding>) {
    publications(installation, logs, found);
    if !logs.is_empty() && installation.collected_seconds.is_some_and(|seconds| seconds > COLLECTED_WITHIN) {
        found.push(
            Finding::warning(
                "not_collected",
                format!(
                    "The change logs were last collected {} h ago",
                    installation.collected_seconds.unwrap_or_default() / 3600
                ),
                "They grow with every write. A running node collects them once an hour.",
            )
            .command("lockstep gc"),
        );
    }
}

fn publications(installation: &Installation, logs: &[Log], found: &mut Vec<Finding>) {
    for name in ["lockstep_tables", "lockstep_tombstones"] {
        if !installation.publications.iter().any(|there| there == name) {
            let finding = Finding::error(
                "publication_missing",
                format!("Publication {name} is missing"),
                "The stream cannot be decoded without it.",
            );
            let names = logs.iter().filter_map(|log| log.name.as_deref());
            found.push(names.fold(finding.command("lockstep install"), |finding, name| {
                finding.command(format!("lockstep track {}", shell(name)))
            }));
        }
    }
    for name in &installation.partial {
        let kinds = if name == "lockstep_tables" { "insert, update, delete, truncate" } else { "insert" };
        found.push(
            Finding::error(
                "publication_partial",
                format!("Publication {name} leaves out kinds of changes"),
                "What it leaves out is not in the stream: nodes follow no table until it is whole.",
            )
            .sql(format!("alter publication {name} set (publish = '{kinds}')")),
        );
    }
    if !installation.by_root {
        found.push(
            Finding::error(
                "publication_by_leaf",
                "Publication lockstep_tables sends rows under the names of partitions",
                "Clients know partitioned tables only: nodes do not follow these.",
            )
            .sql("alter publication lockstep_tables set (publish_via_partition_root = true)"),
        );
    }
    if !installation.clients_published
        && installation.publications.iter().any(|there| there == "lockstep_tables")
    {
        found.push(
            Finding::error(
                "clients_unpublished",
                "Publication lockstep_tables lacks lockstep.clients, or a part of it",
                "Acknowledgements travel with that table's rows: clients' writes would stay pending for ever.",
            )
            .command("lockstep install"),
        );
    }
    if !installation.allow_foreign_publications {
        for name in &installation.foreign_publications {
            found.push(
                Finding::warning(
                    "foreign_publication",
                    format!("Publication {name} is FOR ALL TABLES"),
                    "It ships the change logs to its subscribers too, and a table without a primary key refuses UPDATE and \
                     DELETE under it.",
                )
                .mend(Mend::Advice("name its tables one by one, or say that it may be so:".into()))
                .command("lockstep install --allow-foreign-publications"),
            );
        }
    }
}

fn dropped(log: &Log, found: &mut Vec<Finding>) {
    found.push(
        Finding::warning(
            "table_gone",
            format!("Log {} is of a table that was dropped ({} bytes)", log.log, log.bytes),
            "It is of no use to anyone.",
        )
        .command("lockstep untrack DROPPED"),
    );
}

fn table(log: &Log, name: &str, installation: &Installation, found: &mut Vec<Finding>) {
    let track = format!("lockstep track {}", shell(name));
    logging(log, name, &track, found);
    streaming(log, name, &track, found);
    if log.horizon > installation.xmax {
        found.push(
            Finding::error(
                "horizon_ahead",
                format!("The log of {name} reaches back to transaction {}, which this server has not reached", log.horizon),
                "It was restored from another server. Until it is made anew every client that returns loads the whole table.",
            )
            .command(&track),
        );
    }
}

/// Whether what is written is noted.
fn logging(log: &Log, name: &str, track: &str, found: &mut Vec<Finding>) {
    if log.in_place < 5 || log.always < 5 || !log.logs {
        let what = if log.logs && log.in_place == 5 {
            format!("Triggers of {name} are not ENABLE ALWAYS")
        } else {
            format!("Triggers, or the logs, of {name} are missing")
        };
        found.push(Finding::error("triggers", what, LOST).command(track));
    } else if log.subscribed && log.triggers != "row" {
        found.push(
            Finding::error(
                "triggers_of_subscriber",
                format!("A subscription writes into {name}, which has statement triggers"),
                format!("The apply worker fires row triggers only. {LOST}"),
            )
            .command(track),
        );
    }
    if !log.partitions_without.is_empty() {
        found.push(
            Finding::warning(
                "partition_without_trigger",
                format!("Partitions of {name} lack a trigger: {}", log.partitions_without.join(", ")),
                "PostgreSQL gives a new partition the row triggers and not that for TRUNCATE: truncating it makes all clients \
                 load the table anew.",
            )
            .command(track),
        );
    }
    if log.key == Some(false) {
        found.push(
            Finding::error(
                "key",
                format!("The primary key of {name} is gone, deferrable, or another one than was tracked"),
                "Without an immediate primary key UPDATE and DELETE fail on a published table; under another one the log names \
                 rows that do not exist.",
            )
            .mend(Mend::Advice("add the primary key, if there is none, then:".into()))
            .command(track),
        );
    }
}

/// Whether what is written reaches the stream as clients need it.
fn streaming(log: &Log, name: &str, track: &str, found: &mut Vec<Finding>) {
    if !log.published || !log.tombstones_published {
        found.push(
            Finding::error(
                "unpublished",
                format!("{name} or its tombstones are in no publication of ours"),
                "Connected clients are not told of changes.",
            )
            .command(track),
        );
    } else if log.restricted {
        found.push(
            Finding::error(
                "narrowed",
                format!("Publication lockstep_tables filters the rows or columns of {name}"),
                "What it leaves out is not in the stream: nodes do not follow the table.",
            )
            .command(track),
        );
    }
    // FULL sends more than is needed, and that is all.
    let own = matches!(log.identity.as_deref(), Some("n" | "i")) && log.kind.as_deref() == Some("r");
    let own = own.then_some(name).into_iter();
    for other in own.chain(log.partitions_of_other_identity.iter().map(String::as_str)) {
        found.push(
            Finding::error(
                "replica_identity",
                format!("The replica identity of {other} is not its primary key"),
                "UPDATE and DELETE fail, or the stream does not name the row that changed.",
            )
            .sql(format!("alter table {other} replica identity default")),
        );
    }
    let own = (log.persistence.as_deref() == Some("u")).then_some(name);
    for unlogged in own.into_iter().chain(log.unlogged_partitions.iter().map(String::as_str)) {
        found.push(
            Finding::error(
                "unlogged",
                format!("{unlogged} is unlogged"),
                "Nothing of it reaches the stream, and a crash empties it.",
            )
            .sql(format!("alter table {unlogged} set logged"))
            .command(track),
        );
    }
    if log.row_security {
        found.push(
            Finding::warning(
                "row_security",
                format!("{name} has row level security"),
                "Replication ignores it: everyone who may subscribe sees all rows of a scope. Scopes must say what its policies say.",
            )
            .sql(format!("alter table {name} disable row level security")),
        );
    }
    if !log.generated.is_empty() {
        let finding = Finding::warning(
            "generated",
            format!("{name} has generated columns, which do not travel: {}", log.generated.join(", ")),
            "Clients have all other columns. Let them compute these, or make them ordinary columns that a trigger fills.",
        );
        // PostgreSQL takes the expression from stored ones only.
        found.push(log.stored.iter().fold(finding, |finding, column| {
            finding.sql(format!("alter table {name} alter column {column} drop expression"))
        }));
    }
}

/// As a shell takes it for one word.
fn shell(name: &str) -> String {
    if name.chars().all(|c| c.is_ascii_alphanumeric() || "._".contains(c)) {
        name.to_owned()
    } else {
        format!("'{}'", name.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::shell;

    #[test]
    fn names_are_one_word() {
        assert_eq!(shell("public.items"), "public.items");
        assert_eq!(shell("public.\"it's\""), r#"'public."it'\''s"'"#);
    }
}
