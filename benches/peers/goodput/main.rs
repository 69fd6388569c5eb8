//! What a limiter and a retry gain: this crate's and others', against each kind of server, in virtual time.
//!
//! `cargo bench -p tower-ploton-peers --bench goodput` prints tables, draws `target/goodput.svg` and `target/outage.svg`, and
//! ends with one figure a line.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a bench fails by a panic"
)]

mod clients;
mod load;
#[path = "../../../tests/support/network.rs"]
mod network;
mod parallel;
mod plan_use;
#[path = "../../../tests/support/servers.rs"]
mod servers;
mod wire;

fn main() {
    let rows = plan_use::rows();
    plan_use::print(&rows);
    for (name, value) in plan_use::figures(&rows) {
        println!("{name} = {value:.4}");
    }
}
