//! Database URLs: never a panic, never the URL in an error, and queries and replication go to the same places.

use lockstep_pg::target::Target;

/// Stands in inputs where a password could; no error may repeat it.
const SECRET: &str = "hunter2";

/// Any text.
pub fn run(data: &[u8]) {
    let Ok(url) = std::str::from_utf8(data) else { return };
    match Target::parse(url) {
        Ok(target) => {
            let config = target.config();
            assert!(config.get_application_name().is_some() && config.get_connect_timeout().is_some());
            // What goes to the log is of the hosts: in a URL, an @ in one says that a password was not encoded. A socket
            // without a file begins with one, and a path that is written as `host=` may hold any.
            let beside: Vec<String> =
                target.place().split(", ").map(|p| p.chars().skip(1).collect()).collect();
            let is_url = url.starts_with("postgres://") || url.starts_with("postgresql://");
            assert!(!is_url || !beside.iter().any(|p| p.contains('@')), "{beside:?}");
        }
        Err(error) => assert!(!error.to_string().contains(SECRET), "{error}"),
    }
}
