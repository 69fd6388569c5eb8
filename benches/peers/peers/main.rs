//! The rows of `overhead` and `http` whose peers are heavy to build: tower-resilience, reqwest, and reqwest-middleware with
//! reqwest-retry.
//!
//! `cargo bench -p tower-ploton-peers --bench peers`
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a bench that can't run has nothing to say"
)]

#[path = "../../http/drive.rs"]
mod drive;
#[path = "../../http/loopback.rs"]
mod loopback;
#[path = "../../http/machine.rs"]
mod machine;
#[path = "../../http/ours.rs"]
mod ours;
mod overhead;
#[path = "../../http/report.rs"]
mod report;
mod reqwests;
mod resilience;
#[path = "../../http/reuse.rs"]
mod reuse;
#[path = "../../support/mod.rs"]
mod support;
#[allow(dead_code, reason = "only one of its answers is needed here")]
#[path = "../../overhead/work.rs"]
mod work;

use self::{
    drive::{Post, Tower, hyper, measure},
    loopback::Server,
    machine::Core,
    report::{BARE, BARE_AGAIN, Client, STACK},
    reuse::Reuse,
    support::print::Values,
};

const RESILIENCE: &str = "tower-resilience";
const REQWEST: &str = "reqwest";
const MIDDLEWARE: &str = "reqwest-middleware";

fn main() {
    machine::pin(Core::Client);
    let mut values = Values::default();
    overhead::measure(&mut values);
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
    let resilience = resilience(&server);
    let reqwest = reqwests::plain(&server);
    let middleware = reqwests::with_middleware(&server);
    let clients: [(&str, Client<'_>); 6] = [
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
            RESILIENCE,
            Box::new(|tasks, count| measure(&runtime, &resilience, tasks, count)),
        ),
        (
            REQWEST,
            Box::new(|tasks, count| measure(&runtime, &reqwest, tasks, count)),
        ),
        (
            MIDDLEWARE,
            Box::new(|tasks, count| measure(&runtime, &middleware, tasks, count)),
        ),
    ];
    drop(entered);
    let [times, work, _] = report::compare(&clients);
    report::explain();
    for (name, peer) in PEERS {
        let ratio = times.ratio(peer, STACK).middle;
        values.add(&format!("http.c64.throughput_vs_{name}"), ratio);
        let ratio = work.ratio(STACK, peer).middle;
        values.add(&format!("http.c64.cpu_vs_{name}"), ratio);
    }
}

const PEERS: [(&str, &str); 3] = [
    ("tower_resilience", RESILIENCE),
    ("reqwest", REQWEST),
    ("reqwest_middleware", MIDDLEWARE),
];

fn connections(values: &mut Values) {
    let reuses = [
        ("", Reuse::measure(STACK_WITHOUT_LIMIT, ours::without_limit)),
        ("tower_resilience.", Reuse::measure(RESILIENCE, resilience)),
        (
            "reqwest_middleware.",
            Reuse::measure(MIDDLEWARE, reqwests::with_middleware),
        ),
    ];
    for (part, reuse) in &reuses {
        reuse.add_to(values, part);
    }
    reuse::print(&reuses.map(|(_, reuse)| reuse));
}

const STACK_WITHOUT_LIMIT: &str = "tower-ploton";

fn resilience(server: &Server) -> impl Post + use<> {
    let service = tower::Layer::layer(&resilience::layers(), hyper(server));
    Tower::new(service)
}
