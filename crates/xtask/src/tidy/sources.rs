//! Checks of source files.

use super::Texts;

const MAX_LINES: usize = 500;

/// Words that must not be committed, taken apart so that this file does not contain them.
const BANNED: [(&str, &str); 8] = [
    (concat!("/wo", "rk/"), "a path of somebody's machine"),
    (concat!("/ho", "me/"), "a path of somebody's machine"),
    (concat!("FIX", "ME"), "fix it, or write down in the documents what is missing"),
    (concat!("to", "do!("), "write it, or return an error that says that it is missing"),
    (concat!("registry.npm", "js.org"), "a registry's host: which one is used is the machine's business"),
    (concat!("static.crates", ".io"), "a registry's host: which one is used is the machine's business"),
    (concat!("index.crates", ".io"), "a registry's host: which one is used is the machine's business"),
    (concat!("files.python", "hosted.org"), "a registry's host: which one is used is the machine's business"),
];

/// As a word of its own: temporary files are made from templates that end in many of this letter.
const BANNED_WORD: &str = concat!("XX", "X");

/// What a crate that must not touch the outside world cannot contain.
const IMPURE: [&str; 7] = [
    "std::time::SystemTime",
    "Instant::now",
    "SystemTime::now",
    "std::env",
    "std::fs",
    "std::net",
    "std::thread",
];
const IMPURE_CRATES: [&str; 4] = ["tokio", "rand", "tracing", "tokio-postgres"];

/// No source file is longer than a person reads in one go. Functions are clippy's.
pub fn short(texts: &Texts) -> Vec<String> {
    let counted =
        texts.ending(&["rs", "ts", "svelte", "sql", "mjs"]).map(|(path, text)| (path, text.lines().count()));
    let long = counted.filter(|(_, lines)| *lines > MAX_LINES);
    long.map(|(path, lines)| {
        format!("{path} has {lines} lines, more than {MAX_LINES}: split it by what it does")
    })
    .collect()
}

/// Each Rust file begins by saying what it is for.
pub fn documented(texts: &Texts) -> Vec<String> {
    let silent = texts.ending(&["rs"]).filter(|(_, text)| !text.starts_with("//!"));
    silent.map(|(path, _)| format!("{path} does not begin with `//!` and what it is for")).collect()
}

/// Nothing that belongs to one machine or one moment.
pub fn words(texts: &Texts) -> Vec<String> {
    let mut complaints = Vec::new();
    // cargo writes the name of the registry's index into its lock file, the same one everywhere.
    for (path, text) in texts.all().filter(|(path, _)| path != "Cargo.lock") {
        for (number, line) in text.lines().enumerate() {
            for (word, advice) in BANNED.iter().filter(|(word, _)| line.contains(word)) {
                complaints.push(format!("{path}:{}: `{word}`: {advice}", number + 1));
            }
            if has_word(line, BANNED_WORD) {
                complaints
                    .push(format!("{path}:{}: `{BANNED_WORD}`: say what is wrong, or mend it", number + 1));
            }
        }
    }
    complaints
}

fn has_word(line: &str, word: &str) -> bool {
    line.split(|c: char| !c.is_alphanumeric()).any(|found| found == word)
}

/// The core has no clock, no randomness, no environment and no files, so its behaviour follows from its inputs.
pub fn pure_core(texts: &Texts) -> Vec<String> {
    let mut complaints = Vec::new();
    let manifest = texts.get("crates/lockstep-core/Cargo.toml").unwrap_or_default();
    let needed = manifest.split("[dev-dependencies]").next().unwrap_or_default();
    for line in needed.lines() {
        let name = line.split(['.', '=', ' ']).next().unwrap_or_default();
        if IMPURE_CRATES.contains(&name) {
            complaints.push(format!("crates/lockstep-core/Cargo.toml: {name} does not belong into the core"));
        }
    }
    for (path, text) in
        texts.ending(&["rs"]).filter(|(path, _)| path.starts_with("crates/lockstep-core/src/"))
    {
        for (number, line) in
            text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"))
        {
            for word in IMPURE.iter().filter(|word| line.contains(*word)) {
                complaints.push(format!("{path}:{}: `{word}`: pass it in as an argument", number + 1));
            }
        }
    }
    complaints
}

/// Builds are repeatable, and from whichever registry a machine uses.
pub fn lock_files(texts: &Texts) -> Vec<String> {
    let mut complaints = Vec::new();
    for path in ["Cargo.lock", "package-lock.json"] {
        if texts.get(path).is_none() {
            complaints.push(format!("{path} is not committed"));
        }
    }
    for (path, text) in texts.ending(&["json"]).filter(|(path, _)| path.ends_with("package-lock.json")) {
        // Links to packages of this repository have the field too, with a path.
        let named = text.lines().filter(|line| line.contains("\"resolved\"") && line.contains("://")).count();
        if named > 0 {
            complaints.push(format!(
                "{path}: {named} `resolved` fields name a host: \
                 make it anew with `npm install --package-lock-only --omit-lockfile-registry-resolved`"
            ));
        }
    }
    complaints
}

#[cfg(test)]
mod tests {
    use super::super::Texts;
    use super::{BANNED_WORD, lock_files, pure_core, short, words};

    fn texts(files: &[(&str, &str)]) -> Texts {
        Texts(files.iter().map(|(path, text)| ((*path).into(), (*text).into())).collect())
    }

    #[test]
    fn long_files_are_named() {
        let long = "\n".repeat(501);
        assert_eq!(short(&texts(&[("a.rs", &long), ("b.md", &long), ("c.rs", "")])).len(), 1);
    }

    #[test]
    fn words_are_found_with_their_line() {
        let line = format!("fine\n// {BANNED_WORD} later\nmktemp a.{BANNED_WORD}{BANNED_WORD}\n");
        let complaints = words(&texts(&[("a.rs", &line)]));
        assert_eq!(complaints.len(), 1);
        assert!(complaints[0].starts_with("a.rs:2:"), "{complaints:?}");
    }

    #[test]
    fn core_reads_no_clock() {
        let files = [
            (
                "crates/lockstep-core/Cargo.toml",
                "[dependencies]\nrand.workspace = true\n[dev-dependencies]\ntokio = \"1\"\n",
            ),
            ("crates/lockstep-core/src/lib.rs", "//! no Instant::now here\nlet now = Instant::now();\n"),
        ];
        assert_eq!(pure_core(&texts(&files)).len(), 2);
    }

    #[test]
    fn hosts_in_lock_files_are_counted() {
        let named = "\"resolved\": \"https://registry.example/a.tgz\"\n\"resolved\": \"packages/client\"\n";
        let complaints = lock_files(&texts(&[("Cargo.lock", ""), ("package-lock.json", named)]));
        assert_eq!(complaints.len(), 1);
        assert!(complaints[0].contains("1 `resolved`"), "{complaints:?}");
    }
}
