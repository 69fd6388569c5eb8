//! What tower-resilience adds to a request that succeeds at once, beside this crate's stack.

use std::{num::NonZeroU32, time::Duration};

use tower::Layer;
use tower_ploton::{ApiKey, Plan, PlotonRateLimit, PlotonStack};

use super::{
    RESILIENCE,
    report::{BARE, STACK},
    resilience,
    support::{
        print::{Table, Values, spread},
        rounds::{self, Variant},
    },
    work::{self, Answers, Client, Inner},
};

const ROUNDS: usize = 1_001;

pub(crate) fn measure(values: &mut Values) {
    let runtime = super::drive::runtime();
    let entered = runtime.enter();
    let bare = Inner::new(Answers::Plain);
    let mut clients: [(&'static str, Box<dyn Client>); 3] = [
        (BARE, Box::new(bare.clone())),
        (STACK, Box::new(stack().layer(bare.clone()))),
        (RESILIENCE, Box::new(resilience::layers().layer(bare))),
    ];
    drop(entered);
    let allocated = clients
        .each_mut()
        .map(|(_, client)| work::allocations(&runtime, &mut **client).count);
    let variants = clients
        .iter_mut()
        .map(|(name, client)| Variant::new(name, || [work::nanos(&runtime, &mut **client)]));
    let [times] = rounds::run(ROUNDS, variants.collect());

    let title = "added to a request that succeeds at once";
    let mut table = Table::new(title, &["ns", "allocations"]);
    let [of_bare, of_all @ ..] = allocated;
    for (name, count) in [STACK, RESILIENCE].into_iter().zip(of_all) {
        let added = spread(times.added(name, BARE));
        table.row(name, [added, count.saturating_sub(of_bare).to_string()]);
    }
    table.print();
    println!("\nMedians and quartiles of {ROUNDS} paired rounds, over a bare service.");
    let ratio = times.added_ratio((STACK, BARE), (RESILIENCE, BARE));
    values.add("overhead.ratio_vs_tower_resilience", ratio.middle);
    let [_, count] = of_all;
    values.count(
        "overhead.allocs_tower_resilience",
        count.saturating_sub(of_bare),
    );
}

/// With a limit that never has to wait.
fn stack() -> PlotonStack {
    let plan = Plan::Enterprise {
        requests_per_minute: const { NonZeroU32::new(5_000_000).unwrap() },
        concurrent_tasks: NonZeroU32::MIN,
    };
    let limit = PlotonRateLimit::new(plan).window(Duration::from_millis(1));
    let key = ApiKey::parse(work::KEY).expect("a key");
    PlotonStack::new(key, plan).rate_limit(limit)
}
