//! Traces: what one client did and heard, and what it holds after each step. The format is in `vectors/README.md`.

mod play;
mod record;
mod script;
mod search;

pub use play::play;
pub use record::Recorder;
pub use script::scripts;
pub use search::search;

use serde_json::{Value as Json, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// One client's story.
#[derive(Debug, Clone, PartialEq)]
pub struct Trace {
    /// Of its file.
    pub name: String,
    /// Where it comes from, in words.
    pub from: String,
    /// What happens in it.
    pub covers: BTreeSet<String>,
    /// What was done and heard, with the states between.
    pub events: Vec<Json>,
}

impl Trace {
    /// The file: one event a line, so that a change of it can be read.
    pub fn text(&self) -> String {
        let head = json!({"format": 1, "from": self.from, "covers": self.covers}).to_string();
        let events: Vec<String> = self.events.iter().map(ToString::to_string).collect();
        format!("{},\"events\":[\n{}\n]}}\n", head.strip_suffix('}').unwrap_or(&head), events.join(",\n"))
    }

    /// Writes the file.
    pub fn write(&self, directory: &Path) -> std::io::Result<PathBuf> {
        let path = directory.join(format!("{}.json", self.name));
        std::fs::write(&path, self.text())?;
        Ok(path)
    }

    /// Reads what [`Trace::text`] wrote.
    pub fn read(name: &str, text: &str) -> Result<Self, serde_json::Error> {
        let mut file: Json = serde_json::from_str(text)?;
        let covers = serde_json::from_value(file["covers"].take())?;
        let events = serde_json::from_value(file["events"].take())?;
        Ok(Self { name: name.into(), from: file["from"].as_str().unwrap_or_default().into(), covers, events })
    }
}
