//! The binary `lockstep`.

use std::process::ExitCode;

/// Tens of thousands of connections come and go: this one gives memory back, and wastes less between.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    lockstep_server::cli::main().await
}
