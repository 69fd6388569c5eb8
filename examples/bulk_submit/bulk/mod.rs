//! The whole program, as a module that its test includes.
//!
//! Every line has an idempotency key that is derived from the file's name, the line's number and what the line says. Before
//! its request leaves for the first time, the key and the time are written to a journal, and synced; the task's id is written
//! to the results, and synced, when the answer has come. So whoever reads both knows of each line whether it was never sent
//! (send it), was sent and is without an answer (send it again with its key, while the server knows that), or is done.

mod args;
mod fake;
mod files;
mod follow;
mod input;
mod job;
mod journal;
mod progress;
mod sent;

use std::ffi::OsString;

use tower::BoxError;

/// Some lines have no task.
const INCOMPLETE: u8 = 1;
/// It could not begin, or not go on: a file can't be read or written, or an argument is wrong.
const BROKEN: u8 = 2;
/// As shells say of a program that Ctrl-C stopped.
pub(crate) const INTERRUPTED: u8 = 130;

/// Runs the program, and says its exit code.
pub(crate) fn main(args: impl IntoIterator<Item = OsString>) -> u8 {
    let options = match args::parse(args) {
        Ok(options) => options,
        // Help, or what is wrong with the arguments.
        Err(message) => {
            let _ = message.print();
            return u8::try_from(message.exit_code()).unwrap_or(BROKEN);
        }
    };
    match run(options) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {}", progress::story(&*error));
            BROKEN
        }
    }
}

fn run(options: args::Options) -> Result<u8, BoxError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let summary = runtime.block_on(async {
        let (options, fake) = fake::instead(options).await?;
        let summary = job::run(options).await?;
        if let Some(fake) = fake {
            fake.report();
        }
        Ok::<_, BoxError>(summary)
    })?;
    println!("{summary}");
    Ok(if summary.interrupted {
        INTERRUPTED
    } else if summary.is_complete() {
        0
    } else {
        INCOMPLETE
    })
}
