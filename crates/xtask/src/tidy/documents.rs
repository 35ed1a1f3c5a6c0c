//! Checks of documents: they say what is so.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use super::Texts;
use crate::workspace;

const ARCHITECTURE: &str = "ARCHITECTURE.md";

/// `docs/decisions/NNNN-title.md`, each number once.
pub fn decisions(texts: &Texts) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut seen: BTreeMap<String, String> = BTreeMap::new();
    for (path, _) in texts.ending(&["md"]) {
        let Some(name) = path.strip_prefix("docs/decisions/").filter(|name| *name != "README.md") else {
            continue;
        };
        let digits: String = name.chars().take_while(char::is_ascii_digit).collect();
        if digits.len() != 4 || !name[4..].starts_with('-') {
            complaints.push(format!("{path}: call it NNNN-title.md"));
        } else if let Some(other) = seen.insert(digits, path.clone()) {
            complaints.push(format!("{path} has the number of {other}"));
        }
    }
    complaints
}

/// In the tables of ARCHITECTURE.md whose last column is called a test, that column names one that exists, as
/// `path::test_name`.
pub fn invariants(texts: &Texts) -> Vec<String> {
    let Some(document) = texts.get(ARCHITECTURE) else { return vec![format!("{ARCHITECTURE} is not here")] };
    let mut complaints = Vec::new();
    let mut named = 0;
    // None outside a table; in one, whether its first row said that the last column names tests.
    let mut names_tests = None;
    for (number, line) in document.lines().enumerate() {
        let Some(cell) = last_cell(line) else {
            names_tests = None;
            continue;
        };
        let is_header = names_tests.is_none();
        if !*names_tests.get_or_insert_with(|| is_test_header(cell)) || is_header {
            continue;
        }
        if cell.chars().all(|c| matches!(c, '-' | ':' | ' ')) {
            continue;
        }
        named += 1;
        for reference in references(cell) {
            if let Err(why) = find_test(texts, &reference) {
                complaints.push(format!("{ARCHITECTURE}:{}: {why}", number + 1));
            }
        }
    }
    if named == 0 {
        complaints.push(format!("{ARCHITECTURE} has no table whose last column is `Test`"));
    }
    complaints
}

fn last_cell(line: &str) -> Option<&str> {
    let inner = line.trim().strip_prefix('|')?.strip_suffix('|')?;
    inner.rsplit('|').next().map(str::trim)
}

fn is_test_header(cell: &str) -> bool {
    let cell = cell.to_lowercase();
    cell.contains("test") && !cell.contains("::") || cell == "guarded by"
}

/// The parts of a cell in backticks; a cell without any is itself one, and will not be found.
fn references(cell: &str) -> Vec<String> {
    let quoted: Vec<String> = cell.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    if quoted.is_empty() { vec![cell.to_owned()] } else { quoted }
}

fn find_test(texts: &Texts, reference: &str) -> Result<(), String> {
    let Some((path, test)) = reference.split_once("::") else {
        return Err(format!("`{reference}` is not of the form path::test_name"));
    };
    let Some(text) = texts.get(path) else { return Err(format!("`{reference}`: there is no file {path}")) };
    let name = test.rsplit("::").next().unwrap_or(test);
    let exists =
        if path.ends_with(".rs") { text.contains(&format!("fn {name}(")) } else { text.contains(test) };
    if exists { Ok(()) } else { Err(format!("`{reference}`: {path} has no such test")) }
}

/// Links of documents to other files of the repository.
pub fn links(texts: &Texts) -> Vec<String> {
    let mut complaints = Vec::new();
    for (path, text) in texts.ending(&["md"]) {
        let folder = Path::new(&path).parent().unwrap_or(Path::new(""));
        for target in targets(text) {
            let file = target.split('#').next().unwrap_or_default();
            let is_elsewhere = target.contains("://") || target.starts_with("mailto:");
            if file.is_empty() || is_elsewhere {
                continue;
            }
            if !workspace::root().join(flattened(&folder.join(file))).exists() {
                complaints.push(format!("{path}: the link to {target} leads nowhere"));
            }
        }
    }
    complaints
}

/// What stands in `](…)`, outside of code.
fn targets(text: &str) -> Vec<&str> {
    let mut in_code = false;
    let mut found = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        } else if !in_code {
            found.extend(line.split("](").skip(1).filter_map(|rest| rest.split(')').next()));
        }
    }
    found
}

/// The path without `..`, so that it does not matter whether the folders on the way exist.
fn flattened(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut flat, component| {
        match component {
            Component::ParentDir => {
                flat.pop();
            }
            Component::Normal(name) => flat.push(name),
            _ => {}
        }
        flat
    })
}

#[cfg(test)]
mod tests {
    use super::super::Texts;
    use super::{decisions, invariants, targets};

    fn texts(files: &[(&str, &str)]) -> Texts {
        Texts(files.iter().map(|(path, text)| ((*path).into(), (*text).into())).collect())
    }

    #[test]
    fn decisions_need_a_number_of_their_own() {
        let names =
            ["docs/decisions/0001-a.md", "docs/decisions/0001-b.md", "docs/decisions/x.md", "docs/x.md"];
        assert_eq!(decisions(&texts(&names.map(|name| (name, "")))).len(), 2);
    }

    #[test]
    fn invariants_need_a_test_that_exists() {
        let table = "| Never | Test |\n|---|---|\n| loses | `a.rs::tests::keeps` |\n| lies | `a.rs::honest` |\n| x | soon |\n";
        let files = [("ARCHITECTURE.md", table), ("a.rs", "fn keeps() {}")];
        let complaints = invariants(&texts(&files));
        assert_eq!(complaints.len(), 2, "{complaints:?}");
        assert!(complaints[0].starts_with("ARCHITECTURE.md:4:"));
        assert_eq!(invariants(&texts(&[])).len(), 1);
    }

    #[test]
    fn links_in_code_are_not_links() {
        assert_eq!(targets("see [a](b.md) and [c](d#e)\n```\n[x](y)\n```\n"), ["b.md", "d#e"]);
    }
}
