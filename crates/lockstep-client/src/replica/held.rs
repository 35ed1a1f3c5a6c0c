//! One shape's rows.

use super::{Row, key_text};
use serde_json::Value as Json;
use std::collections::BTreeMap;

/// A shape as the node described it, with its rows by the text of their key.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Held {
    pub(crate) reference: String,
    pub(super) fingerprint: String,
    pub(crate) columns: Vec<String>,
    /// How the values of each column travel.
    pub(crate) wires: Vec<String>,
    pub(crate) key: Vec<usize>,
    pub(crate) rows: BTreeMap<String, Vec<Json>>,
    /// The sum of [`row_digest`] over `rows`.
    pub(super) digest: u64,
}

/// A number for a row, from the JSON text of its values. Sums of it tell sets of rows apart without comparing them.
pub fn row_digest(text: &str) -> u64 {
    let fold = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let mut hash = text.bytes().fold(0xcbf2_9ce4_8422_2325, fold);
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

fn digest_of(row: &Vec<Json>) -> u64 {
    serde_json::to_string(row).map_or(0, |text| row_digest(&text))
}

impl Held {
    /// Its rows by the text of their key.
    pub(super) fn named(&self) -> BTreeMap<String, Row> {
        let named = |row: &Vec<Json>| self.columns.iter().cloned().zip(row.iter().cloned()).collect();
        self.rows.iter().map(|(key, row)| (key.clone(), named(row))).collect()
    }

    pub(super) fn clear(&mut self) {
        self.rows.clear();
        self.digest = 0;
    }

    pub(super) fn put(&mut self, row: Vec<Json>) {
        self.digest = self.digest.wrapping_add(digest_of(&row));
        if let Some(before) = self.rows.insert(key_text(&self.key, &row), row) {
            self.digest = self.digest.wrapping_sub(digest_of(&before));
        }
    }

    /// The columns are others: each value goes to where its column is now, and `fill` has those of new columns.
    pub(super) fn move_to(&mut self, columns: Vec<String>, fill: &Json) {
        let rows = std::mem::take(&mut self.rows);
        self.digest = 0;
        let from: Vec<_> = columns.iter().map(|c| self.columns.iter().position(|b| b == c)).collect();
        for row in rows.into_values() {
            let value = |(name, from): (&String, &Option<usize>)| match from {
                Some(at) => row[*at].clone(),
                None => fill[name.as_str()].clone(),
            };
            self.put(columns.iter().zip(&from).map(value).collect());
        }
        self.columns = columns;
    }

    pub(super) fn remove(&mut self, key: &str) {
        if let Some(before) = self.rows.remove(key) {
            self.digest = self.digest.wrapping_sub(digest_of(&before));
        }
    }
}
