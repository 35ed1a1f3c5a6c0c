//! A random history, run on both.

use crate::compare;
use crate::real::{CONNECTIONS, Real, long};
use lockstep_core::position::{Lsn, Snapshot};
use lockstep_sim::pg::{Db, Op, TxId};
use lockstep_sim::rng::Rng;
use lockstep_sim::schema::{APP_TABLES, Key, MARKS, Row, SCOPES};
use std::collections::BTreeMap;

/// What a history is made of; over all seeds each must come.
pub const STEPS: &[&str] = &[
    "abort",
    "catch-up",
    "change key",
    "come and go",
    "commit",
    "commit prepared",
    "delete",
    "insert",
    "insert again",
    "large value left alone",
    "move scope",
    "prepare",
    "replace",
    "rollback to savepoint",
    "savepoint",
    "swap keys",
    "truncate",
    "truncate of several",
    "update",
    "update several",
];

const STEPS_PER_SEED: u32 = 160;
/// Rows of a table.
const ROWS: usize = 12;

/// An open transaction on both sides.
#[derive(Debug, Default)]
struct Open {
    tx: TxId,
    savepoints: u32,
    /// The operations of each statement of several rows: PostgreSQL chooses their order.
    several: Vec<std::ops::Range<usize>>,
}

/// A transaction that has an id.
#[derive(Debug, Clone, Copy)]
pub struct Known {
    pub model: u64,
    pub real: u64,
}

/// A state to come back from.
pub struct Saved {
    pub model: (Snapshot, Lsn),
    pub real: (Snapshot, Lsn),
}

pub struct Script {
    pub db: Db,
    pub real: Real,
    pub rng: Rng,
    seed: u64,
    open: Vec<Option<Open>>,
    prepared: Vec<(String, Open)>,
    pub known: Vec<Known>,
    pub saved: Vec<Saved>,
    /// Of commits, by their number: statements of several rows.
    pub several: BTreeMap<usize, Vec<std::ops::Range<usize>>>,
    done: BTreeMap<&'static str, u32>,
    next_key: u32,
}

impl Script {
    pub fn new(seed: u64, real: Real) -> Self {
        let rng = Rng::new(seed);
        let mut db = Db::new(700);
        let tx = db.begin();
        let mark = ["0".to_owned(), real.mark.to_string(), db.insert_lsn.to_string()];
        db.statement(tx, MARKS, &[Op::Insert(mark.map(|t| Some(t.into())).to_vec())]).unwrap();
        let index = db.commit(tx).unwrap();
        db.flush(u64::MAX);
        db.make_visible(index);
        Self {
            db,
            real,
            rng,
            seed,
            open: (0..CONNECTIONS).map(|_| None).collect(),
            prepared: Vec::new(),
            known: Vec::new(),
            saved: Vec::new(),
            several: BTreeMap::new(),
            done: BTreeMap::new(),
            next_key: 0,
        }
    }

    /// Runs it. Returns how often each kind of step was taken.
    pub async fn run(mut self) -> BTreeMap<&'static str, u32> {
        for step in 0..STEPS_PER_SEED {
            let at = self.rng.index(CONNECTIONS);
            self.step(at).await;
            compare::snapshots(&self, step).await;
            if self.rng.one_in(12) {
                self.save().await;
            }
            if self.rng.one_in(15) && !self.saved.is_empty() {
                self.did("catch-up");
                compare::catch_up(&mut self).await;
            }
        }
        for at in 0..CONNECTIONS {
            if self.open[at].is_some() {
                self.commit(at).await;
            }
        }
        while !self.prepared.is_empty() {
            self.commit_prepared().await;
        }
        self.save().await;
        compare::catch_up(&mut self).await;
        compare::stream(&mut self).await;
        self.done
    }

    pub fn place(&self) -> String {
        format!("seed {}, after {:?}", self.seed, self.done)
    }

    fn did(&mut self, step: &'static str) {
        *self.done.entry(step).or_default() += 1;
    }

    async fn save(&mut self) {
        let model = (self.db.snapshot(), Lsn(self.db.insert_lsn));
        self.saved.push(Saved { model, real: self.real.snapshot().await });
    }

    async fn step(&mut self, at: usize) {
        if self.open[at].is_none() {
            let tx = self.db.begin();
            self.real.run(at, "begin").await;
            self.open[at] = Some(Open { tx, ..Open::default() });
        }
        match self.rng.below(100) {
            0..=17 => self.commit(at).await,
            18..=20 => self.abort(at).await,
            21..=23 => self.prepare(at).await,
            24..=28 => self.commit_prepared().await,
            29..=35 => self.savepoint(at).await,
            36..=40 => self.roll_back_to(at).await,
            41..=42 => self.truncate(at).await,
            _ => self.write(at).await,
        }
        self.learn_xid(at).await;
    }

    /// Both sides give a transaction its id with the same statement.
    async fn learn_xid(&mut self, at: usize) {
        let Some(open) = &self.open[at] else { return };
        let model = self.db.open.get(&open.tx).and_then(|t| t.xid);
        let real = self.real.xid(at).await;
        assert_eq!(model.is_some(), real.is_some(), "an id is assigned; {}", self.place());
        if let (Some(model), Some(real)) = (model, real)
            && !self.known.iter().any(|k| k.model == model)
        {
            let newest = self.known.last();
            assert!(newest.is_none_or(|n| n.model < model && n.real < real), "{newest:?} {model} {real}");
            self.known.push(Known { model, real });
        }
    }

    async fn commit(&mut self, at: usize) {
        let Some(open) = self.open[at].take() else { return };
        self.did("commit");
        self.real.run(at, "commit").await;
        self.committed(open).await;
    }

    async fn committed(&mut self, open: Open) {
        if let Some(index) = self.db.commit(open.tx) {
            self.db.flush(u64::MAX);
            self.db.make_visible(index);
            self.several.insert(index, open.several);
        }
        compare::rows_and_logs(self).await;
    }

    async fn abort(&mut self, at: usize) {
        let Some(open) = self.open[at].take() else { return };
        self.did("abort");
        self.db.end(open.tx);
        self.real.run(at, "rollback").await;
        compare::rows_and_logs(self).await;
    }

    async fn prepare(&mut self, at: usize) {
        let has_id = |db: &Db, open: &Open| db.open.get(&open.tx).is_some_and(|t| t.xid.is_some());
        let Some(open) = self.open[at].take_if(|open| has_id(&self.db, open)) else { return };
        self.did("prepare");
        let name = format!("p{}_{}", self.seed, open.tx);
        self.db.prepare(open.tx);
        self.real.run(at, &format!("prepare transaction '{name}'")).await;
        self.prepared.push((name, open));
    }

    async fn commit_prepared(&mut self) {
        if self.prepared.is_empty() {
            return;
        }
        let nth = self.rng.index(self.prepared.len());
        let (name, open) = self.prepared.remove(nth);
        self.did("commit prepared");
        self.real.look.batch_execute(&format!("commit prepared '{name}'")).await.unwrap();
        self.committed(open).await;
    }

    async fn savepoint(&mut self, at: usize) {
        let Some(open) = &mut self.open[at] else { return };
        open.savepoints += 1;
        let sql = format!("savepoint s{}", open.savepoints);
        self.db.savepoint(open.tx);
        self.real.run(at, &sql).await;
        self.did("savepoint");
    }

    async fn roll_back_to(&mut self, at: usize) {
        let Some(open) = self.open[at].as_mut().filter(|o| o.savepoints > 0) else { return };
        let sql = format!("rollback to s{0}; release s{0}", open.savepoints);
        open.savepoints -= 1;
        self.db.rollback_to(open.tx);
        let operations = self.db.open[&open.tx].operations();
        open.several.retain(|range| range.end <= operations);
        self.real.run(at, &sql).await;
        self.did("rollback to savepoint");
    }

    async fn truncate(&mut self, at: usize) {
        // It waits for whoever has written to the table.
        for other in 0..CONNECTIONS {
            self.commit(other).await;
        }
        while !self.prepared.is_empty() {
            self.commit_prepared().await;
        }
        let (tx, first) = (self.db.begin(), self.rng.index(APP_TABLES));
        let tables = if self.rng.one_in(2) { vec![first, (first + 1) % APP_TABLES] } else { vec![first] };
        self.real.run(at, "begin").await;
        self.open[at] = Some(Open { tx, ..Open::default() });
        self.db.truncate(tx, &tables).expect("nobody else is there");
        self.did(if tables.len() > 1 { "truncate of several" } else { "truncate" });
        let names: Vec<&str> = tables.iter().map(|t| &*self.db.schema.tables[*t].table.name).collect();
        let sql = format!("truncate {}", names.join(", "));
        self.real.run(at, &sql).await;
    }

    /// One statement on both sides, if the model can do it without waiting and without an error.
    async fn statement(&mut self, at: usize, table: usize, ops: &[Op], what: &'static str) -> bool {
        let Some(tx) = self.open[at].as_ref().map(|o| o.tx).filter(|_| !ops.is_empty()) else { return false };
        let sql = self.sql(tx, table, ops);
        let before = self.db.open[&tx].operations();
        if self.db.statement(tx, table, ops).is_err() {
            return false;
        }
        if ops.len() > 1 {
            let operations = self.db.open[&tx].operations();
            self.open[at].as_mut().unwrap().several.push(before..operations);
        }
        self.real.run(at, &sql).await;
        self.did(what);
        true
    }

    async fn write(&mut self, at: usize) {
        let table = self.rng.index(APP_TABLES);
        let full = self.db.visible[table].len() > ROWS;
        match self.rng.below(100) {
            0..=24 if !full => {
                let rows = self.rng.between(1, 3);
                let ops: Vec<Op> = (0..rows).map(|_| Op::Insert(self.new_row(table))).collect();
                self.statement(at, table, &ops, "insert").await;
            }
            0..=34 => {
                if let Some((key, _)) = self.any_row(at, table) {
                    self.statement(at, table, &[Op::Delete(key)], "delete").await;
                }
            }
            35..=54 => self.update(at, table).await,
            55..=62 => self.update_several(at, table).await,
            63..=72 => self.move_scope(at, table).await,
            73..=80 => self.change_key(at, table).await,
            81..=87 => self.swap_keys(at, table).await,
            88..=93 => self.replace(at, table).await,
            _ => {
                let row = self.new_row(table);
                let key = self.db.schema.key_of(table, &row);
                if self.statement(at, table, &[Op::Insert(row.clone())], "insert").await
                    && self.statement(at, table, &[Op::Delete(key)], "come and go").await
                    && self.rng.one_in(2)
                {
                    self.statement(at, table, &[Op::Insert(row)], "insert again").await;
                }
            }
        }
    }

    async fn update(&mut self, at: usize, table: usize) {
        let Some((key, mut row)) = self.any_row(at, table) else { return };
        let def = &self.db.schema.tables[table];
        let (text, number) = (def.text, def.number);
        let large = row[text].as_ref().is_some_and(|t| t.len() > lockstep_sim::schema::LARGE);
        let what = match number {
            Some(number) if self.rng.one_in(2) => {
                row[number] = Some(self.rng.below(600).to_string().into());
                if large { "large value left alone" } else { "update" }
            }
            _ => {
                row[text] = self.text();
                "update"
            }
        };
        self.statement(at, table, &[Op::Update(key, row)], what).await;
    }

    async fn update_several(&mut self, at: usize, table: usize) {
        let Some(number) = self.db.schema.tables[table].number else { return };
        let mut ops: Vec<(Key, Row)> = Vec::new();
        for _ in 0..3 {
            let Some((key, mut row)) = self.any_row(at, table) else { return };
            row[number] = Some(self.rng.below(600).to_string().into());
            if !ops.iter().any(|(k, _)| *k == key) {
                ops.push((key, row));
            }
        }
        let ops: Vec<Op> = ops.into_iter().map(|(key, row)| Op::Update(key, row)).collect();
        self.statement(at, table, &ops, "update several").await;
    }

    async fn move_scope(&mut self, at: usize, table: usize) {
        let Some((key, mut row)) = self.any_row(at, table).filter(|_| table > 0) else { return };
        row[if table == 1 { 1 } else { 2 }] = self.scope();
        self.statement(at, table, &[Op::Update(key, row)], "move scope").await;
    }

    async fn change_key(&mut self, at: usize, table: usize) {
        let Some((key, mut row)) = self.any_row(at, table) else { return };
        let column = *self.db.schema.tables[table].table.key.last().unwrap();
        row[column] = Some(self.fresh_key());
        self.statement(at, table, &[Op::Update(key, row)], "change key").await;
    }

    /// a → c, b → a, c → b.
    async fn swap_keys(&mut self, at: usize, table: usize) {
        let (Some((a, row_a)), Some((b, row_b))) = (self.any_row(at, table), self.any_row(at, table)) else {
            return;
        };
        if a == b {
            return;
        }
        let columns = self.db.schema.tables[table].table.key.clone();
        let under = |row: &Row, key: &Key| {
            let mut row = row.clone();
            columns.iter().zip(key).for_each(|(c, v)| row[*c] = Some(v.clone()));
            row
        };
        let mut c = a.clone();
        *c.last_mut().unwrap() = self.fresh_key();
        let moves = [(a.clone(), under(&row_a, &c)), (b.clone(), under(&row_b, &a)), (c, under(&row_a, &b))];
        for (nth, (key, row)) in moves.into_iter().enumerate() {
            let what = if nth == 2 { "swap keys" } else { "change key" };
            if !self.statement(at, table, &[Op::Update(key, row)], what).await {
                return;
            }
        }
    }

    /// Deletes and inserts one key.
    async fn replace(&mut self, at: usize, table: usize) {
        let Some((key, mut row)) = self.any_row(at, table) else { return };
        if self.statement(at, table, &[Op::Delete(key)], "delete").await {
            row[self.db.schema.tables[table].text] = self.text();
            self.statement(at, table, &[Op::Insert(row)], "replace").await;
        }
    }

    fn any_row(&mut self, at: usize, table: usize) -> Option<(Key, Row)> {
        let tx = self.open[at].as_ref()?.tx;
        let rows = &self.db.visible[table];
        let nth = self.rng.index(rows.len());
        let key = rows.keys().nth(nth)?.clone();
        let row = self.db.row(tx, table, &key)?.clone();
        Some((key, row))
    }

    fn new_row(&mut self, table: usize) -> Row {
        let (key, number) = (Some(self.fresh_key()), Some(self.rng.below(600).to_string().into()));
        let text = self.text();
        match table {
            0 => vec![key, number, text],
            1 => vec![key, self.scope(), number, text],
            _ => vec![Some(self.rng.between(1, 3).to_string().into()), key, self.scope(), text],
        }
    }

    fn fresh_key(&mut self) -> lockstep_core::change::Text {
        self.next_key += 1;
        self.next_key.to_string().into()
    }

    fn scope(&mut self) -> Option<lockstep_core::change::Text> {
        (!self.rng.one_in(6)).then(|| self.rng.between(1, SCOPES).to_string().into())
    }

    fn text(&mut self) -> Option<lockstep_core::change::Text> {
        let length = if self.rng.one_in(3) { 48 } else { 6 };
        (!self.rng.one_in(12)).then(|| format!("{:0length$x}", self.rng.below(0xff_ffff)).into())
    }

    fn sql(&self, tx: TxId, table: usize, ops: &[Op]) -> String {
        let core = &self.db.schema.tables[table].table;
        let name = &core.name;
        let value = |at: usize, value: &Option<lockstep_core::change::Text>| match value {
            None => "null".to_owned(),
            Some(text) if core.columns[at].type_oid == 23 => text.to_string(),
            Some(text) => format!("'{}'", long(text)),
        };
        let is = |key: &Key| {
            let part =
                |(c, v): (&usize, &lockstep_core::change::Text)| format!("{} = {v}", core.columns[*c].name);
            core.key.iter().zip(key).map(part).collect::<Vec<_>>().join(" and ")
        };
        match ops {
            [Op::Insert(_), ..] => {
                let row = |op: &Op| {
                    let Op::Insert(row) = op else { unreachable!("inserts only") };
                    let values: Vec<_> = row.iter().enumerate().map(|(at, v)| value(at, v)).collect();
                    format!("({})", values.join(", "))
                };
                format!("insert into {name} values {}", ops.iter().map(row).collect::<Vec<_>>().join(", "))
            }
            [Op::Delete(key)] => format!("delete from {name} where {}", is(key)),
            [Op::Update(key, row)] => {
                let old = self.db.row(tx, table, key).unwrap();
                let changed = (0..row.len()).filter(|at| row[*at] != old[*at]);
                let mut set: Vec<_> = changed
                    .map(|at| format!("{} = {}", core.columns[at].name, value(at, &row[at])))
                    .collect();
                if set.is_empty() {
                    let first = &core.columns[0].name;
                    set.push(format!("{first} = {first}"));
                }
                format!("update {name} set {} where {}", set.join(", "), is(key))
            }
            _ => {
                let row = |op: &Op| {
                    let Op::Update(key, row) = op else { unreachable!("updates only") };
                    format!(
                        "({}, {})",
                        key[0],
                        row[self.db.schema.tables[table].number.unwrap()].as_deref().unwrap()
                    )
                };
                let rows = ops.iter().map(row).collect::<Vec<_>>().join(", ");
                format!("update {name} t set n = v.n from (values {rows}) v (id, n) where t.id = v.id")
            }
        }
    }
}
