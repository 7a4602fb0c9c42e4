//! The `decagon-lake` command. Everything is in the library; `cli` is where it begins.

use std::process::ExitCode;

fn main() -> ExitCode {
    decagon_lake::cli::main()
}
