//! Database URLs: never a panic, never the URL in an error, and every session prints values as the stream does.

use lockstep_pg::connect::{SESSION, config, plain_config};

/// Stands in inputs where a password could; no error may repeat it.
const SECRET: &str = "hunter2";

/// Any text.
pub fn run(data: &[u8]) {
    let Ok(url) = std::str::from_utf8(data) else { return };
    match (plain_config(url), config(url)) {
        (Ok(plain), Ok(config)) => {
            let options = config.get_options().unwrap();
            assert!(options.starts_with(plain.get_options().unwrap_or_default()));
            for (name, _) in SESSION {
                assert!(options.contains(&format!("-c {name}=")), "{options}");
            }
            assert_eq!(plain.get_hosts(), config.get_hosts());
            assert_eq!(plain.get_dbname(), config.get_dbname());
            assert!(config.get_application_name().is_some());
        }
        (Err(plain), Err(error)) => {
            assert_eq!(plain.to_string(), error.to_string());
            assert!(!error.to_string().contains(SECRET), "{error}");
        }
        (plain, with_session) => panic!("{plain:?} and {with_session:?}"),
    }
}
