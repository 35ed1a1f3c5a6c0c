//! The tests and type checks of the npm packages.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::report::Part;
use super::{check_command, npm};
use crate::{child, setup, workspace};

/// Scripts of a package that count as one check each.
const CHECKS: [&str; 2] = ["typecheck", "check"];

/// Every package under `packages` and `apps`: its `test` script is vitest, its checks count as one each.
pub fn run(part: &mut Part) -> Result<()> {
    setup::web_app()?;
    for folder in packages()? {
        let manifest = workspace::root().join(&folder).join("package.json");
        let manifest: Value = serde_json::from_str(&fs::read_to_string(&manifest)?)
            .with_context(|| format!("cannot read {}", manifest.display()))?;
        let name = folder.to_string_lossy();
        for script in CHECKS.iter().filter(|script| manifest["scripts"][script].is_string()) {
            let command = npm(&["run", script, "--workspace", &name]);
            check_command(part, &format!("{name} {script}"), command)?;
        }
        if manifest["scripts"]["test"].is_string() {
            vitest(part, &name)?;
        }
    }
    Ok(())
}

fn packages() -> Result<Vec<PathBuf>> {
    let tracked = workspace::files()?;
    let is_package = |file: &&PathBuf| {
        let mut parts = file.iter();
        let above = parts.next().is_some_and(|first| first == "packages" || first == "apps");
        above && parts.nth(1).is_some_and(|name| name == "package.json") && parts.next().is_none()
    };
    let found: Vec<PathBuf> =
        tracked.iter().filter(is_package).filter_map(|f| f.parent()).map(Path::to_path_buf).collect();
    if found.is_empty() {
        bail!("this clone has no packages/client and no apps/todo");
    }
    Ok(found)
}

fn vitest(part: &mut Part, package: &str) -> Result<()> {
    let name = format!("vitest-{}", package.replace('/', "-"));
    let results = workspace::log(&name)?.with_extension("json");
    if results.exists() {
        fs::remove_file(&results)?;
    }
    let output = format!("--outputFile.json={}", results.display());
    let command =
        npm(&["test", "--workspace", package, "--", "--reporter=default", "--reporter=json", &output]);
    let ended = child::run(command, &name)?;
    let Ok(text) = fs::read_to_string(&results) else {
        part.fail(&format!("{package}: vitest ended with {} and no results", ended.status), &ended.text());
        return Ok(());
    };
    let before = part.failed();
    count(part, &serde_json::from_str(&text).context("vitest's results cannot be read")?);
    if !ended.status.success() && part.failed() == before {
        part.fail(&format!("{package}: vitest ended with {}", ended.status), &ended.text());
    }
    Ok(())
}

fn count(part: &mut Part, results: &Value) {
    for file in results["testResults"].as_array().into_iter().flatten() {
        let tests = file["assertionResults"].as_array().map(Vec::as_slice).unwrap_or_default();
        for test in tests {
            let name = test["fullName"].as_str().unwrap_or("a test without a name");
            match test["status"].as_str() {
                Some("passed") => part.add(1, 0),
                Some("failed") => part.fail(name, &messages(&test["failureMessages"])),
                _ => part.skip(name),
            }
        }
        if tests.is_empty() && file["status"] == "failed" {
            let name = file["name"].as_str().unwrap_or("a file without a name");
            part.fail(name, file["message"].as_str().unwrap_or_default());
        }
    }
}

fn messages(list: &Value) -> String {
    let lines: Vec<&str> = list.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    lines.join("\n")
}
