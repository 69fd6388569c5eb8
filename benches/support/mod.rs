//! What the benches share: paired rounds, counted allocations, and how a result is printed.
#![allow(dead_code, reason = "no bench needs all of it")]

pub(crate) mod allocations;
pub(crate) mod print;
pub(crate) mod rounds;
