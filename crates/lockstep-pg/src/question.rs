//! What a catch-up asks of the logs and tables: one question for all shapes that differ in their scopes' values only.
//!
//! ```text
//!  (0, list 7, since P) (1, list 9, since Q) … ──► one join with the log ──► rows by their number
//! ```

use crate::catalog::{literal, qualified, quote};
use crate::error::PgError;
use crate::size::Size;
use lockstep_core::catalog::Table;
use lockstep_core::fanout::hub::{ReadFrom, ReadRequest};
use lockstep_core::position::{Facts, ResetReason, Snapshot, Xid};
use lockstep_core::shape::Shape;
use std::collections::BTreeMap;

/// What a catch-up must know of a log.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Log {
    pub(crate) horizon: Xid,
    pub(crate) partitioned: bool,
}

/// A question, and what its rows are: the number of the read that each belongs to, in ascending order, and then
/// the shape's columns, or for changes whether the key has a row in the shape, the key, and the columns.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) sql: String,
    /// All rows, not changes.
    pub(crate) whole: bool,
    /// Where its rows are.
    log: Log,
    /// Places in the request, ascending, and why it is loaded in full.
    pub(crate) reads: Vec<(usize, Option<ResetReason>)>,
}

/// What shapes have in common that one question answers.
type Alike = (bool, i32, Vec<usize>, Vec<usize>, Option<String>);

/// By log: the question for transactions that truncated, since the oldest state that is caught up from.
pub(crate) fn truncations_of(
    reads: &[ReadRequest],
    facts: &Facts,
    logs: &BTreeMap<i32, Log>,
) -> BTreeMap<i32, String> {
    let mut oldest: BTreeMap<i32, Xid> = BTreeMap::new();
    for read in reads {
        let log = read.shape.table.log;
        let (ReadFrom::Since(head), Some(known)) = (&read.from, logs.get(&log)) else { continue };
        if facts.accept(head, known.horizon).is_ok() {
            let unseen = least_unseen(&head.snapshot);
            oldest.entry(log).and_modify(|xid| *xid = unseen.min(*xid)).or_insert(unseen);
        }
    }
    let sql = |(log, xid)| {
        (
            log,
            format!(
                "select xid::text from lockstep.tombstones_{log} where kind in ('t', 'p') and xid >= {xid}"
            ),
        )
    };
    oldest.into_iter().map(sql).collect()
}

fn least_unseen(snapshot: &Snapshot) -> Xid {
    snapshot.xip().iter().copied().min().map_or(snapshot.xmax(), |xid| xid.min(snapshot.xmax()))
}

/// The questions for all reads.
pub(crate) fn questions(
    reads: &[ReadRequest],
    facts: &Facts,
    logs: &BTreeMap<i32, Log>,
    truncations: &BTreeMap<i32, Vec<Xid>>,
) -> Result<Vec<Question>, PgError> {
    let mut alike: BTreeMap<Alike, Vec<(usize, Option<ResetReason>)>> = BTreeMap::new();
    for (at, read) in reads.iter().enumerate() {
        let shape = &read.shape;
        let log = logs.get(&shape.table.log).ok_or(PgError::SchemaChanged)?;
        let truncated = |head: &Snapshot| {
            truncations.get(&shape.table.log).is_some_and(|xids| xids.iter().any(|xid| !head.sees(*xid)))
        };
        let reset = match &read.from {
            ReadFrom::Scratch(reason) => Some(*reason),
            ReadFrom::Since(head) => match facts.accept(head, log.horizon) {
                Err(reason) => Some(reason),
                Ok(()) if truncated(&head.snapshot) => Some(ResetReason::Truncated),
                Ok(()) => None,
            },
        };
        let scope = shape.scope().iter().map(|(column, _)| *column).collect();
        let predicate = shape.predicate.as_ref().map(|p| p.sql().to_owned());
        let key = (reset.is_some(), shape.table.log, shape.columns.clone(), scope, predicate);
        alike.entry(key).or_default().push((at, reset));
    }
    let question = |((whole, log, ..), places): (Alike, Vec<(usize, Option<ResetReason>)>)| {
        let of: Vec<_> = places.iter().map(|(at, _)| (*at, &reads[*at])).collect();
        let log = logs.get(&log).copied().ok_or(PgError::SchemaChanged)?;
        let sql = if whole { all_rows(&of, log) } else { changed_rows(&of, log) };
        Ok(Question { sql, whole, log, reads: places })
    };
    alike.into_iter().map(question).collect()
}

impl Question {
    /// How large one of its reads is, by itself: what several have together says little of each. Of changes nobody knows:
    /// the newest entries of a log are those that its statistics lack.
    pub(crate) fn size_of(&self, at: usize, read: &ReadRequest, so_far: u64) -> Option<Size> {
        let shape = &read.shape;
        self.whole.then(|| Size {
            sql: all_rows(&[(at, read)], self.log),
            table: qualified(&shape.table),
            narrowed: !shape.scope().is_empty() || shape.predicate.is_some(),
            so_far,
        })
    }
}

/// A partitioned table's rows are in its partitions. An ordinary one could be given children, which are tables of
/// their own: the stream names those, and they are not tracked.
fn rows_of(table: &Table, log: Log) -> String {
    format!("{}{}", if log.partitioned { "" } else { "only " }, qualified(table))
}

/// The scope's columns as the log calls them.
fn scope_names(shape: &Shape) -> Vec<String> {
    let place = |column: &usize| shape.table.scope_columns.iter().position(|c| c == column);
    shape.scope().iter().map(|(c, _)| format!("s{}", place(c).map_or(0, |at| at + 1))).collect()
}

/// What is wanted: the read's number, its scope's values, and for changes the state that it has.
fn wanted(of: &[(usize, &ReadRequest)], whole: bool) -> String {
    let row = |(at, read): &(usize, &ReadRequest)| {
        let values = read.shape.scope().iter().map(|(c, value)| typed(&read.shape.table, *c, value));
        let mut row: Vec<String> = std::iter::once(at.to_string()).chain(values).collect();
        if let (false, ReadFrom::Since(head)) = (whole, &read.from) {
            let xip = head.snapshot.xip().iter().map(u64::to_string).collect::<Vec<_>>().join(",");
            row.push(format!("{}::bigint", head.snapshot.xmax()));
            row.push(format!("'{{{xip}}}'::bigint[]"));
        }
        format!("({})", row.join(", "))
    };
    let rows: Vec<String> = of.iter().map(row).collect();
    let mut names = vec!["n".to_owned()];
    names.extend(of.first().map(|(_, read)| scope_names(&read.shape)).unwrap_or_default());
    if !whole {
        names.extend(["xmax".to_owned(), "xip".to_owned()]);
    }
    // Called `w`: a shape's predicate names the columns of `t`.
    format!("w ({}) as (values {})", names.join(", "), rows.join(", "))
}

fn all_rows(of: &[(usize, &ReadRequest)], log: Log) -> String {
    let shape = &of[0].1.shape;
    let (columns, rows) = (columns(shape), rows_of(&shape.table, log));
    if let [(at, _)] = of {
        // As it always was: rows in the order of the table, which nothing has to sort.
        return format!("select {at}, {columns} from {rows} t where {}", in_shape(shape, None));
    }
    let place = in_shape(shape, Some("w"));
    format!("with {} select w.n, {columns} from w join {rows} t on {place} order by w.n", wanted(of, true))
}

/// Keys that the logs name for the scopes, with the current row where it exists and lies in the scope.
///
/// A state does not include what a log entry's transaction did if its snapshot does not see it: the exact set, whatever
/// the isolation levels, savepoints or length of the transactions.
fn changed_rows(of: &[(usize, &ReadRequest)], log: Log) -> String {
    let shape = &of[0].1.shape;
    let (table, rows) = (&shape.table, rows_of(&shape.table, log));
    let keys: Vec<String> = (1..=table.key.len()).map(|i| format!("k{i}")).collect();
    let prefixed =
        |prefix: &str, names: &[String]| names.iter().map(|n| format!("{prefix}{n}")).collect::<Vec<_>>();
    let scope = scope_names(shape);
    let list = [prefixed("w.", &scope), prefixed("c.", &keys)].concat().join(", ");
    // Whatever they have seen, nobody needs what all have.
    let since = |read: &&(usize, &ReadRequest)| match &read.1.from {
        ReadFrom::Since(head) => least_unseen(&head.snapshot),
        ReadFrom::Scratch(_) => 0,
    };
    let least = of.iter().map(|read| since(&read)).min().unwrap_or_default();
    let mut place = scope.iter().map(|s| format!("c.{s} = w.{s}")).collect::<Vec<_>>();
    place.push(format!("c.xid >= {least} and (c.xid >= w.xmax or c.xid = any(w.xip))"));
    let place = place.join(" and ");
    let join = table.key.iter().zip(&keys).map(|(c, k)| format!("{} = k.{k}", of_base(table, *c)));
    let join = join.collect::<Vec<_>>().join(" and ");
    let first_key = quote(&table.columns[table.key[0]].name);
    let log = table.log;
    format!(
        "with {}, k as (select w.n, {list} from w join lockstep.changes_{log} c on {place} \
         union select w.n, {list} from w join lockstep.tombstones_{log} c on c.kind not in ('t', 'p') and {place}) \
         select k.n, t.{first_key} is not null, {}, {} from k left join {rows} t on {join} and {}{}",
        wanted(of, false),
        prefixed("k.", &keys).join(", "),
        columns(shape),
        in_shape(shape, Some("k")),
        // Nothing has to sort the changes of one shape.
        if of.len() > 1 { " order by k.n" } else { "" },
    )
}

fn columns(shape: &Shape) -> String {
    let names = shape.columns.iter().map(|c| format!("t.{}", quote(&shape.table.columns[*c].name)));
    names.collect::<Vec<_>>().join(", ")
}

/// A column as the logs have it: a domain over an enum has no operator with the enum.
fn of_base(table: &Table, column: usize) -> String {
    let column = &table.columns[column];
    let cast = column.base_sql.as_ref().map(|base| format!("::{base}")).unwrap_or_default();
    format!("t.{}{cast}", quote(&column.name))
}

fn typed(table: &Table, column: usize, value: &str) -> String {
    // Not a domain: its checks would fail the catch-up for a value that is in no row.
    let column = &table.columns[column];
    format!("{}::{}", literal(value), column.base_sql.as_ref().unwrap_or(&column.type_sql))
}

/// The shape's condition on a row of its table, which is called `t`; the scope's values are the shape's own, or those of
/// a row of another relation.
fn in_shape(shape: &Shape, values_of: Option<&str>) -> String {
    let table = &shape.table;
    let names = scope_names(shape);
    let parts = shape.scope().iter().zip(&names).map(|((column, value), name)| {
        let value = values_of.map_or_else(|| typed(table, *column, value), |of| format!("{of}.{name}"));
        format!("{} = {value}", of_base(table, *column))
    });
    let parts: Vec<String> = parts.chain(shape.predicate.iter().map(|p| p.sql().to_owned())).collect();
    if parts.is_empty() { "true".into() } else { parts.join(" and ") }
}

/// What is stored of these clients' mutations: the client's place, and the outcome.
pub(crate) fn outcomes_of(clients: &[(String, String)]) -> String {
    let row = |(at, (subject, client)): (usize, &(String, String))| {
        format!("({at}, {}, {})", literal(subject), literal(client))
    };
    let rows: Vec<String> = clients.iter().enumerate().map(row).collect();
    format!(
        "select w.at, m.n, m.id, m.outcome, m.code, m.message from (values {}) w (at, subject, client) \
         join lockstep.mutations m on m.subject = w.subject and m.client = w.client order by w.at, m.n",
        rows.join(", ")
    )
}
