//! What the layers add to a request that succeeds at once, beside what one would assemble instead and beside a floor.
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a bench that can't run has nothing to say"
)]

#[path = "../support/mod.rs"]
mod support;

mod floor;
#[path = "../support/peers.rs"]
mod peers;
#[cfg(feature = "metrics")]
mod recorder;
mod work;

use std::{env, num::NonZeroU32};

use tokio::runtime::{self, Runtime};
use tower::{Layer, ServiceBuilder};
#[cfg(feature = "metrics")]
use tower_ploton::metrics;
use tower_ploton::{
    ApiKey, Plan, PlotonAuth, PlotonIdempotency, PlotonRateLimit, PlotonRetry, PlotonStack,
};

use self::{
    floor::{CloneLayer, FloorLayer},
    support::{
        print::{Table, Values, cell, spread},
        rounds::{self, Variant},
    },
    work::{Answers, Client, Inner, KEY},
};

const ROUNDS: usize = 3_001;

fn main() {
    let runtime = runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    // The limiter's clock and the timeouts are tokio's.
    let _entered = runtime.enter();

    let arguments: Vec<_> = env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    match *arguments {
        ["send", name, batches] => send(&runtime, name, batches),
        _ => measure(&runtime),
    }
}

/// Each is made where it is used, so that what one of them does meanwhile counts for no other.
type Make = fn() -> Box<dyn Client>;

const VARIANTS: [(&str, Make); 13] = [
    (BARE, || Box::new(PLAIN)),
    ("idempotency", || client(PlotonIdempotency::new(), PLAIN)),
    ("retry", || client(PlotonRetry::new(), PLAIN)),
    ("rate limit", || client(limit(), PLAIN)),
    ("auth", || client(PlotonAuth::new(key()), PLAIN)),
    ("the four", || client(four(), PLAIN)),
    (STACK, || client(stack(), PLAIN)),
    (PEERS, || {
        client(peers::layers::<_, _, work::Body>(KEY), PLAIN)
    }),
    (FLOOR, || client(FloorLayer::new(), PLAIN)),
    ("a clone of the request", || client(CloneLayer, PLAIN)),
    (BARE_WITH_HEADERS, || Box::new(RATE_HEADERS)),
    (STACK_WITH_HEADERS, || client(stack(), RATE_HEADERS)),
    (PEERS_WITH_HEADERS, || {
        client(peers::layers::<_, _, work::Body>(KEY), RATE_HEADERS)
    }),
];

const PLAIN: Inner = Inner::new(Answers::Plain);
const RATE_HEADERS: Inner = Inner::new(Answers::WithRateHeaders);

/// Each in a process of its own alone: whatever else is sent there is measured too.
#[cfg(feature = "metrics")]
const MEASURED: &[(&str, Make)] = &[
    ("PlotonStack, metrics", || measured(metrics::start)),
    ("PlotonStack, metrics without handles", || {
        measured(metrics::start_without_handles)
    }),
    ("PlotonStack, metrics without a recorder", || {
        metrics::start();
        client(stack(), PLAIN)
    }),
];
#[cfg(not(feature = "metrics"))]
const MEASURED: &[(&str, Make)] = &[];

#[cfg(feature = "metrics")]
fn measured(start: fn()) -> Box<dyn Client> {
    recorder::Series::install();
    start();
    client(stack(), PLAIN)
}

/// Only sends, by one variant: for a profiler, and for `scripts/gate`.
fn send(runtime: &Runtime, name: &str, batches: &str) {
    let (_, make) = VARIANTS
        .iter()
        .chain(MEASURED)
        .find(|(other, _)| *other == name)
        .expect("the name of a variant");
    let mut client = make();
    let allocated = work::allocations(runtime, &mut *client);
    for _ in 0..batches.parse().expect("how many batches") {
        client.send(runtime, work::batch());
    }
    println!("allocations = {}", allocated.count);
}

fn measure(runtime: &Runtime) {
    let mut variants = VARIANTS.map(|(name, make)| (name, make()));
    let taken: Vec<_> = variants
        .iter_mut()
        .map(|(name, client)| (*name, work::allocations(runtime, &mut **client)))
        .collect();
    let timed = variants
        .into_iter()
        .map(|(name, mut client)| Variant::new(name, move || [work::nanos(runtime, &mut *client)]));
    let [times] = rounds::run(ROUNDS, timed.collect());

    let base = |name: &str| match name.ends_with(WITH_HEADERS) {
        true => BARE_WITH_HEADERS,
        false => BARE,
    };
    let allocated = |name: &str| {
        let of = |name| taken.iter().find(|(other, _)| *other == name);
        let (Some((_, own)), Some((_, bare))) = (of(name), of(base(name))) else {
            panic!("{name} was not measured");
        };
        (
            own.count.saturating_sub(bare.count),
            own.bytes.saturating_sub(bare.bytes),
        )
    };

    let title = "added to a request that succeeds at once";
    let mut table = Table::new(title, &["ns", "allocations", "bytes"]);
    for name in times.names().filter(|&name| name != base(name)) {
        let (count, bytes) = allocated(name);
        let added = times.added(name, base(name));
        table.row(name, [spread(added), count.to_string(), bytes.to_string()]);
    }
    table.print();
    let bare = times.of(BARE).middle;
    println!(
        "\nMedians and quartiles of {ROUNDS} paired rounds, over a bare service, which takes {} ns itself.",
        cell(bare)
    );

    let mut values = Values::default();
    let ratio = |one, other| {
        let pair = |name| (name, base(name));
        times.added_ratio(pair(one), pair(other)).middle
    };
    values.add("overhead.ratio_vs_peers", ratio(STACK, PEERS));
    let with_headers = ratio(STACK_WITH_HEADERS, PEERS_WITH_HEADERS);
    values.add("overhead.ratio_vs_peers_with_headers", with_headers);
    values.add("overhead.ratio_vs_floor", ratio(STACK, FLOOR));
    values.count("overhead.allocs_stack", allocated(STACK).0);
    values.count("overhead.allocs_peers", allocated(PEERS).0);
    values.print();
}

/// `layer` on `inner`.
fn client<L>(layer: L, inner: Inner) -> Box<dyn Client>
where
    L: Layer<Inner, Service: Client + 'static>,
{
    Box::new(layer.layer(inner))
}

fn four() -> impl Layer<Inner, Service: Client + 'static> {
    ServiceBuilder::new()
        .layer(PlotonIdempotency::new())
        .layer(PlotonRetry::new())
        .layer(limit())
        .layer(PlotonAuth::new(key()))
        .into_inner()
}

fn stack() -> PlotonStack {
    PlotonStack::new(key(), PLAN)
}

/// A limit that never has to wait.
fn limit() -> PlotonRateLimit {
    PlotonRateLimit::new(PLAN)
}

fn key() -> ApiKey {
    ApiKey::parse(KEY).expect("a key")
}

const PLAN: Plan = Plan::Enterprise {
    requests_per_minute: NonZeroU32::MAX,
    concurrent_tasks: NonZeroU32::MIN,
};

const BARE: &str = "bare";
const STACK: &str = "PlotonStack";
const PEERS: &str = "peers assembled";
const FLOOR: &str = "floor";
const WITH_HEADERS: &str = ", rate headers";
const BARE_WITH_HEADERS: &str = "bare, rate headers";
const STACK_WITH_HEADERS: &str = "PlotonStack, rate headers";
const PEERS_WITH_HEADERS: &str = "peers assembled, rate headers";
