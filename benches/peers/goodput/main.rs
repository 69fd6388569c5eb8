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
mod neighbours;
#[path = "../../../tests/support/network.rs"]
mod network;
mod outage;
mod parallel;
#[path = "../../support/peers.rs"]
mod peers;
mod picture;
mod plan_use;
#[path = "../../../tests/support/servers.rs"]
mod servers;
#[path = "../../support/mod.rs"]
mod support;
mod wire;

fn main() {
    let courses = outage::courses();
    outage::print(&courses);
    let together = neighbours::together();
    neighbours::print(&together);
    let rows = plan_use::rows();
    plan_use::print(&rows);
    picture::draw(&rows, &courses);

    let mut values = support::print::Values::default();
    let figures = plan_use::figures(&rows);
    for (name, value) in figures.into_iter().chain(neighbours::figures(&together)) {
        values.add(&name, value);
    }
    for course in &courses {
        let name = format!("outage.{}", course.retrying.name());
        values.add(&format!("{name}.amplification"), course.amplification());
        values.count(
            &format!("{name}.recovery_seconds"),
            course.recovery() as u64,
        );
        values.add(&format!("{name}.lost"), course.lost());
    }
    values.print();
}
