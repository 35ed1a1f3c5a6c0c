//! What must be equal on both sides.

use crate::real::short;
use crate::script::Script;
use lockstep_core::catalog::{Catalog, Table};
use lockstep_core::change::{Assembler, Change, ChangeKind, Text, Transaction, Tuple, Value};
use lockstep_core::fanout::hub::{CatchUpAnswer, CatchUpRequest, ReadFrom, ReadRequest};
use lockstep_core::pgoutput::{StreamFrame, decode};
use lockstep_core::position::{CursorHead, Lsn, Snapshot};
use lockstep_core::shape::{Shape, ShapeRequest};
use lockstep_sim::pg::{DATABASE, SYSTEM, encode};
use lockstep_sim::schema::APP_TABLES;
use serde_json::{Value as Json, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Transactions are named by their place in the order of ids, which both sides share.
fn order(xids: impl Iterator<Item = u64>) -> BTreeMap<u64, String> {
    xids.enumerate().map(|(nth, xid)| (xid, format!("T{nth}"))).collect()
}

fn model_order(script: &Script) -> BTreeMap<u64, String> {
    order(script.known.iter().map(|k| k.model))
}

fn real_order(script: &Script) -> BTreeMap<u64, String> {
    order(script.known.iter().map(|k| k.real))
}

fn name(names: &BTreeMap<u64, String>, xid: Option<&str>) -> String {
    let xid = xid.and_then(|x| x.parse::<u64>().ok());
    xid.and_then(|x| names.get(&x)).cloned().unwrap_or_else(|| format!("unknown {xid:?}"))
}

/// Every transaction is seen by both, or by neither.
pub async fn snapshots(script: &Script, step: u32) {
    let (model, (real, _)) = (script.db.snapshot(), script.real.snapshot().await);
    for (nth, known) in script.known.iter().enumerate() {
        let (in_model, in_real) = (model.sees(known.model), real.sees(known.real));
        assert_eq!(
            in_model,
            in_real,
            "T{nth} {known:?} in {model} and {real}, step {step}, {}",
            script.place()
        );
    }
}

/// Rows that a new snapshot sees, and all entries of the logs.
pub async fn rows_and_logs(script: &Script) {
    // Nobody reads a table that is being truncated.
    for table in (0..APP_TABLES).filter(|table| !script.db.is_table_locked(*table)) {
        let core = &script.db.schema.tables[table].table;
        let real = script.real.rows(&script.real.look, &format!("select * from {}", core.name)).await;
        let real: BTreeSet<_> = real.into_iter().collect();
        let text = |v: &Option<Text>| v.as_deref().map(str::to_owned);
        let model = script.db.visible[table].values().map(|row| row.iter().map(text).collect());
        assert_eq!(model.collect::<BTreeSet<Vec<_>>>(), real, "rows of {}, {}", core.name, script.place());

        let theirs = script.real.catalog.find(&core.name).expect("tracked");
        let (mut model, mut real) = (model_log(script, table), real_log(script, theirs).await);
        model.sort();
        real.sort();
        assert_eq!(model, real, "logs of {}, {}", core.name, script.place());
    }
}

fn model_log(script: &Script, table: usize) -> Vec<String> {
    let names = model_order(script);
    let entries = script.db.logs[table].entries().map(|(xid, entry)| {
        let key = entry.key.clone().map(|k| k.iter().map(ToString::to_string).collect::<Vec<_>>());
        let scope: Vec<_> = entry.scope.iter().map(|v| v.as_deref().map(str::to_owned)).collect();
        let kind = entry.kind.map_or("put".to_owned(), String::from);
        format!("{} {kind} {scope:?} {key:?}", name(&names, Some(&xid.to_string())))
    });
    entries.collect()
}

async fn real_log(script: &Script, table: &Table) -> Vec<String> {
    let names = real_order(script);
    let (scopes, keys) = (table.scope_columns.len(), table.key.len());
    let columns = (1..=scopes).map(|n| format!("s{n}")).chain((1..=keys).map(|n| format!("k{n}")));
    let columns: String = columns.map(|c| format!("{c}, ")).collect();
    let log = table.log;
    let sql = format!(
        "select {columns} xid, 'put' from lockstep.changes_{log} \
         union all select {columns} xid, kind::text from lockstep.tombstones_{log}"
    );
    let rows = script.real.rows(&script.real.look, &sql).await;
    let entry = |row: Vec<Option<String>>| {
        let (scope, rest) = row.split_at(scopes);
        let (key, end) = rest.split_at(keys);
        let key: Option<Vec<String>> = key.iter().cloned().collect();
        let kind = end[1].clone().unwrap_or_default();
        format!("{} {kind} {scope:?} {key:?}", name(&names, end[0].as_deref()))
    };
    rows.into_iter().map(entry).collect()
}

/// What all shapes become, from a state of some time ago.
pub async fn catch_up(script: &mut Script) {
    let nth = script.rng.index(script.saved.len());
    let saved = &script.saved[nth];
    let mark = script.real.mark;
    let request = |catalog: &Catalog, identity: (u64, u32, u32), state: &(Snapshot, Lsn)| {
        let (system, timeline, database) = identity;
        let (snapshot, fence) = state.clone();
        let head =
            CursorHead { system, timeline, database, incarnation: mark, fence, snapshot, shown: vec![] };
        let head = Arc::new(head);
        let read = |definition: Json| {
            let mut asked = definition;
            asked["ref"] = "0".into();
            let asked: ShapeRequest = serde_json::from_value(asked).expect("a request");
            let shape = Arc::new(Shape::resolve(&asked, catalog).expect("a shape"));
            ReadRequest { shape, from: ReadFrom::Since(head.clone()) }
        };
        let definitions = script.db.schema.shapes.iter().map(|s| s.definition.clone());
        CatchUpRequest { id: 0, reads: definitions.map(read).collect(), clients: vec![] }
    };
    let ours = request(&script.db.schema.catalog(), (SYSTEM, script.db.timeline, DATABASE), &saved.model);
    // As a node does: a table that was truncated has other storage, and its shapes are resolved anew.
    let known = lockstep_pg::catalog::load(&script.real.look).await.expect("the catalog");
    let theirs = request(&known, script.real.identity, &saved.real);
    let model = script.db.catch_up(&ours, &[]);
    let real =
        lockstep_pg::catch_up::read_whole(&script.real.target, &theirs, &[], Duration::from_secs(20)).await;
    let (model, real) = match (model, real) {
        (Ok(model), Ok(real)) => (net(&model), net(&real)),
        (Err(_), Err(_)) => return,
        (model, real) => panic!("one waits for a lock: {model:?}, {real:?}, {}", script.place()),
    };
    assert_eq!(model, real, "a catch-up since {} and {}, {}", saved.model.0, saved.real.0, script.place());
}

/// By read: why it was loaded in full, rows, keys that are gone.
fn net(answer: &CatchUpAnswer) -> Vec<(Json, BTreeSet<String>, BTreeSet<String>)> {
    let one = |frames: &[bytes::Bytes]| {
        let (mut reset, mut put, mut remove) = (Json::Null, BTreeSet::new(), BTreeSet::new());
        for frame in frames {
            let frame: Json = serde_json::from_slice(frame).expect("a frame");
            if !frame[4]["reset"].is_null() {
                reset = frame[4]["reset"].clone();
            }
            let list = |name: &str| frame[4][name].as_array().cloned().unwrap_or_default();
            put.extend(list("put").into_iter().map(|row| shortened(&row)));
            remove.extend(list("remove").into_iter().map(|key| key.to_string()));
        }
        (reset, put, remove)
    };
    answer.reads.iter().map(|read| one(&read.frames)).collect()
}

fn shortened(row: &Json) -> String {
    let value = |v: &Json| v.as_str().map_or_else(|| v.clone(), |text| json!(short(text)));
    Json::from(row.as_array().into_iter().flatten().map(value).collect::<Vec<_>>()).to_string()
}

/// What the stream brought of each transaction, operation by operation.
pub async fn stream(script: &mut Script) {
    let model = model_stream(script);
    let last = model.last().map(|t| t.xid);
    let last = last.and_then(|xid| script.known.iter().find(|k| k.model == xid)).map(|k| k.real);
    let real = script.real.streamed(last).await;
    let indices: Vec<usize> = model.iter().filter_map(|t| script.db.committed.get(&t.xid).copied()).collect();
    let catalog = script.db.schema.catalog();
    let (ours, theirs) = (model_order(script), real_order(script));
    let told = |t: &Transaction, names, catalog| -> Vec<String> {
        t.changes.iter().flatten().map(|change| tell(change, catalog, names)).collect()
    };
    assert_eq!(
        model.iter().map(|t| name(&ours, Some(&t.xid.to_string()))).collect::<Vec<_>>(),
        real.iter().map(|t| name(&theirs, Some(&t.xid.to_string()))).collect::<Vec<_>>(),
        "the order of commits, {}",
        script.place()
    );
    for ((model, real), index) in model.iter().zip(&real).zip(indices) {
        let (mut a, mut b) = (told(model, &ours, &catalog), told(real, &theirs, &script.real.catalog));
        assert_eq!(a.len(), b.len(), "{a:#?}\n{b:#?}");
        for range in &script.several[&index] {
            a[range.clone()].sort();
            b[range.clone()].sort();
        }
        assert_eq!(a, b, "transaction {}, {}", model.xid, script.place());
    }
}

fn model_stream(script: &Script) -> Vec<Transaction> {
    let (mut assembler, catalog) = (Assembler::default(), script.db.schema.catalog());
    let mut described = BTreeSet::new();
    let mut transactions = Vec::new();
    for commit in script.db.commits.iter().filter(|c| !c.messages.is_empty()) {
        let mut frames = vec![encode::begin(commit.commit_lsn, commit.xid)];
        for (relations, message) in &commit.messages {
            for oid in relations {
                if described.insert(*oid) {
                    frames.push(encode::relation(&script.db.schema, *oid));
                }
            }
            frames.push(message.clone());
        }
        frames.push(encode::commit(commit.commit_lsn, commit.end_lsn));
        for frame in frames {
            let Ok(StreamFrame::Data(data)) = StreamFrame::parse(&frame) else { panic!("a frame") };
            let taken = assembler.handle(decode(data).expect("a message"), commit.xid, &catalog);
            transactions.extend(taken.expect("in order").map(|d| d.transaction));
        }
    }
    transactions
}

fn tell(change: &Change, catalog: &Catalog, names: &BTreeMap<u64, String>) -> String {
    let value = |v: &Value| match v {
        Value::Null => "NULL".to_owned(),
        Value::Unchanged => "unchanged".to_owned(),
        Value::Text(text) => format!("{:?}", short(text)),
    };
    let tuple = |t: &Tuple| t.iter().map(value).collect::<Vec<_>>().join(", ");
    if let (Some(table), ChangeKind::Insert(row)) = (catalog.by_tombstones(change.relation), &change.kind) {
        // Its number in the log is of no meaning here.
        let (xid, kind) = (&row[row.len() - 2], &row[row.len() - 1]);
        let place: Tuple = row[1..row.len() - 2].to_vec();
        return format!(
            "tombstone of {}: {} ({}) {}",
            table.name,
            value(kind),
            tuple(&place),
            name(names, xid.text())
        );
    }
    let table = catalog.table(change.relation).map_or("?", |t| t.name.as_str());
    match &change.kind {
        ChangeKind::Insert(new) => format!("insert {table} ({})", tuple(new)),
        ChangeKind::Update { old, new } => {
            let old = old.as_ref().map(|(old, full)| format!("{full} ({})", tuple(old)));
            format!("update {table} {old:?} ({})", tuple(new))
        }
        ChangeKind::Delete(old, full) => format!("delete {table} {full} ({})", tuple(old)),
        ChangeKind::Truncate => format!("truncate {table}"),
    }
}
