//! The `modelfs` command: all of it is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    modelfs::cli::main()
}
