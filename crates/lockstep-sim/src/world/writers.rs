//! The application: transactions of every kind, some long, some prepared, some given up.

use super::{Event, Sync, Waiter, World};
use crate::pg::{Op, Stuck, TxId};
use crate::schema::{APP_TABLES, Key, NUMBERS, Row, SCOPES};
use lockstep_core::change::Text;

/// One connection of the application.
#[derive(Debug, Default)]
pub(super) struct Writer {
    tx: Option<(TxId, u64)>,
    steps: u64,
    tries: u32,
    pace: u64,
    committing: bool,
    /// Tables, of one TRUNCATE.
    truncating: Vec<usize>,
}

const ROWS: usize = 25;

impl World {
    fn text_value(&mut self) -> Text {
        let length = if self.rng.one_in(40) { 48 } else { 6 };
        format!("{:0length$x}", self.rng.number() & 0xff_ffff).into()
    }

    fn number_value(&mut self) -> Text {
        self.rng.below(NUMBERS.cast_unsigned()).to_string().into()
    }

    fn scope_value(&mut self) -> Option<Text> {
        (!self.rng.one_in(30)).then(|| self.rng.between(1, SCOPES).to_string().into())
    }

    pub(super) fn fresh_key(&mut self) -> Text {
        self.next_key += 1;
        self.next_key.to_string().into()
    }

    /// A row of a table under a fresh key.
    pub(super) fn new_row(&mut self, table: usize) -> Row {
        let (key, number, text) = (self.fresh_key(), self.number_value(), self.text_value());
        let extra =
            (0..self.db.schema.extra_columns(table)).map(|_| Some(self.number_value())).collect::<Row>();
        let row = match table {
            0 => vec![Some(key), Some(number), Some(text)],
            1 => vec![Some(key), self.scope_value(), Some(number), Some(text)],
            _ => {
                let org = self.rng.between(1, 3).to_string().into();
                vec![Some(org), Some(key), self.scope_value(), Some(text)]
            }
        };
        row.into_iter().chain(extra).collect()
    }

    /// Rows that are there before anybody looks.
    pub(super) fn fixture(&mut self) {
        let tx = self.db.begin();
        for table in 0..APP_TABLES {
            for _ in 0..8 {
                let row = self.new_row(table);
                // Fresh keys are free.
                let _ = self.db.statement(tx, table, &[Op::Insert(row)]);
            }
        }
        if let Some(index) = self.db.commit(tx) {
            self.db.flush(self.db.insert_lsn);
            self.db.make_visible(index);
        }
        self.db.floor = 1;
    }

    pub(super) fn write(&mut self, at: usize) {
        let epoch = self.db.epoch;
        let writer = &mut self.writers[at];
        if self.now < self.up_at
            || self.unmarked
            || writer.committing && writer.tx.is_some_and(|(_, e)| e == epoch)
        {
            let wait = self.up_at.saturating_sub(self.now) + 5_000;
            if !writer.committing {
                self.after(wait, Event::Writer(at));
            }
            return;
        }
        let open = writer.tx.filter(|(_, e)| *e == epoch).map(|(tx, _)| tx);
        let Some(tx) = open else {
            *writer = Writer::default();
            if self.quiet {
                return;
            }
            self.begin_writing(at);
            return;
        };
        if self.quiet || writer.steps == 0 {
            self.end_writing(at, tx);
            return;
        }
        if self.writers[at].truncating.is_empty() && self.rng.one_in(700) {
            self.writers[at].truncating = self.some_tables();
            self.writers[at].tries = 0;
        }
        let truncates = !self.writers[at].truncating.is_empty();
        let done = if truncates { self.truncate(tx, at) } else { self.statement(tx) };
        match done {
            Err(Stuck::Locked) if self.writers[at].tries < if truncates { 30 } else { 4 } => {
                self.writers[at].tries += 1;
                let wait = self.rng.between(300, 3_000);
                self.after(wait, Event::Writer(at));
            }
            _ => {
                let writer = &mut self.writers[at];
                writer.tries = 0;
                // A TRUNCATE given up would go on standing in everyone's way.
                writer.steps = if truncates { 0 } else { writer.steps - 1 };
                writer.truncating.clear();
                let pace = writer.pace;
                let wait = self.rng.between(10, pace);
                self.after(wait, Event::Writer(at));
            }
        }
    }

    fn begin_writing(&mut self, at: usize) {
        let tx = self.db.begin();
        let long = self.rng.one_in(2500);
        let pace = if long { 120_000 } else { 400 };
        if long {
            self.fault("long_transaction");
        }
        let steps = if self.rng.one_in(4) { self.rng.between(2, 6) } else { 1 };
        self.writers[at] = Writer {
            tx: Some((tx, self.db.epoch)),
            steps,
            tries: 0,
            pace,
            committing: false,
            truncating: Vec::new(),
        };
        if self.rng.one_in(10) {
            // It takes its id before others write, and writes after them.
            self.db.assign(tx);
        }
        let wait = self.rng.below(pace);
        self.after(wait, Event::Writer(at));
    }

    fn end_writing(&mut self, at: usize, tx: TxId) {
        self.writers[at].committing = true;
        let dice = self.rng.below(100);
        if dice < 8 {
            self.fault("abort");
            self.db.end(tx);
            self.writer_free(at);
        } else if dice < 9 && !self.quiet && self.rng.one_in(8) {
            self.fault("prepared");
            self.db.prepare(tx);
            // Somebody else ends it, later.
            self.writer_free(at);
        } else {
            let sync = match self.rng.below(10) {
                0..=5 => Sync::On,
                6 => Sync::Local,
                _ => Sync::Off,
            };
            self.commit(tx, sync, Waiter::Writer(at));
        }
    }

    pub(super) fn writer_free(&mut self, at: usize) {
        self.writers[at] = Writer::default();
        let wait = self.rng.between(200, 6_000);
        self.after(wait, Event::Writer(at));
    }

    /// Ends some of the prepared transactions.
    pub(super) fn end_prepared(&mut self, all: bool) {
        for tx in self.db.prepared() {
            if all || self.rng.one_in(3) {
                self.commit(tx, Sync::On, Waiter::Nobody);
            }
        }
    }

    /// One of them, or several in some order.
    fn some_tables(&mut self) -> Vec<usize> {
        let first = self.rng.index(APP_TABLES);
        let many = if self.rng.one_in(2) { self.rng.between(2, APP_TABLES as u64) as usize } else { 1 };
        (first..first + many).map(|table| table % APP_TABLES).collect()
    }

    fn truncate(&mut self, tx: TxId, at: usize) -> Result<(), Stuck> {
        let tables = &self.writers[at].truncating;
        let several = tables.len() > 1;
        self.db.truncate(tx, tables)?;
        self.fault("truncate");
        if several {
            self.fault("truncate_several");
        }
        Ok(())
    }

    fn any_key(&mut self, table: usize) -> Option<Key> {
        let rows = &self.db.visible[table];
        let at = self.rng.index(rows.len());
        rows.keys().nth(at).cloned()
    }

    fn statement(&mut self, tx: TxId) -> Result<(), Stuck> {
        let table = self.rng.index(APP_TABLES);
        let full = self.db.visible[table].len() > ROWS;
        let dice = self.rng.below(100);
        match dice {
            0..=19 if !full => {
                let rows =
                    (0..self.rng.between(1, 3)).map(|_| Op::Insert(self.new_row(table))).collect::<Vec<_>>();
                self.db.statement(tx, table, &rows)
            }
            0..=34 => match self.any_key(table) {
                Some(key) if full => self.db.statement(tx, table, &[Op::Delete(key)]),
                _ => Ok(()),
            },
            35..=69 => self.update(tx, table),
            70..=77 => self.move_scope(tx, table),
            78..=83 => self.change_key(tx, table),
            84..=87 => self.swap_keys(tx, table),
            88..=91 => self.replace(tx, table),
            92..=94 => self.come_and_go(tx, table),
            _ => self.savepoint(tx, table),
        }
    }

    fn update(&mut self, tx: TxId, table: usize) -> Result<(), Stuck> {
        let mut ops: Vec<(Key, Row)> = Vec::new();
        for _ in 0..self.rng.between(1, 3) {
            let Some(key) = self.any_key(table) else { break };
            let Some(mut row) = self.db.row(tx, table, &key).cloned() else { continue };
            let def = &self.db.schema.tables[table];
            let (text, number) = (def.text, def.number);
            let extra = self.db.schema.extra_columns(table) > 0 && self.rng.one_in(4);
            match number {
                _ if extra => *row.last_mut().unwrap_or(&mut None) = Some(self.number_value()),
                Some(number) if !self.rng.one_in(4) => row[number] = Some(self.number_value()),
                _ => row[text] = Some(self.text_value()),
            }
            if !ops.iter().any(|(k, _)| *k == key) {
                ops.push((key, row));
            }
        }
        let ops: Vec<Op> = ops.into_iter().map(|(key, row)| Op::Update(key, row)).collect();
        self.db.statement(tx, table, &ops)
    }

    fn move_scope(&mut self, tx: TxId, table: usize) -> Result<(), Stuck> {
        let Some(key) = self.any_key(table) else { return Ok(()) };
        let Some(mut row) = self.db.row(tx, table, &key).cloned() else { return Ok(()) };
        match table {
            1 => row[1] = self.scope_value(),
            2 => row[2] = self.scope_value(),
            _ => return self.update(tx, table),
        }
        self.db.statement(tx, table, &[Op::Update(key, row)])?;
        self.fault("scope_move");
        Ok(())
    }

    fn change_key(&mut self, tx: TxId, table: usize) -> Result<(), Stuck> {
        let Some(key) = self.any_key(table) else { return Ok(()) };
        let Some(mut row) = self.db.row(tx, table, &key).cloned() else { return Ok(()) };
        let column = *self.db.schema.tables[table].table.key.last().unwrap_or(&0);
        row[column] = Some(self.fresh_key());
        self.db.statement(tx, table, &[Op::Update(key, row)])
    }

    /// a → c, b → a, c → b.
    fn swap_keys(&mut self, tx: TxId, table: usize) -> Result<(), Stuck> {
        let (Some(a), Some(b)) = (self.any_key(table), self.any_key(table)) else { return Ok(()) };
        if a == b {
            return Ok(());
        }
        let rows = (self.db.row(tx, table, &a).cloned(), self.db.row(tx, table, &b).cloned());
        let (Some(row_a), Some(row_b)) = rows else { return Ok(()) };
        let columns = self.db.schema.tables[table].table.key.clone();
        let under = |row: &Row, key: &Key| {
            let mut row = row.clone();
            columns.iter().zip(key).for_each(|(c, v)| row[*c] = Some(v.clone()));
            row
        };
        let mut c = a.clone();
        let last = c.len() - 1;
        c[last] = self.fresh_key();
        self.db.statement(tx, table, &[Op::Update(a.clone(), under(&row_a, &c))])?;
        self.db.statement(tx, table, &[Op::Update(b.clone(), under(&row_b, &a))])?;
        self.db.statement(tx, table, &[Op::Update(c, under(&row_a, &b))])?;
        self.fault("key_swap");
        Ok(())
    }

    /// Deletes and inserts one key.
    fn replace(&mut self, tx: TxId, table: usize) -> Result<(), Stuck> {
        let Some(key) = self.any_key(table) else { return Ok(()) };
        let Some(mut row) = self.db.row(tx, table, &key).cloned() else { return Ok(()) };
        self.db.statement(tx, table, &[Op::Delete(key)])?;
        let text = self.db.schema.tables[table].text;
        row[text] = Some(self.text_value());
        self.db.statement(tx, table, &[Op::Insert(row)])
    }

    /// Inserts and deletes one key, sometimes in and out of a scope on the way.
    fn come_and_go(&mut self, tx: TxId, table: usize) -> Result<(), Stuck> {
        let row = self.new_row(table);
        let key = self.db.schema.key_of(table, &row);
        self.db.statement(tx, table, &[Op::Insert(row)])?;
        self.db.statement(tx, table, &[Op::Delete(key)])
    }

    fn savepoint(&mut self, tx: TxId, table: usize) -> Result<(), Stuck> {
        self.db.savepoint(tx);
        let done = self.update(tx, table);
        if done.is_ok() && self.rng.one_in(2) {
            self.db.rollback_to(tx);
            self.fault("savepoint_rollback");
        }
        done
    }
}
