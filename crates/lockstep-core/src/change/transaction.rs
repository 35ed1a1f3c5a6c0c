//! Assembling a transaction from the stream's messages.

use super::part::Earlier;
use super::{NetChanges, Part, Relation, Tuple, Value};
use crate::catalog::{Catalog, Oid, Table};
use crate::limits::Bounds;
use crate::pgoutput::Message;
use crate::position::{Lsn, Xid, widen};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// The prefix of the message by which a transaction says that it changes the schema.
pub const SCHEMA_MESSAGE: &str = "lockstep.schema";

/// What happened to one row, or to a whole table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeKind {
    /// A new row.
    Insert(Tuple),
    /// A changed row. `old` is there if the key changed (key columns only) or the replica identity is FULL.
    Update {
        /// Old tuple, and whether it is complete.
        old: Option<(Tuple, bool)>,
        /// New tuple.
        new: Tuple,
    },
    /// A deleted row: its key columns, or all of it if the flag is true.
    Delete(Tuple, bool),
    /// All rows are gone.
    Truncate,
}

/// One operation of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Place in the transaction, from 0.
    pub index: u32,
    /// The relation it happened to.
    pub relation: Oid,
    /// What happened.
    pub kind: ChangeKind,
}

/// A committed transaction as the stream delivered it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    /// Top-level id.
    pub xid: Xid,
    /// Start of the commit record.
    pub commit_lsn: Lsn,
    /// End of the commit record.
    pub end_lsn: Lsn,
    /// Its operations in order; None if there were too many to hold.
    pub changes: Option<Vec<Change>>,
    /// Every relation it touched, and tables by the tombstones of an earlier log.
    pub touched: BTreeSet<Oid>,
    /// Bytes held.
    pub bytes: usize,
}

/// A transaction with its net effect, as the ring keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivered {
    /// The transaction.
    pub transaction: Transaction,
    /// Net effect by table; None if the rows are not held.
    pub net: Option<NetChanges>,
    /// It shows that the catalog is not what was read last.
    pub schema_changed: bool,
}

/// The stream did something that cannot be followed. The only answer is to reconnect and catch up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AssemblyError {
    /// A message came where it cannot.
    #[error("{0} outside a transaction, or a transaction inside one")]
    Order(&'static str),
    /// A row of a relation that was never announced.
    #[error("a row of relation {0}, which the stream has not described")]
    UnknownRelation(Oid),
    /// A tuple with another number of columns than its relation.
    #[error("a row of relation {0} with a wrong number of columns")]
    WrongWidth(Oid),
    /// Commit and Begin name different positions.
    #[error("commit at {0} of a transaction announced for {1}")]
    CommitMismatch(Lsn, Lsn),
    /// A message kind that was not asked for.
    #[error("unexpected message {0:?}")]
    Unexpected(char),
}

#[derive(Debug)]
struct Open {
    xid: Xid,
    commit_lsn: Lsn,
    changes: VecDeque<Change>,
    next_index: u32,
    touched: BTreeSet<Oid>,
    /// What its rows were described by; more than one if it changed the table itself.
    described: Vec<Arc<Relation>>,
    /// A relation that the catalog does not know so was described, or somebody said that the schema changes.
    schema_changed: bool,
    /// Of all its operations, and of those that are held.
    bytes: usize,
    held: usize,
    /// What its parts so far did; None while all of it is held.
    parts: Option<Earlier>,
}

/// Turns decoded messages into transactions. One per stream; thrown away with it.
#[derive(Debug)]
pub struct Assembler {
    relations: BTreeMap<Oid, Arc<Relation>>,
    open: Option<Open>,
    bounds: Bounds,
    ready: Option<Part>,
    /// A transaction had more keys than are remembered.
    forgot: bool,
}

impl Default for Assembler {
    fn default() -> Self {
        Self::new(&Bounds::default())
    }
}

impl Assembler {
    /// For a new stream. A transaction that is too large to be held is given out in parts: see [`Self::take_part`].
    pub fn new(bounds: &Bounds) -> Self {
        Self { relations: BTreeMap::new(), open: None, bounds: *bounds, ready: None, forgot: false }
    }

    /// To be asked for after each message. Before the commit, a part of the transaction; with a commit, the last one of a
    /// transaction that is not held.
    pub fn take_part(&mut self) -> Option<Part> {
        self.ready.take()
    }

    /// Whether a transaction had more keys than are remembered of its parts, since this was asked last.
    pub fn forgot(&mut self) -> bool {
        std::mem::take(&mut self.forgot)
    }

    /// Whether a transaction has begun and not ended.
    pub fn in_transaction(&self) -> bool {
        self.open.is_some()
    }

    /// Takes one message. `reference` is any recent 64-bit xid.
    pub fn handle(
        &mut self,
        message: Message,
        reference: Xid,
        catalog: &Catalog,
    ) -> Result<Option<Delivered>, AssemblyError> {
        match message {
            Message::Begin { final_lsn, xid } => {
                if self.open.is_some() {
                    return Err(AssemblyError::Order("BEGIN"));
                }
                self.open = Some(Open {
                    xid: widen(reference, xid),
                    commit_lsn: final_lsn,
                    changes: VecDeque::new(),
                    next_index: 0,
                    touched: BTreeSet::new(),
                    described: Vec::new(),
                    schema_changed: false,
                    bytes: 0,
                    held: 0,
                    parts: None,
                });
                Ok(None)
            }
            Message::Commit { commit_lsn, end_lsn } => self.commit(commit_lsn, end_lsn, catalog).map(Some),
            Message::Relation(relation) => {
                self.relation(relation, catalog);
                Ok(None)
            }
            Message::Insert { relation, new } => self.rows([(relation, ChangeKind::Insert(new))], catalog),
            Message::Update { relation, old, new } => {
                self.rows([(relation, ChangeKind::Update { old, new })], catalog)
            }
            Message::Delete { relation, old, full } => {
                self.rows([(relation, ChangeKind::Delete(old, full))], catalog)
            }
            Message::Truncate { relations } => {
                self.rows(relations.into_iter().map(|relation| (relation, ChangeKind::Truncate)), catalog)
            }
            Message::Logical { prefix, .. } => {
                if let Some(open) = self.open.as_mut().filter(|_| prefix == SCHEMA_MESSAGE) {
                    open.schema_changed = true;
                }
                Ok(None)
            }
            Message::Type | Message::Origin => Ok(None),
        }
    }

    fn relation(&mut self, relation: Relation, catalog: &Catalog) {
        let known = match catalog.table(relation.oid) {
            Some(table) => relation.fits(table),
            None => relation.oid == catalog.clients || catalog.by_tombstones(relation.oid).is_some(),
        };
        if let Some(open) = &mut self.open {
            open.schema_changed |= !known;
        }
        self.relations.insert(relation.oid, Arc::new(relation));
    }

    /// What one message says. It makes one part at most, of as many bytes as it brought at least: what is held does not
    /// grow, however large rows are.
    fn rows(
        &mut self,
        changes: impl IntoIterator<Item = (Oid, ChangeKind)>,
        catalog: &Catalog,
    ) -> Result<Option<Delivered>, AssemblyError> {
        let mut bytes = 0;
        for (relation, kind) in changes {
            bytes += self.push(relation, kind)?;
        }
        let most = self.bounds.part_bytes;
        if self.open.as_ref().is_some_and(|open| open.parts.is_some() && open.held >= most) {
            self.cut(most.max(bytes), catalog);
        }
        Ok(None)
    }

    /// Adds an operation; returns its bytes.
    fn push(&mut self, oid: Oid, kind: ChangeKind) -> Result<usize, AssemblyError> {
        let relation = self.relations.get(&oid).ok_or(AssemblyError::UnknownRelation(oid))?;
        let width = relation.columns.len();
        let relation = relation.clone();
        let open = self.open.as_mut().ok_or(AssemblyError::Order("a row"))?;
        let fits = match &kind {
            ChangeKind::Insert(new) => new.len() == width,
            ChangeKind::Update { old, new } => {
                new.len() == width && old.as_ref().is_none_or(|(old, _)| old.len() == width)
            }
            ChangeKind::Delete(old, _) => old.len() == width,
            ChangeKind::Truncate => true,
        };
        if !fits {
            return Err(AssemblyError::WrongWidth(oid));
        }
        let bytes = kind.size();
        open.bytes += bytes;
        open.touched.insert(oid);
        if !open.described.iter().any(|known| Arc::ptr_eq(known, &relation)) {
            open.described.push(relation);
        }
        let index = open.next_index;
        open.next_index += 1;
        if open.bytes > self.bounds.transaction_bytes {
            open.parts.get_or_insert_with(|| Earlier::new(self.bounds.part_keys));
        }
        open.held += bytes;
        open.changes.push_back(Change { index, relation: oid, kind });
        Ok(bytes)
    }

    /// Makes a part of the oldest operations that are held, of so many bytes.
    fn cut(&mut self, most: usize, catalog: &Catalog) {
        let Some(open) = &mut self.open else { return };
        let Some(earlier) = &mut open.parts else { return };
        let (mut part, mut bytes) = (Vec::new(), 0);
        while bytes < most
            && let Some(change) = open.changes.pop_front()
        {
            bytes += change.kind.size();
            part.push(change);
        }
        open.held = open.held.saturating_sub(bytes);
        let net = NetChanges::of_fitting(&part, catalog, &unfit(&open.described, catalog));
        let full = earlier.is_full();
        self.ready = Some(earlier.part(open.xid, net, catalog));
        self.forgot |= earlier.is_full() && !full;
    }

    fn commit(
        &mut self,
        commit_lsn: Lsn,
        end_lsn: Lsn,
        catalog: &Catalog,
    ) -> Result<Delivered, AssemblyError> {
        let open = self.open.as_ref().ok_or(AssemblyError::Order("COMMIT"))?;
        if open.commit_lsn != commit_lsn {
            return Err(AssemblyError::CommitMismatch(commit_lsn, open.commit_lsn));
        }
        if open.parts.is_some() {
            self.cut(usize::MAX, catalog);
        }
        let mut open = self.open.take().ok_or(AssemblyError::Order("COMMIT"))?;
        let unfit = unfit(&open.described, catalog);
        // Perhaps by the tombstones of a log that is no more.
        open.touched.extend(&unfit);
        let is_held = open.parts.is_none();
        let changes = is_held.then(|| Vec::from(open.changes));
        let net = changes.as_ref().map(|changes| NetChanges::of_fitting(changes, catalog, &unfit));
        let transaction = Transaction {
            xid: open.xid,
            commit_lsn,
            end_lsn,
            changes,
            touched: open.touched,
            bytes: if is_held { open.bytes } else { 0 },
        };
        Ok(Delivered { transaction, net, schema_changed: open.schema_changed || !unfit.is_empty() })
    }
}

impl ChangeKind {
    /// Bytes held, about.
    fn size(&self) -> usize {
        let size = |t: &Tuple| t.iter().map(Value::size).sum::<usize>();
        std::mem::size_of::<Change>()
            + match self {
                Self::Insert(new) => size(new),
                Self::Update { old, new } => size(new) + old.as_ref().map_or(0, |(old, _)| size(old)),
                Self::Delete(old, _) => size(old),
                Self::Truncate => 0,
            }
    }
}

/// Tables whose rows were described otherwise than the catalog does: it was read before them, or after. And those whose
/// tombstones are in a relation that the catalog does not know: their log was built anew.
fn unfit(described: &[Arc<Relation>], catalog: &Catalog) -> BTreeSet<Oid> {
    let table_of = |relation: &Relation| match catalog.table(relation.oid) {
        Some(table) => (!relation.fits(table)).then_some(table.oid),
        None if relation.schema == "lockstep" => {
            let log: i32 = relation.name.strip_prefix("tombstones_")?.parse().ok()?;
            let of_log = |t: &&Arc<Table>| t.log == log && t.tombstones != relation.oid;
            catalog.tables().find(of_log).map(|t| t.oid)
        }
        None => None,
    };
    described.iter().filter_map(|relation| table_of(relation)).collect()
}
