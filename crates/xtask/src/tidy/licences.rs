//! Licences of npm packages, by the list that `cargo deny` goes by.

use serde_json::Value;

use super::Texts;

const LIST: &str = "deny.toml";

/// What `[licenses]` in deny.toml allows.
fn allowed(texts: &Texts) -> Vec<&str> {
    let list = texts.get(LIST).and_then(|text| text.split("\nallow = [").nth(1));
    let list = list.and_then(|text| text.split(']').next()).unwrap_or_default();
    list.split('"').skip(1).step_by(2).collect()
}

/// Whether an SPDX expression leaves a choice that is on the list; one with `AND` has to be looked at by a person.
fn is_allowed(expression: &str, allowed: &[&str]) -> bool {
    let plain = expression.trim_start_matches('(').trim_end_matches(')');
    plain.split(" OR ").any(|one| allowed.contains(&one.trim()))
}

/// Every package that any `package-lock.json` names.
pub fn npm(texts: &Texts) -> Vec<String> {
    let allowed = allowed(texts);
    let mut complaints = Vec::new();
    for (path, text) in texts.ending(&["json"]).filter(|(path, _)| path.ends_with("package-lock.json")) {
        let Ok(lock) = serde_json::from_str::<Value>(text) else {
            complaints.push(format!("{path} cannot be read"));
            continue;
        };
        let packages = lock["packages"].as_object().into_iter().flatten();
        // what is not below node_modules, or a link to it, is ours
        for (name, package) in packages.filter(|(name, package)| {
            name.contains("node_modules/") && !package["link"].as_bool().unwrap_or(false)
        }) {
            let licence = package["license"].as_str().unwrap_or("no licence that it names");
            if !is_allowed(licence, &allowed) {
                complaints.push(format!("{path}: {name} is under {licence}, which {LIST} does not have"));
            }
        }
    }
    complaints
}

#[cfg(test)]
mod tests {
    use super::super::Texts;
    use super::npm;

    #[test]
    fn what_is_not_on_the_list_is_named() {
        let lock = r#"{"packages": {
            "": {"name": "ours"},
            "node_modules/ours": {"link": true, "resolved": "packages/ours"},
            "node_modules/fine": {"license": "MIT"},
            "node_modules/choice": {"license": "(GPL-3.0 OR ISC)"},
            "node_modules/weak": {"license": "MPL-2.0"},
            "node_modules/both": {"license": "MIT AND MPL-2.0"},
            "node_modules/silent/node_modules/unknown": {}
        }}"#;
        let list = "[licenses]\nallow = [\n  \"ISC\",\n  \"MIT\",\n]\n";
        let files = [("deny.toml", list), ("a/package-lock.json", lock)];
        let texts = Texts(files.iter().map(|(path, text)| ((*path).into(), (*text).into())).collect());
        let complaints = npm(&texts);
        assert_eq!(complaints.len(), 3, "{complaints:?}");
        for name in ["weak", "both", "unknown"] {
            assert!(complaints.iter().any(|one| one.contains(name)), "{name} is not in {complaints:?}");
        }
    }
}
