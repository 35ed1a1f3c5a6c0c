//! Log lines, on stderr. Their levels say who must act (docs/operation.md): an error ends the node, a warning is for its
//! operator, info is what happened and needs nobody, debug is for whoever looks into it.

use crate::config::LogFormat;
use anyhow::{Context, Result, bail};
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// Which lines are written.
pub const LEVELS: &str = "LOCKSTEP_LOG";

/// Never: the driver logs statements with their parameters, and notices that an application's trigger raises, which
/// may quote rows.
const SECRET: &str = "tokio_postgres=off";

/// A word by itself that is no level. The filter takes it for the name of a module, and every other line would be gone.
fn no_level(given: &str) -> Option<&str> {
    let mut words =
        given.split(',').map(str::trim).filter(|word| !word.is_empty() && !word.contains(['=', '[']));
    words.find(|word| word.parse::<LevelFilter>().is_err())
}

/// Begins logging.
///
/// # Errors
/// If `LOCKSTEP_LOG` cannot be read.
pub fn start(format: LogFormat) -> Result<()> {
    let given = std::env::var(LEVELS).ok().filter(|text| !text.trim().is_empty());
    if let Some(word) = given.as_deref().and_then(no_level) {
        bail!("{LEVELS}: {word:?} is no level; write error, warn, info, debug, trace or off");
    }
    let filter = EnvFilter::try_new(given.as_deref().unwrap_or("info"))
        .with_context(|| format!("{LEVELS} is not a list of levels, such as `debug` or `info`"))?
        .add_directive(SECRET.parse()?);
    let colours =
        std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(colours)
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Json => log.json().flatten_event(true).init(),
        LogFormat::Text => log.init(),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_is_no_level_silences_nothing() {
        for (given, word) in [("warning", Some("warning")), ("info, loud", Some("loud"))] {
            assert_eq!(no_level(given), word, "{given}");
        }
        for given in ["info", "WARN", "off", "", "debug,tokio_postgres=off", "3", "[a]=trace, error"] {
            assert_eq!(no_level(given), None, "{given}");
        }
    }
}
