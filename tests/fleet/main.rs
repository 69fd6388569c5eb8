//! One plan, many processes: each has a limiter of its own, and all share one store. In paused time, on servers that count
//! in every way.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

mod far;
mod outage;
#[path = "../support/servers.rs"]
mod servers;
mod shares;
mod store;
mod threads;
mod windows;
mod world;
