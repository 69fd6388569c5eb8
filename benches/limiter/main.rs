//! What a token costs where it is there, what waiting for one costs, and how much of the configured rate is used.
#![allow(
    clippy::expect_used,
    reason = "a bench that can't run has nothing to say"
)]

#[path = "../support/mod.rs"]
mod support;

mod acquire;
mod rate;
mod waiters;

use std::env;

use self::support::print::Values;

fn main() {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    match *arguments {
        ["acquire", name, batches] => acquire::only(name, batches),
        _ => measure(),
    }
}

fn measure() {
    let mut values = Values::default();
    acquire::measure(&mut values);
    waiters::measure(&mut values);
    rate::measure(&mut values);
    values.print();
}
