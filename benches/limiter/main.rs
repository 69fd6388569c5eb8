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

use self::support::print::Values;

fn main() {
    let mut values = Values::default();
    acquire::measure(&mut values);
    waiters::measure(&mut values);
    rate::measure(&mut values);
    values.print();
}
