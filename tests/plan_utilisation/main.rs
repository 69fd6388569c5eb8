//! What a plan gives, and that nobody is refused: the limiter against each kind of server, in virtual time.
//!
//! `cargo test --test plan_utilisation -- --nocapture` prints what was sent and refused, how much of the plan was used,
//! and how long a request waited for its turn.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by a panic"
)]

mod alone;
mod groups;
#[path = "../support/network.rs"]
mod network;
#[path = "../support/servers.rs"]
mod servers;
mod table;
mod together;

use std::{
    fmt::Write,
    num::NonZeroU32,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use http::Request;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{
    runtime::Runtime,
    task::JoinSet,
    time::{Instant, sleep, timeout, timeout_at},
};
use tower::{Layer, Service, ServiceExt};
use tower_ploton::{Plan, PlotonRateLimit, limit::RateLimitService};

use network::{Delays, Remote, Tally, World};
use servers::{Headers, Kind};

const MINUTE: Duration = Duration::from_secs(60);

/// What a run came to.
#[derive(Clone, Copy, Debug, Default)]
struct Outcome {
    tally: Tally,
    /// The part of the plan that was used, from the first request on.
    used: f64,
    waits: Waits,
}

#[derive(Clone, Copy, Debug, Default)]
struct Waits {
    count: u32,
    sum: Duration,
}

impl Waits {
    fn add(&mut self, wait: Duration) {
        self.count += 1;
        self.sum += wait;
    }

    fn add_all(&mut self, others: Self) {
        self.count += others.count;
        self.sum += others.sum;
    }

    fn mean(self) -> f64 {
        self.sum.as_secs_f64() / f64::from(self.count.max(1))
    }
}

fn plan(n: u32) -> Plan {
    Plan::Enterprise {
        requests_per_minute: NonZeroU32::new(n).unwrap(),
        concurrent_tasks: NonZeroU32::MIN,
    }
}

fn paused() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
}

/// One request after the other until `end`.
async fn sends(mut service: RateLimitService<Remote>, impatient: bool, end: Instant) -> Waits {
    let mut waits = Waits::default();
    while Instant::now() < end {
        let asked = Instant::now();
        if timeout_at(end, service.ready()).await.is_err() {
            break;
        }
        waits.add(Instant::now() - asked);
        // Refused, cut or given up: the next one is sent at once.
        let answer = service.call(Request::new(()));
        if impatient {
            drop(timeout(PATIENCE, answer).await);
        } else {
            drop(answer.await);
        }
    }
    waits
}

/// Below it only what takes a second more than usual is given up.
const PATIENCE: Duration = Duration::from_secs(1);

/// More callers than can ever be on their way.
async fn saturate(service: RateLimitService<Remote>, world: &World, end: Instant) -> Waits {
    let mut callers = JoinSet::new();
    for _ in 0..world.n / 10 + 10 {
        callers.spawn(sends(service.clone(), world.faults, end));
    }
    let mut all = Waits::default();
    for waits in callers.join_all().await {
        all.add_all(waits);
    }
    all
}

fn saturated(world: World, minutes: u32) -> Outcome {
    paused().block_on(async {
        let remote = world.begin();
        let service = PlotonRateLimit::new(plan(world.n)).layer(remote.clone());
        let end = Instant::now() + MINUTE * minutes;
        let waits = saturate(service, &world, end).await;
        outcome(&remote, waits, world.n * minutes)
    })
}

fn outcome(remote: &Remote, waits: Waits, plan: u32) -> Outcome {
    let tally = remote.tally();
    Outcome {
        tally,
        used: f64::from(tally.allowed) / f64::from(plan),
        waits,
    }
}

fn sum(outcomes: &[Outcome]) -> Outcome {
    let mut sum = Outcome::default();
    for outcome in outcomes {
        sum.tally.allowed += outcome.tally.allowed;
        sum.tally.refused += outcome.tally.refused;
        sum.used += outcome.used;
        sum.waits.add_all(outcome.waits);
    }
    sum
}

/// What `run` makes of each of `worlds`, on all cores.
fn in_parallel<T: Send>(worlds: &[World], run: impl Fn(World) -> T + Sync) -> Vec<T> {
    let (next, outcomes) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(&world) = worlds.get(number) else {
                        return;
                    };
                    let outcome = run(world);
                    outcomes.lock().unwrap().push((number, outcome));
                }
            });
        }
    });
    let mut outcomes = outcomes.into_inner().unwrap();
    outcomes.sort_by_key(|(number, _)| *number);
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}

/// Each kind of server, with headers on all answers, on refusals or nowhere, behind each network; skews and drifts
/// come in turn, in another one with each `seed`.
fn worlds(n: u32, seed: u64) -> Vec<World> {
    let mut worlds = Vec::new();
    for kind in Kind::ALL {
        for headers in Headers::ALL {
            for delays in Delays::ALL {
                let turn = worlds.len() + seed as usize;
                worlds.push(World {
                    kind,
                    headers,
                    n,
                    delays,
                    skew: [0, 5, -5, 3_600, -3_600][turn % 5],
                    drift: [0, 200, -200, 20][turn % 4],
                    faults: false,
                    seed: seed * 1_000 + turn as u64,
                });
            }
        }
    }
    worlds
}
