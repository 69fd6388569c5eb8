//! Variants in paired rounds, at several numbers of requests at once.

use super::support::{
    print::{Table, cell, spread},
    rounds::{self, Paired, Variant},
};

/// Paired rounds; fewer show nothing on a machine that others use too.
const ROUNDS: usize = 41;

/// How many at once, and how many in a run.
pub(crate) const LOADS: [(usize, usize); 3] = [(1, 400), (16, 1_500), (64, 1_500)];

/// A client that sends as many as it is told, that many at once, and says what they took.
pub(crate) type Client<'a> = Box<dyn Fn(usize, usize) -> [f64; 3] + 'a>;

pub(crate) const BARE: &str = "bare";
pub(crate) const BARE_AGAIN: &str = "bare, once more";
pub(crate) const STACK: &str = "PlotonStack";

/// Of all at 64 requests at once: the time, the thread's own work, and the allocations of a request.
pub(crate) fn compare(clients: &[(&'static str, Client<'_>)]) -> [Paired; 3] {
    profiled(clients);
    let mut last = None;
    for (tasks, count) in LOADS {
        let variants = clients
            .iter()
            .map(|(name, client)| Variant::new(name, || client(tasks, count)));
        let results = rounds::run(ROUNDS, variants.collect());
        print(tasks, &results);
        last = Some(results);
    }
    last.expect("a load")
}

/// Sends by one client alone, for a profiler: `cargo bench … -- 'name of the client'`.
fn profiled(clients: &[(&'static str, Client<'_>)]) {
    // cargo adds an argument of its own.
    let named = |name: &str| std::env::args().any(|argument| argument == name);
    let client = clients.iter().find(|(name, _)| named(name));
    if let Some((name, client)) = client {
        let [_, work, allocated] = client(64, 300_000);
        println!("{name}: {:.2} µs, {allocated:.1} allocations", work * 1e6);
        std::process::exit(0);
    }
}

fn print(tasks: usize, [times, work, allocated]: &[Paired; 3]) {
    let title = format!("{tasks} at once");
    let columns = [
        "requests a second",
        "throughput / bare",
        "client CPU µs",
        "CPU / bare",
        "allocations",
    ];
    let mut table = Table::new(&title, &columns);
    for name in times.names() {
        let cells = [
            format!("{:.0}", 1.0 / times.of(name).middle),
            // The time of bare by that of the client is the throughput of the client by that of bare.
            spread(times.ratio(BARE, name)),
            cell(work.of(name).middle * 1e6),
            spread(work.ratio(name, BARE)),
            cell(allocated.of(name).middle),
        ];
        table.row(name, cells);
    }
    table.print();
}

pub(crate) fn explain() {
    println!(
        "\nMedians and quartiles of {ROUNDS} paired rounds: POSTs on loopback, answers read to the end, one connection for each \
         request at a time.\n\"{BARE_AGAIN}\" is the same client a second time: what differs there is noise."
    );
}
