//! The SQL that tracks and untracks a table, rendered from the templates in `sql/`.
//!
//! What runs and what `--print` shows is one text. Names come from [`Table`], quoted by PostgreSQL; no name of the
//! application ever stands inside a function's quoted body or a comment.

use std::fmt::Write as _;

use super::table::{Column, Table, TriggerKind};

/// What a table's log is to look like.
pub(super) struct Design {
    /// The number in the names `changes_N`, `tombstones_N`.
    pub number: i32,
    /// One entry per scope; none: public.
    pub scopes: Vec<Vec<i16>>,
}

impl Design {
    /// The columns `s1…sn`: the distinct union of all scopes, in order of first appearance.
    pub fn scope_attnums(&self) -> Vec<i16> {
        let mut union: Vec<i16> = Vec::new();
        for attnum in self.scopes.iter().flatten() {
            if !union.contains(attnum) {
                union.push(*attnum);
            }
        }
        union
    }
}

/// Replaces each `{name}` of a template in one pass, so that a value is never searched for placeholders.
fn fill(template: &str, values: &[(&str, &str)]) -> String {
    let mut out = String::with_capacity(template.len() * 2);
    let mut rest = template;
    while let Some(start) = rest.find('{') {
        let (before, from) = rest.split_at(start);
        out.push_str(before);
        let known = values.iter().find_map(|(name, value)| {
            from[1..].strip_prefix(name).and_then(|tail| tail.strip_prefix('}')).map(|tail| (*value, tail))
        });
        match known {
            Some((value, tail)) => {
                out.push_str(value);
                rest = tail;
            }
            None => {
                out.push('{');
                rest = &from[1..];
            }
        }
    }
    out + rest
}

/// The statements that make `table` tracked as `design` says; they also rebuild and repair.
pub(super) fn track(table: &Table, design: &Design) -> String {
    let scope_attnums = design.scope_attnums();
    let scope: Vec<&Column> = table.columns_of(&scope_attnums).collect();
    let key: Vec<&Column> = table.columns_of(&table.key_attnums).collect();
    let number = design.number.to_string();
    let named = || {
        let scopes = scope.iter().enumerate().map(|(i, column)| (format!("s{}", i + 1), *column));
        scopes.chain(key.iter().enumerate().map(|(i, column)| (format!("k{}", i + 1), *column)))
    };
    let join = |each: &dyn Fn((String, &Column)) -> String| named().map(each).collect::<Vec<_>>().join(", ");
    let lines = |not_null: &str| {
        named().fold(String::new(), |mut out, (name, column)| {
            let null = if name.starts_with('k') { not_null } else { "" };
            _ = writeln!(out, "  {name} {}{}{null},", column.sql_type, column.collation);
            out
        })
    };
    let (functions, triggers) = templates(table);
    let moved = moved(scope.iter().chain(&key));
    let mut triggers = fill(&triggers, &[("n", &number), ("table", &table.quoted), ("moved", &moved)]);
    for leaf in &table.leaves {
        triggers +=
            &fill(include_str!("../../sql/trigger_partition.sql"), &[("n", &number), ("table", leaf)]);
    }
    let names = [
        ("n", number.clone()),
        ("names", join(&|(name, _)| name)),
        ("k_names", join(&|(name, _)| format!("k.{name}"))),
    ];
    let names = names.each_ref().map(|(name, value)| (*name, value.as_str()));
    fill(
        include_str!("../../sql/track.sql"),
        &[
            ("n", &number),
            ("table", &table.quoted),
            ("functions", &fill(&functions, &names)),
            ("triggers", &triggers),
            ("drop_old", &drop_old(table, design.number)),
            ("changes_columns", &lines(" not null")),
            ("tombstones_columns", &lines("")),
            ("indexes", &indexes(design, &scope_attnums)),
            ("returns", &join(&|(name, column)| format!("{name} {}", column.sql_type))),
            ("select", &join(&|(_, column)| format!("r.{}", column.quoted))),
            ("publish", &publish(table, design.number)),
            ("record", &record(table, design, &scope_attnums)),
        ],
    )
}

/// What the triggers run, and the triggers.
fn templates(table: &Table) -> (String, String) {
    let (functions, triggers) = match table.triggers() {
        TriggerKind::Statement => (
            include_str!("../../sql/functions_statement.sql"),
            include_str!("../../sql/triggers_statement.sql"),
        ),
        TriggerKind::Row => {
            (include_str!("../../sql/functions_row.sql"), include_str!("../../sql/triggers_row.sql"))
        }
    };
    (
        functions.to_owned() + include_str!("../../sql/functions.sql"),
        triggers.to_owned() + include_str!("../../sql/triggers.sql"),
    )
}

/// A row leaves its key or one of its scopes. Types are such that distinct values have distinct texts.
fn moved<'a>(columns: impl Iterator<Item = &'a &'a Column>) -> String {
    let mut parts: Vec<String> = Vec::new();
    for Column { quoted, sql_type, .. } in columns {
        // As its base type: before 15 a domain over an enum has no operator. A cast to the same type is none.
        let part = format!("old.{quoted}::{sql_type} is distinct from new.{quoted}::{sql_type}");
        if !parts.contains(&part) {
            parts.push(part);
        }
    }
    parts.join(" or ")
}

fn drop_old(table: &Table, number: i32) -> String {
    if table.log.is_none() {
        return String::new();
    }
    format!(
        "\n-- The logs are built anew; the horizon below tells that they reach back no further than this transaction.\n\
         drop function if exists lockstep.key_{number};\n\
         drop table if exists lockstep.changes_{number}, lockstep.tombstones_{number};\n\
         drop sequence if exists lockstep.entry_{number};\n"
    )
}

/// Catch-up asks for one scope and a range of transaction ids: an index for each scope, on both logs.
fn indexes(design: &Design, union: &[i16]) -> String {
    let place = |attnum: &i16| union.iter().position(|other| other == attnum).map_or(0, |at| at + 1);
    let lists: Vec<String> = if design.scopes.is_empty() {
        vec!["xid".to_owned()]
    } else {
        let list =
            |scope: &Vec<i16>| scope.iter().map(|a| format!("s{}, ", place(a))).collect::<String>() + "xid";
        design.scopes.iter().map(list).collect()
    };
    lists.iter().fold(String::new(), |mut out, list| {
        _ = writeln!(out, "create index on lockstep.changes_{} ({list});", design.number);
        _ = writeln!(out, "create index on lockstep.tombstones_{} ({list});", design.number);
        out
    })
}

fn publish(table: &Table, number: i32) -> String {
    let tombstones =
        format!("alter publication lockstep_tombstones add table lockstep.tombstones_{number};\n");
    let add = format!("alter publication lockstep_tables add table only {};\n{tombstones}", table.quoted);
    match (table.published, table.restricted) {
        (false, _) => add,
        (true, false) => tombstones,
        (true, true) => format!("alter publication lockstep_tables drop table only {};\n{add}", table.quoted),
    }
}

fn record(table: &Table, design: &Design, scope_attnums: &[i16]) -> String {
    let number = design.number;
    let (key, scope) = (array(&table.key_attnums), array(scope_attnums));
    let mut out = String::from("\n-- Nothing before this transaction is in the logs.\n");
    let triggers = table.triggers();
    let horizon = "pg_current_xact_id()::text::bigint + 1";
    if table.log.is_some() {
        _ = writeln!(
            out,
            "update lockstep.tracked set key_attnums = {key}, scope_attnums = {scope}, horizon = {horizon},\n  \
             generation = {horizon}, compacted = 0, triggers = '{triggers}', tracked_at = now()\nwhere log = {number};\ndelete from lockstep.scopes where log = {number};"
        );
    } else {
        _ = writeln!(
            out,
            "insert into lockstep.tracked (log, relation, key_attnums, scope_attnums, horizon, generation, triggers) \
             overriding system value\nvalues ({number}, {}::regclass, {key}, {scope}, {horizon}, {horizon}, '{triggers}');\n\
             select setval(pg_get_serial_sequence('lockstep.tracked', 'log'), {number});",
            table.literal
        );
    }
    for (place, scope) in design.scopes.iter().enumerate() {
        _ = writeln!(
            out,
            "insert into lockstep.scopes (log, scope, attnums) values ({number}, {}, {});",
            place + 1,
            array(scope)
        );
    }
    out
}

fn array(attnums: &[i16]) -> String {
    let list: Vec<String> = attnums.iter().map(i16::to_string).collect();
    format!("'{{{}}}'", list.join(","))
}

/// The statements that let nodes read and collect logs; their roles quoted.
pub(super) fn grants(logs: &[i32], nodes: &[String]) -> String {
    let mut out = String::new();
    for role in nodes {
        for n in logs {
            _ = writeln!(
                out,
                "grant select, delete on lockstep.changes_{n}, lockstep.tombstones_{n} to {role};"
            );
        }
    }
    out
}

/// The statements that take our triggers off a table and the table out of the publication, and drop its log.
pub(super) fn untrack(table: &Table) -> String {
    let drop_triggers = table.our_triggers.iter().fold(String::new(), |mut out, trigger| {
        _ = writeln!(out, "drop trigger {trigger} on {};", table.quoted);
        out
    });
    let drop_triggers = table.leaf_triggers.iter().fold(drop_triggers, |mut out, leaf| {
        _ = writeln!(out, "drop trigger lockstep_truncate on {leaf};");
        out
    });
    let unpublish = if table.published {
        format!("alter publication lockstep_tables drop table only {};\n", table.quoted)
    } else {
        String::new()
    };
    let values = [
        ("table", table.quoted.as_str()),
        ("drop_triggers", drop_triggers.as_str()),
        ("unpublish", unpublish.as_str()),
    ];
    let mut out = fill(include_str!("../../sql/untrack.sql"), &values);
    if let Some(log) = &table.log {
        out.push_str(&drop_log(log.number));
    }
    out
}

/// The statements that drop a log, whose table may be gone.
pub(super) fn drop_log(number: i32) -> String {
    fill(include_str!("../../sql/untrack_log.sql"), &[("n", &number.to_string())])
}

/// A body as a script for psql: the transaction and the settings that the commands use themselves.
pub(super) fn transaction(body: &str) -> String {
    format!(
        "begin;\n-- Writers of the table queue up behind a lock that we wait for: give up soon, and run this again.\n\
         set local lock_timeout = '500ms';\nset local search_path = pg_catalog, pg_temp;\n\n{body}\ncommit;\n"
    )
}

#[cfg(test)]
mod tests {
    use super::fill;

    #[test]
    fn values_are_not_searched_for_placeholders() {
        assert_eq!(fill("a {x} {y} {z} '{1}'", &[("x", "{y}"), ("y", "2")]), "a {y} 2 {z} '{1}'");
    }
}
