//! Many processes that share one plan through a store, in virtual time: how much of the plan they use together, what the
//! server refuses, how even their shares are, and how often they call the store.
//!
//! `cargo bench -p tower-ploton-peers --bench fleet` prints tables, and ends with one figure a line. With two numbers after
//! `--` it runs one fleet, of so many processes and requests a minute. The limiter, its leases and the store's ledger are the
//! crate's own; the network, the store's outages and the server that counts are models.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a bench fails by a panic"
)]

mod far;
#[path = "../../../tests/support/network.rs"]
mod network;
#[path = "../goodput/parallel.rs"]
mod parallel;
#[path = "../../../tests/support/servers.rs"]
mod servers;
mod simulation;
#[path = "../../support/mod.rs"]
mod support;

use std::env;

use tower_ploton::limit::Outage;

use far::Way;
use parallel::in_parallel;
use servers::Kind;
use simulation::{Case, MINUTES, Outcome};
use support::print::{Table, Values, cell};

const SIZES: [u32; 5] = [1, 4, 10, 100, 1_000];

/// The case that all others differ from in one thing or two.
const USUAL: Case = Case {
    processes: 1_000,
    n: 1_000,
    way: Way::Zones,
    kind: Kind::LogOldest,
    comes_and_goes: false,
    mostly_idle: false,
    outages: None,
    seed: 0,
};

fn main() {
    let asked_for = env::args().filter_map(|number| number.parse().ok());
    let groups = match *asked_for.collect::<Vec<u32>>() {
        [processes, n] if processes > 0 && n > 0 => {
            let case = Case {
                processes,
                n,
                ..USUAL
            };
            vec![("steady", vec![case])]
        }
        _ => groups(),
    };
    let cases: Vec<_> = groups.iter().flat_map(|(_, cases)| cases.clone()).collect();
    let outcomes = in_parallel(&cases, |case| case.run());
    let mut all = cases.iter().copied().zip(outcomes);
    let mut values = Values::default();
    let mut usual = None;
    for (title, cases) in &groups {
        let mut table = Table::new(title, &COLUMNS);
        for (case, outcome) in all.by_ref().take(cases.len()) {
            let server = match case.kind {
                Kind::Fixed => "fixed windows",
                _ => "sliding log",
            };
            table.row(server, cells(case, &outcome));
            if case == USUAL {
                usual = Some(outcome);
            } else {
                let name = format!("fleet.{}", id(case));
                values.add(&format!("{name}.utilisation"), outcome.used);
                values.count(&format!("{name}.rejected"), outcome.refused);
            }
        }
        table.print();
    }
    println!(
        "\nOf {MINUTES} minutes each, after one in which all begin. Unless it says otherwise, \
         all have always something to send. A request to the server \
         is 10 to 250 ms on its way, and so is the answer."
    );
    if let Some(usual) = usual {
        values.add("fleet.p1000.utilisation", usual.used);
        values.count("fleet.p1000.rejected", usual.refused);
        values.add("fleet.p1000.jain", usual.jain);
        values.add("fleet.redis_calls_per_grant", usual.calls_per_grant);
    }
    values.print();
}

/// What is compared with each other.
fn groups() -> Vec<(&'static str, Vec<Case>)> {
    let of_sizes = |change: &dyn Fn(u32) -> Case| SIZES.into_iter().map(change).collect();
    let mut steady = Vec::new();
    for way in Way::ALL {
        for kind in [Kind::Fixed, Kind::LogOldest] {
            steady.extend(SIZES.map(|processes| Case {
                processes,
                way,
                kind,
                ..USUAL
            }));
        }
    }
    let other_plans = [(100, 10), (100, 100), (60_000, 100), (60_000, 1_000)];
    let other_plans = other_plans.map(|(n, processes)| Case {
        n,
        processes,
        ..USUAL
    });
    let comes_and_goes = [(1_000, 10), (1_000, 100), (1_000, 1_000), (60_000, 1_000)];
    let comes_and_goes = comes_and_goes.map(|(n, processes)| Case {
        n,
        processes,
        comes_and_goes: true,
        ..USUAL
    });
    let mostly_idle = [10, 100, 1_000].map(|processes| Case {
        processes,
        mostly_idle: true,
        ..USUAL
    });
    let away = |outage| {
        move |processes| Case {
            processes,
            outages: Some(outage),
            ..USUAL
        }
    };
    let both = of_sizes(&|processes| Case {
        comes_and_goes: true,
        way: Way::Regions,
        ..away(Outage::Share)(processes)
    });
    vec![
        ("steady", steady),
        ("other plans", other_plans.into()),
        (
            "nine in ten have little to send: a request every 5 minutes on average (Jain: of the others)",
            mostly_idle.into(),
        ),
        (
            "processes come and go: each lives for 2 minutes on average, and half of them crash",
            comes_and_goes.into(),
        ),
        (
            "the store is away for 10 s of every 120 s: Outage::Share",
            of_sizes(&away(Outage::Share)),
        ),
        ("the same: Outage::Wait", of_sizes(&away(Outage::Wait))),
        (
            "the same: Outage::Local",
            vec![away(Outage::Local)(1), away(Outage::Local)(10)],
        ),
        ("all of it, with Outage::Share", both),
    ]
}

const COLUMNS: [&str; 8] = [
    "processes",
    "plan",
    "way to the store",
    "plan used",
    "429s",
    "Jain",
    "store calls / s",
    "calls / request",
];

fn cells(case: Case, outcome: &Outcome) -> [String; 8] {
    let jain = if outcome.jain.is_nan() {
        "–".to_owned()
    } else {
        format!("{:.4}", outcome.jain)
    };
    [
        case.processes.to_string(),
        case.n.to_string(),
        case.way.name().to_owned(),
        format!("{:.2} %", outcome.used * 100.0),
        outcome.refused.to_string(),
        jain,
        cell(outcome.calls_per_second),
        cell(outcome.calls_per_grant),
    ]
}

/// As it stands in the printed names.
fn id(case: Case) -> String {
    let mut id = format!("p{}_{}.{}", case.processes, case.n, case.way.id());
    id += match case.kind {
        Kind::Fixed => ".fixed",
        _ => ".log",
    };
    if case.mostly_idle {
        id += ".mostly_idle";
    }
    if case.comes_and_goes {
        id += ".come_and_go";
    }
    if let Some(outage) = case.outages {
        id += &format!(".away_{outage}");
    }
    id
}
