//! Changes: values, tuples, relations, transactions and their net effect.

mod net;
mod part;
mod relation;
mod transaction;
mod value;

pub use net::{Final, KeyNet, NetChanges, OldScope, TableNet};
pub use part::Part;
pub use relation::{Relation, RelationColumn};
pub use transaction::{Assembler, AssemblyError, Change, ChangeKind, Delivered, SCHEMA_MESSAGE, Transaction};
pub use value::{Key, Text, Tuple, Value};
