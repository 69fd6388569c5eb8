//! What the layers cost on a real connection: POSTs on loopback, beside a bare client and what one would assemble instead.
//!
//! `cargo bench --bench http`; heavier peers are in `cargo bench -p tower-ploton-peers --bench peers`.
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a bench that can't run has nothing to say"
)]

#[path = "../support/mod.rs"]
mod support;

mod drive;
mod loopback;
mod machine;
mod ours;
#[path = "../support/peers.rs"]
mod peers;
mod report;
mod reuse;

use hyper::body::Incoming;
use tower::Layer;

use self::{
    drive::{KEY, Post, Tower, hyper, measure},
    loopback::Server,
    machine::Core,
    report::{BARE, BARE_AGAIN, Client, STACK},
    reuse::Reuse,
    support::print::Values,
};

const PEERS: &str = "peers assembled";

fn main() {
    machine::pin(Core::Client);
    let mut values = Values::default();
    throughput(&mut values);
    connections(&mut values);
    values.print();
}

fn throughput(values: &mut Values) {
    let server = Server::start(None);
    let runtime = drive::runtime();
    let entered = runtime.enter();
    let bare = || Tower::new(hyper(&server)).by_hand();
    let (bare, again) = (bare(), bare());
    let stack = ours::stack(&server);
    let peers = peers(&server);
    let clients: [(&str, Client<'_>); 4] = [
        (
            BARE,
            Box::new(|tasks, count| measure(&runtime, &bare, tasks, count)),
        ),
        (
            BARE_AGAIN,
            Box::new(|tasks, count| measure(&runtime, &again, tasks, count)),
        ),
        (
            STACK,
            Box::new(|tasks, count| measure(&runtime, &stack, tasks, count)),
        ),
        (
            PEERS,
            Box::new(|tasks, count| measure(&runtime, &peers, tasks, count)),
        ),
    ];
    drop(entered);
    let [times, work, allocated] = report::compare(&clients);
    report::explain();
    values.add(
        "http.c64.throughput_vs_bare",
        times.ratio(BARE, STACK).middle,
    );
    values.add("http.c64.cpu_vs_bare", work.ratio(STACK, BARE).middle);
    values.add(
        "http.c64.throughput_vs_peers",
        times.ratio(PEERS, STACK).middle,
    );
    values.add("http.c64.noise", times.ratio(BARE, BARE_AGAIN).middle);
    let added = |name| allocated.added(name, BARE).middle;
    values.add("http.c64.allocs_stack", added(STACK));
    values.add("http.c64.allocs_peers", added(PEERS));
}

fn connections(values: &mut Values) {
    let reuses = [
        Reuse::measure("tower-ploton", ours::without_limit),
        Reuse::measure(PEERS, peers),
    ];
    reuse::print(&reuses);
    for (reuse, part) in reuses.iter().zip(["", "peers."]) {
        reuse.add_to(values, part);
    }
}

fn peers(server: &Server) -> impl Post + use<> {
    let service = peers::layers::<_, _, Incoming>(KEY).layer(hyper(server));
    Tower::new(service)
}
