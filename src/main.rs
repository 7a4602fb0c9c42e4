//! The `decagon-lake` command: runs [`decagon_lake::cli::main`].

use std::process::ExitCode;

/// One thread allocates pages and their rows and another frees them, which costs the system's allocator memory and page
/// faults. `.cargo/config.toml` configures this one.
#[cfg(not(target_env = "msvc"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    decagon_lake::cli::main()
}
