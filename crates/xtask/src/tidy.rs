//! `cargo x tidy`: what compilers do not check. Each check returns its complaints, one line each.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::workspace;

mod documents;
mod licences;
mod sources;

/// One check: its name, and what it has to complain about.
pub type Checked = (&'static str, Vec<String>);

/// The files of the clone with their texts; what is not text is left out.
pub struct Texts(Vec<(PathBuf, String)>);

impl Texts {
    fn read() -> Result<Texts> {
        let mut texts = Vec::new();
        for file in workspace::files()? {
            let path = workspace::root().join(&file);
            if !path.is_file() {
                continue;
            }
            let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            if let Ok(text) = String::from_utf8(bytes)
                && !text.contains('\0')
            {
                texts.push((file, text));
            }
        }
        Ok(Texts(texts))
    }

    /// Files with one of these endings.
    fn ending<'a>(&'a self, endings: &'a [&str]) -> impl Iterator<Item = (String, &'a str)> + 'a {
        let ends = |path: &str| endings.iter().any(|ending| path.ends_with(&format!(".{ending}")));
        self.all().filter(move |(path, _)| ends(path))
    }

    fn all(&self) -> impl Iterator<Item = (String, &str)> {
        self.0.iter().map(|(path, text)| (path.to_string_lossy().into_owned(), text.as_str()))
    }

    fn get(&self, path: &str) -> Option<&str> {
        self.0.iter().find(|(file, _)| file.as_os_str() == path).map(|(_, text)| text.as_str())
    }
}

/// All checks, done.
pub fn all() -> Result<Vec<Checked>> {
    let texts = Texts::read()?;
    Ok(vec![
        ("files are short", sources::short(&texts)),
        ("Rust files say what they are", sources::documented(&texts)),
        ("no word that does not belong here", sources::words(&texts)),
        ("the core decides and does nothing else", sources::pure_core(&texts)),
        ("lock files are here and name no host", sources::lock_files(&texts)),
        ("npm packages are under permissive licences", licences::npm(&texts)),
        ("decisions are numbered", documents::decisions(&texts)),
        ("every invariant names its test", documents::invariants(&texts)),
        ("links lead somewhere", documents::links(&texts)),
    ])
}

/// `cargo x tidy`.
pub fn run() -> Result<ExitCode> {
    let checked = all()?;
    for (name, complaints) in &checked {
        println!("{} {name}", if complaints.is_empty() { "ok    " } else { "FAILED" });
        for complaint in complaints {
            println!("         {complaint}");
        }
    }
    let failed = checked.iter().any(|(_, complaints)| !complaints.is_empty());
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
