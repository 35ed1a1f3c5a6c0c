//! The binary `lockstep`.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    lockstep_server::cli::main().await
}
