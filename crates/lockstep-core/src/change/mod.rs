//! Changes: values, tuples, relations, transactions and their net effect.

mod net;
mod relation;
mod transaction;
mod value;

pub use net::{Final, NetChanges, OldScope, TableNet};
pub use relation::{Relation, RelationColumn};
pub use transaction::{SCHEMA_MESSAGE, Assembler, AssemblyError, Change, ChangeKind, Delivered, Transaction};
pub use value::{Key, Text, Tuple, Value};
