//! How docs/protocol.md writes messages: JSON with names for what is told elsewhere, `or`, `?` behind what may be
//! absent, and `…` behind what may come again.

use serde_json::{Map, Value as Json, json};
use std::collections::BTreeMap;

/// What a message looks like.
#[derive(Debug, Clone)]
pub enum Notation {
    /// As it stands. Texts that are plainly examples (with a space, a slash, `…`, of digits) stand for any text.
    Literal(Json),
    /// Told elsewhere, or anything.
    Named(String),
    Either(Vec<Notation>),
    /// The last may come any number of times.
    List(Vec<Notation>, bool),
    /// Name, whether it may be absent, and its value. None of them: any names.
    Fields(Vec<(String, bool, Notation)>),
}

/// What names stand for.
pub type Names = BTreeMap<String, Notation>;

struct Reader<'t> {
    rest: &'t str,
}

/// Reads all of a text.
pub fn read(text: &str) -> Notation {
    let mut reader = Reader { rest: text };
    let read = reader.value();
    assert_eq!(reader.rest.trim(), "", "left over of {text}");
    read
}

impl Reader<'_> {
    fn eat(&mut self, token: &str) -> bool {
        self.rest = self.rest.trim_start();
        let eaten = self.rest.strip_prefix(token);
        self.rest = eaten.unwrap_or(self.rest);
        eaten.is_some()
    }

    fn value(&mut self) -> Notation {
        let mut all = vec![self.one()];
        while self.eat("or ") || self.eat("｜") {
            all.push(self.one());
        }
        if all.len() == 1 { all.remove(0) } else { Notation::Either(all) }
    }

    fn text(&mut self) -> String {
        let end = self.rest.find('"').unwrap_or_else(|| panic!("a text without end: {}", self.rest));
        let text = self.rest[..end].to_owned();
        self.rest = &self.rest[end + 1..];
        text
    }

    fn word(&mut self) -> String {
        let end = self.rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(self.rest.len());
        assert!(end > 0, "neither a value nor a name: {}", self.rest);
        let word = self.rest[..end].to_owned();
        self.rest = &self.rest[end..];
        word
    }

    fn one(&mut self) -> Notation {
        if self.eat("{") {
            return self.fields();
        }
        if self.eat("[") {
            return self.list();
        }
        if self.eat("\"") {
            return Notation::Literal(self.text().into());
        }
        let word = self.word();
        serde_json::from_str(&word).map_or(Notation::Named(word), Notation::Literal)
    }

    fn list(&mut self) -> Notation {
        let (mut items, mut again) = (Vec::new(), false);
        while !self.eat("]") {
            items.push(self.value());
            again |= self.eat("…");
            self.eat(",");
        }
        Notation::List(items, again)
    }

    fn fields(&mut self) -> Notation {
        let (mut fields, mut any) = (Vec::new(), false);
        while !self.eat("}") {
            let known = self.eat("\"");
            let name = if known { self.text() } else { self.word() };
            let optional = self.eat("?");
            let value = if self.eat(":") { self.value() } else { Notation::Named("anything".into()) };
            self.eat("…");
            self.eat(",");
            any |= !known;
            fields.push((name, optional, value));
        }
        if any { Notation::Named("anything".into()) } else { Notation::Fields(fields) }
    }
}

/// Every choice of one of each.
fn choices(of: impl Iterator<Item = Vec<Json>>) -> Vec<Vec<Json>> {
    of.fold(vec![Vec::new()], |all, more| {
        let with = |chosen: &Vec<Json>| {
            more.iter().map(|one| [&chosen[..], std::slice::from_ref(one)].concat()).collect::<Vec<_>>()
        };
        all.iter().flat_map(with).collect()
    })
}

impl Notation {
    /// All messages that it names, each repetition once; names that are told nowhere are texts of their own.
    pub fn examples(&self, names: &Names) -> Vec<Json> {
        match self {
            Self::Literal(json) => vec![json.clone()],
            Self::Named(name) => match names.get(name) {
                Some(told) => told.examples(names),
                None => vec![name.as_str().into()],
            },
            Self::Either(all) => all.iter().flat_map(|one| one.examples(names)).collect(),
            Self::List(items, _) => {
                choices(items.iter().map(|item| item.examples(names))).into_iter().map(Json::from).collect()
            }
            Self::Fields(fields) => choices(fields.iter().map(|(_, _, value)| value.examples(names)))
                .into_iter()
                .map(|values| {
                    let named = fields.iter().map(|(name, ..)| name.clone()).zip(values);
                    Json::Object(named.collect::<Map<_, _>>())
                })
                .collect(),
        }
    }

    /// Whether a message is one of these: all fields that must be there, and none that is not named.
    pub fn is(&self, message: &Json, names: &Names) -> bool {
        match self {
            Self::Literal(Json::String(text)) => {
                let example = text.contains([' ', '/', '…']) || text.chars().all(|c| c.is_ascii_digit());
                if example && !text.is_empty() { message.is_string() } else { message == text }
            }
            Self::Literal(json) => message == json,
            Self::Named(name) => match (names.get(name), name.as_str()) {
                (Some(told), _) => told.is(message, names),
                (None, "text" | "reason" | "name") => message.is_string(),
                (None, "milliseconds" | "index") => message.is_u64(),
                (None, "ROW" | "KEY") => message.is_array(),
                (None, _) => true,
            },
            Self::Either(all) => all.iter().any(|one| one.is(message, names)),
            Self::List(items, again) => message.as_array().is_some_and(|list| {
                let last = items.last().filter(|_| *again);
                let enough = if *again { list.len() + 1 >= items.len() } else { list.len() == items.len() };
                enough
                    && list
                        .iter()
                        .enumerate()
                        .all(|(nth, one)| items.get(nth).or(last).is_some_and(|i| i.is(one, names)))
            }),
            Self::Fields(fields) => message.as_object().is_some_and(|object| {
                let known = object.keys().all(|key| fields.iter().any(|(name, ..)| name == key));
                known
                    && fields.iter().all(|(name, optional, value)| match object.get(name) {
                        // Which code and which sentence it is depends on what was asked.
                        Some(found) if name == "code" || name == "message" => found.is_string(),
                        Some(found) => value.is(found, names),
                        None => *optional,
                    })
            }),
        }
    }
}

#[test]
fn what_is_written_is_what_is_meant() {
    let names = Names::from([("KIND".to_owned(), read(r#""a" or null"#))]);
    let notation = read(r#"{"k": KIND, "more"?: [index…], "fixed": ["x", 1]}"#);
    assert!(notation.is(&json!({"k": null, "fixed": ["x", 1]}), &names));
    assert!(notation.is(&json!({"k": "a", "more": [1, 2], "fixed": ["x", 1]}), &names));
    for wrong in [
        json!({"k": "b", "fixed": ["x", 1]}),
        json!({"k": "a"}),
        json!({"k": "a", "fixed": ["x", 1], "other": 1}),
        json!({"k": "a", "fixed": ["x"]}),
        json!({"k": "a", "more": ["1"], "fixed": ["x", 1]}),
    ] {
        assert!(!notation.is(&wrong, &names), "{wrong}");
    }
    let kinds = read(r#"[KIND, ref]"#).examples(&names);
    assert_eq!(kinds, [json!(["a", "ref"]), json!([null, "ref"])]);
}
