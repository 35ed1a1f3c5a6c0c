//! Values as PostgreSQL prints them.

use smallvec::SmallVec;
use std::sync::Arc;

/// The text of a value; shared, since keys and rows hold the same ones.
pub type Text = Arc<str>;

/// One column of one row.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Value {
    /// SQL NULL.
    Null,
    /// A large value that this update did not touch and the stream does not repeat. Never NULL.
    Unchanged,
    /// The text.
    Text(Text),
}

impl Value {
    /// The text, if there is one.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(t) => Some(t),
            Self::Null | Self::Unchanged => None,
        }
    }

    /// Bytes held, about.
    pub fn size(&self) -> usize {
        std::mem::size_of::<Self>() + self.text().map_or(0, |t| t.len() + 16)
    }
}

/// One row, in the order of a relation's columns.
pub type Tuple = Vec<Value>;

/// A primary key's values, in the key's order. Nearly every key is one value, which then lies in the key itself: looking for
/// one of a million compares twenty.
pub type Key = SmallVec<[Text; 1]>;
