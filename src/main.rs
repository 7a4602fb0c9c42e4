//! The `decagon-lake` command. Everything is in the library; `cli` is where it begins.

use std::process::ExitCode;

/// Pages and their rows are made on one thread and dropped on another, which the system's allocator pays for in memory
/// and page faults; `.cargo/config.toml` sets this one up.
#[cfg(not(target_env = "msvc"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    decagon_lake::cli::main()
}
