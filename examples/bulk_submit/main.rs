//! Creates a task for each line of a file, each exactly once, however often it is stopped and begun again.
//!
//! `cargo run --example bulk_submit -- prompts.txt --out results.jsonl` needs `PLOTON_API_KEY`; with `--fake` it needs neither
//! key nor network. `--help` names the rest.

use std::process::ExitCode;

mod bulk;

fn main() -> ExitCode {
    bulk::main(std::env::args_os()).into()
}
