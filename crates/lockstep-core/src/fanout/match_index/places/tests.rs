//! Places against an ordered map.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
use super::*;
use crate::catalog::{Catalog, Column, Table};
use crate::change::Value;
use proptest::prelude::*;
use std::collections::BTreeSet;

fn shapes(places: &Places, tag: Tag) -> BTreeSet<ShapeIndex> {
    let (mut probes, mut found) = (Vec::new(), BTreeSet::new());
    places.probe(std::iter::once(tag), &mut probes);
    places.find(probes[0], |one| match one {
        Found::Shape(index, _) => assert!(found.insert(index), "twice"),
        // Each of them passes this row; a shape may be named more than once there.
        Found::Filters(filters) => {
            let row = vec![Value::Text("7".into()), Value::Text("a text".into())];
            let mut among = BTreeSet::new();
            filters.find(&table(), &row, &mut |index| {
                among.insert(index);
            });
            assert!(!among.is_empty() && among.is_disjoint(&found), "{among:?} and {found:?}");
            found.extend(among);
        }
    });
    found
}

fn table() -> Table {
    let column =
        |name: &str, attnum, type_oid| Column { name: name.into(), attnum, type_oid, ..Column::default() };
    let columns = vec![column("id", 1, 23), column("body", 2, 25)];
    Table { oid: 1, schema: "public".into(), name: "t".into(), columns, key: vec![0], ..Table::default() }
}

/// Shapes that ask for more than values: one by a range, one by a piece of text, one by neither.
fn filtered() -> BTreeMap<ShapeIndex, Shape> {
    let catalog = Catalog::new(vec![table()], 9, String::new());
    let shape = |(index, asked): (ShapeIndex, &str)| {
        let request = serde_json::json!({"ref": "s", "table": "t", "where": asked});
        (index, Shape::resolve(&serde_json::from_value(request).unwrap(), &catalog).unwrap())
    };
    [(5, "id > 1"), (6, "body like '%text%'"), (7, "id <> 8 or body is null")].map(shape).into()
}

proptest! {
    /// Against an ordered map: after every insertion and removal the same shapes are found everywhere. Tags crowd in
    /// one line, wrap around, and differ in their low bits only. Shapes that ask for more share the others' rooms.
    #[test]
    fn finds_what_a_map_finds(steps in proptest::collection::vec((any::<bool>(), 0u64..3, 0u32..3, 0u32..9), 0..200)) {
        let (mut places, filtered) = (Places::default(), filtered());
        let mut naive: BTreeMap<(u64, u32), BTreeSet<u32>> = BTreeMap::new();
        let tag = |place: u64, low: u32| Tag { high: (u64::MAX / 2 * place).wrapping_sub(place / 2), low };
        for (add, place, low, shape) in steps {
            // Some are too great to have a room of their own.
            let shape = if shape == 8 { u32::MAX } else { shape };
            let of = naive.entry((place, low)).or_default();
            let more = filtered.get(&shape);
            if more.is_some() && of.contains(&shape) == add {
                // These come and go once.
                continue;
            }
            if add {
                of.insert(shape);
                places.insert(tag(place, low), shape, Member::Plain, more);
            } else {
                of.remove(&shape);
                places.remove(tag(place, low), shape, more);
            }
            for place in 0..3 {
                for low in 0..3 {
                    let wanted = naive.get(&(place, low)).cloned().unwrap_or_default();
                    prop_assert_eq!(shapes(&places, tag(place, low)), wanted);
                }
            }
        }
        for ((place, low), of) in naive {
            of.into_iter().for_each(|shape| places.remove(tag(place, low), shape, filtered.get(&shape)));
        }
        prop_assert_eq!((places.taken, places.free.len()), (0, places.several.len()));
    }
}

/// Many come and go: what was left is used again, and everything is found where it lies behind its own line.
#[test]
fn many_are_found_each_by_its_own_values() {
    let (mut keys, mut places) = (Keys::default(), Places::default());
    let groups = [keys.group([0].into()), keys.group([0, 1].into())];
    let values = |nth: u32, group: &Group| -> Vec<Text> {
        group.columns.iter().map(|column| (nth + *column as u32).to_string().into()).collect()
    };
    for round in 0..3 {
        for (number, group) in (0..).zip(&groups) {
            (0..20_000).for_each(|nth| {
                places.insert(keys.tag(group, &values(nth, group)), nth * 2 + number, Member::Equal, None);
            });
        }
        for (number, group) in (0..).zip(&groups) {
            for nth in 0..20_000 {
                let found = shapes(&places, keys.tag(group, &values(nth, group)));
                assert_eq!(found, BTreeSet::from([nth * 2 + number]), "in round {round}");
                places.remove(keys.tag(group, &values(nth, group)), nth * 2 + number, None);
            }
            assert_eq!(shapes(&places, keys.tag(group, &values(7, group))), BTreeSet::new());
        }
    }
    assert!(places.lines.len() * ROOMS < 160_000, "{} lines", places.lines.len());
}

#[test]
fn boundaries_and_columns_count() {
    let mut keys = Keys::default();
    let tag = |group: &Group, values: &[&str], keys: &Keys| {
        keys.tag(group, &values.iter().map(|v| Text::from(*v)).collect::<Vec<_>>())
    };
    let (one, two) = (keys.group([0, 1].into()), keys.group([0, 1].into()));
    let tags = [
        tag(&one, &["ab", "c"], &keys),
        tag(&one, &["a", "bc"], &keys),
        tag(&one, &["c", "ab"], &keys),
        tag(&two, &["ab", "c"], &keys),
    ];
    for (nth, one) in tags.iter().enumerate() {
        assert!(tags[..nth].iter().all(|other| other != one));
    }
    assert_eq!(tags[0], tag(&one, &["ab", "c"], &keys));
}

#[test]
fn four_rooms_are_one_line_of_the_cache() {
    assert_eq!(size_of::<Line>(), 64);
}
