//! The runs that are as good as they are long: simulation, oracle, fuzzing. Each counts as so many checks as things
//! that it looks at: seeds together, one fault, one version, one target.

use std::process::Command;

use anyhow::{Context, Result, bail};

use super::check_command;
use super::report::Part;
use crate::{child, fuzz, workspace};

/// The oracle takes minutes per version: the oldest that Debian ships, and the newest.
pub const ORACLE_MAJORS: [u32; 2] = [15, 18];

/// Worlds for `seconds`, and each planted fault, which must be found.
pub fn simulation(part: &mut Part, seconds: u64) -> Result<()> {
    println!("→ worlds for {seconds} s");
    check_command(part, "worlds", this(&["sim", "--seconds", &seconds.to_string()])?)?;
    let each = (seconds / 4).max(20).to_string();
    for plant in plants()? {
        println!("→ the planted fault {plant}");
        let ended = child::run(
            this(&["sim", "--plant", &plant, "--seconds", &each])?,
            &format!("test-plant-{plant}"),
        )?;
        let text = ended.text();
        // It also ends with 1 when it cannot be built or run.
        let found = !ended.status.success() && text.lines().any(|line| line.starts_with("violation: "));
        part.check(&format!("plant {plant} is found"), &text, found);
    }
    Ok(())
}

/// One version, under random writers and faults.
pub fn oracle(part: &mut Part, major: u32, seconds: u64) -> Result<()> {
    let command = this(&["oracle", "--pg", &major.to_string(), "--seconds", &seconds.to_string()])?;
    check_command(part, &format!("oracle {major}"), command)
}

/// Each target for its share of the time.
pub fn fuzzing(part: &mut Part, seconds: u64) -> Result<()> {
    let targets = fuzz::targets()?;
    let share = (seconds / targets.len().max(1) as u64).max(1).to_string();
    for target in targets {
        println!("→ {target}");
        check_command(
            part,
            &format!("fuzz {target}"),
            this(&["fuzz", "--target", &target, "--seconds", &share])?,
        )?;
    }
    Ok(())
}

/// This program, with other arguments.
fn this(arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("where is this program?")?);
    command.args(arguments).current_dir(workspace::root());
    Ok(command)
}

/// The names of the faults that the simulation can plant, as their source has them: a new one cannot be forgotten.
fn plants() -> Result<Vec<String>> {
    let path = workspace::root().join("crates/lockstep-sim/src/plant.rs");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let names = named(&text);
    if names.is_empty() {
        bail!("{} names no plant", path.display());
    }
    Ok(names)
}

fn named(source: &str) -> Vec<String> {
    let name = |line: &str| Some(line.split_once(" = \"")?.1.strip_suffix("\",")?.to_owned());
    source.lines().filter(|line| !line.trim_start().starts_with("//")).filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::{named, plants};

    #[test]
    fn plants_are_read_from_their_source() {
        assert_eq!(named("    /// Not = \"this\",\n    RingEarly = \"ring-early\",\n"), ["ring-early"]);
        let all = plants().expect("the simulation's plants");
        assert!(all.len() >= 16 && all.contains(&"torn-commit".to_owned()), "{all:?}");
    }
}
