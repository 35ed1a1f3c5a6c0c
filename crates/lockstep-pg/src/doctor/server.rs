//! The server's version and settings, and what the role may do. Pure.

use super::DoctorOptions;
use super::facts::Server;
use super::findings::{Finding, Mend};

/// The oldest minor of each major that never starts a slot in the middle of running transactions (fixed in August 2024).
const MINORS: [(i64, i64); 3] = [(14, 13), (15, 8), (16, 4)];

/// How many nodes there is room for, those that run now included.
pub(super) fn capacity(server: &Server) -> i64 {
    let senders = server.max_wal_senders - (server.senders - server.node_senders);
    let slots = server.max_replication_slots - (server.slots - server.node_senders);
    senders.min(slots)
}

pub(super) fn judge(server: &Server, options: &DoctorOptions, found: &mut Vec<Finding>) {
    if server.standby {
        found.push(
            Finding::error(
                "standby",
                "This server is a standby",
                "Fences are read and changes are written on the primary; a node does not start here.",
            )
            .mend(Mend::Advice("name the primary in the database URL".into())),
        );
        return;
    }
    version(server, found);
    settings(server, options, found);
    role(server, found);
}

fn version(server: &Server, found: &mut Vec<Finding>) {
    let (major, minor) = (server.version_num / 10_000, server.version_num % 10_000);
    if major < 14 {
        found.push(
            Finding::error(
                "version_old",
                format!("This server is PostgreSQL {}", server.version),
                "Functions with parsed bodies and what the replication stream must say exist since 14.",
            )
            .mend(Mend::Advice("upgrade to 14 or newer".into())),
        );
    } else if let Some((_, needed)) = MINORS.iter().find(|(m, needed)| *m == major && minor < *needed) {
        found.push(
            Finding::error(
                "minor_old",
                format!("This server is PostgreSQL {}", server.version),
                "Before this minor version a new slot could begin in the middle of running transactions, and decode them \
                 in part: clients would miss rows.",
            )
            .mend(Mend::Advice(format!("update to {major}.{needed} or newer"))),
        );
    }
}

fn settings(server: &Server, options: &DoctorOptions, found: &mut Vec<Finding>) {
    if server.wal_level != "logical" {
        found.push(
            Finding::error(
                "wal_level",
                format!("wal_level is {}", server.wal_level),
                "The replication stream can be decoded from logical WAL only. Until then clients are served by polling.",
            )
            .sql("alter system set wal_level = 'logical'")
            .mend(Mend::Restart),
        );
    }
    let room = capacity(server);
    let nodes = i64::from(options.nodes).max(server.nodes);
    if room >= 2 * nodes {
        return;
    }
    let why = "Each node takes one sender and one slot. While a new set of nodes takes over from an old one, both sets \
               stream; a node that finds no room serves by polling.";
    let what = format!(
        "There is room for {} nodes (max_wal_senders {}, max_replication_slots {}, of which others use {} and {}), and \
         {nodes} are to run: replacing them takes room for {}",
        room.max(0),
        server.max_wal_senders,
        server.max_replication_slots,
        server.senders - server.node_senders,
        server.slots - server.node_senders,
        2 * nodes
    );
    let mut finding =
        if room < nodes { Finding::error("room", what, why) } else { Finding::warning("room", what, why) };
    let others = [
        ("max_wal_senders", server.max_wal_senders, server.senders - server.node_senders),
        ("max_replication_slots", server.max_replication_slots, server.slots - server.node_senders),
    ];
    for (name, now, used) in others {
        if now - used < 2 * nodes {
            finding = finding.sql(format!("alter system set {name} = {}", used + 2 * nodes));
        }
    }
    found.push(finding.mend(Mend::Restart));
}

fn role(server: &Server, found: &mut Vec<Finding>) {
    let role = &server.role;
    if !server.replication {
        found.push(
            Finding::warning(
                "no_replication",
                format!("Role {role} lacks REPLICATION"),
                "A node under this role serves by polling: right, but slower and dearer. Hosted databases have a role of \
                 their own to grant instead (docs/install.md).",
            )
            .sql(format!("alter role {} replication", server.quoted_role)),
        );
    }
    if !server.sees_all {
        found.push(
            Finding::warning(
                "limited_view",
                format!("Role {role} does not see since when others' transactions are open, nor what they wait for"),
                "Nothing can be said here about open transactions and standbys that do not answer.",
            )
            .sql(format!("grant pg_read_all_stats to {}", server.quoted_role)),
        );
    }
    for slot in &server.invalid_slots {
        found.push(
            Finding::warning(
                "invalid_slot",
                format!("Slot {} is invalid ({})", slot.name, slot.reason),
                "Nothing can be read from it any more, and it takes up one of max_replication_slots. Whoever used it has \
                 to start anew.",
            )
            .sql(format!("select pg_drop_replication_slot({})", slot.literal)),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    fn server() -> Server {
        Server {
            version_num: 150_008,
            wal_level: "logical".into(),
            max_wal_senders: 10,
            max_replication_slots: 10,
            superuser: true,
            replication: true,
            sees_all: true,
            ..Server::default()
        }
    }

    fn codes(server: &Server, nodes: u32) -> Vec<(&'static str, Level)> {
        let mut found = Vec::new();
        judge(server, &DoctorOptions { nodes, ..DoctorOptions::default() }, &mut found);
        found.into_iter().map(|finding| (finding.code, finding.level)).collect()
    }

    #[test]
    fn minors_that_decode_in_part_are_named() {
        for (number, code) in [
            (130_022, Some("version_old")),
            (140_012, Some("minor_old")),
            (140_013, None),
            (150_007, Some("minor_old")),
            (150_008, None),
            (160_003, Some("minor_old")),
            (160_004, None),
            (170_000, None),
            (180_000, None),
        ] {
            let found = codes(&Server { version_num: number, ..server() }, 1);
            assert_eq!(found.first().map(|(code, _)| *code), code, "{number}");
        }
    }

    #[test]
    fn twice_the_nodes_must_find_room() {
        assert_eq!(codes(&server(), 5), []);
        assert_eq!(codes(&server(), 6), [("room", Level::Warning)]);
        assert_eq!(codes(&server(), 11), [("room", Level::Error)]);
        // Eight of the slots are others'.
        let busy = Server { slots: 9, senders: 1, nodes: 1, node_senders: 1, ..server() };
        assert_eq!(codes(&busy, 1), []);
        assert_eq!(codes(&busy, 2), [("room", Level::Warning)]);
        // Those that run are to be replaced, whatever is said.
        let running = Server { slots: 6, senders: 6, nodes: 6, node_senders: 6, ..server() };
        assert_eq!(codes(&running, 1), [("room", Level::Warning)]);
    }

    #[test]
    fn on_a_standby_only_that_is_said() {
        assert_eq!(
            codes(&Server { standby: true, wal_level: "replica".into(), ..server() }, 1),
            [("standby", Level::Error)]
        );
    }
}
