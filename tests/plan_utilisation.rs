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

#[path = "support/network.rs"]
mod network;
#[path = "support/servers.rs"]
mod servers;

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
/// come in turn.
fn worlds(n: u32) -> Vec<World> {
    let mut worlds = Vec::new();
    for kind in Kind::ALL {
        for headers in Headers::ALL {
            for delays in Delays::ALL {
                let turn = worlds.len();
                worlds.push(World {
                    kind,
                    headers,
                    n,
                    delays,
                    skew: [0, 5, -5, 3_600, -3_600][turn % 5],
                    drift: [0, 200, -200, 20][turn % 4],
                    faults: false,
                    seed: turn as u64,
                });
            }
        }
    }
    worlds
}

/// Prints one line for each server, headers and plan, whatever the network.
fn print(title: &str, worlds: &[World], outcomes: &[Outcome]) {
    let mut table = format!(
        "{title}\n{:<18} {:<10} {:>5} {:>7} {:>5} {:>16} {:>10}\n",
        "server", "headers", "N", "sent", "429s", "use of the plan", "mean wait"
    );
    let mut rows: Vec<(World, Vec<Outcome>)> = Vec::new();
    for (world, outcome) in worlds.iter().zip(outcomes) {
        let key = |world: &World| (world.kind, world.headers, world.n);
        match rows.last_mut() {
            Some((last, row)) if key(last) == key(world) => row.push(*outcome),
            _ => rows.push((*world, vec![*outcome])),
        }
    }
    for (world, row) in rows {
        let Outcome { tally, used, waits } = sum(&row);
        writeln!(
            table,
            "{:<18} {:<10} {:>5} {:>7} {:>5} {:>14.2} % {:>8.2} s",
            world.kind.name(),
            world.headers.name(),
            world.n,
            tally.sent(),
            tally.refused,
            used / row.len() as f64 * 100.0,
            waits.mean(),
        )
        .unwrap();
    }
    println!("{table}");
}

/// All that is not as promised, at once.
fn assert_promised(
    worlds: &[World],
    outcomes: &[Outcome],
    promised: impl Fn(&World, &Outcome) -> bool,
) {
    let broken: Vec<String> = worlds
        .iter()
        .zip(outcomes)
        .filter(|(world, outcome)| !promised(world, outcome))
        .map(|(world, outcome)| format!("{world:?}: {outcome:?}"))
        .collect();
    assert!(
        broken.is_empty(),
        "{} of {}:\n{}",
        broken.len(),
        worlds.len(),
        broken.join("\n")
    );
}

/// A counter estimates its window, and may refuse what was sent at an even pace; one that counts to the fraction of a
/// request does so more than once before the pace is low enough.
fn most_refused(kind: Kind) -> u32 {
    match kind {
        Kind::CounterFloored => 2,
        Kind::CounterStrict => 4,
        _ => 0,
    }
}

/// The least part of the plan that a saturated run uses. The count starts with the first request: the first minute is
/// always paced, since nothing is known of the server yet. After that a server with windows and headers gives N in each
/// of its windows, and one that begins within the run counts whole, as nothing is left for its end.
fn least_used(world: &World) -> f64 {
    match world.kind {
        // The probe that opens a window may take a second more, and the window is not used meanwhile.
        kind if kind.has_windows() && world.headers == Headers::Always => match world.delays {
            Delays::Uneven => 0.998,
            _ => 0.999,
        },
        Kind::CounterFloored => 0.98,
        // A refusal pauses for as long as a minute where no header says less: 90 % on average, and one more or less is 5 %.
        Kind::CounterStrict => 0.80,
        // The step has room for delays that differ by 250 ms; these differ by more than a second.
        _ if world.delays == Delays::Uneven => 0.985,
        _ => 0.99,
    }
}

fn nobody_is_refused_and_the_plan_is_used(n: u32) {
    let worlds = worlds(n);
    let outcomes = in_parallel(&worlds, |world| saturated(world, 20));
    print("20 minutes saturated", &worlds, &outcomes);
    assert_promised(&worlds, &outcomes, |world, outcome| {
        outcome.tally.refused <= most_refused(world.kind) && outcome.used >= least_used(world)
    });
}

#[test]
fn a_saturated_plan_of_100_is_used_and_nobody_is_refused() {
    nobody_is_refused_and_the_plan_is_used(100);
}

#[test]
fn a_saturated_plan_of_1000_is_used_and_nobody_is_refused() {
    nobody_is_refused_and_the_plan_is_used(1_000);
}

#[test]
fn answers_that_are_lost_or_come_without_headers_make_no_refusals() {
    let mut worlds = worlds(100);
    worlds.iter_mut().for_each(|world| world.faults = true);
    let outcomes = in_parallel(&worlds, |world| saturated(world, 20));
    print("20 minutes saturated, with faults", &worlds, &outcomes);
    assert_promised(&worlds, &outcomes, |world, outcome| {
        outcome.tally.refused <= most_refused(world.kind) && outcome.used >= 0.9
    });
}

/// Five minutes saturated, begun when another process has used `part` of the plan 20 s ago.
fn restarted(world: World, part: f64) -> Outcome {
    paused().block_on(async {
        let remote = world.begin();
        remote.used_by_others((f64::from(world.n) * part) as u32);
        sleep(Duration::from_secs(20)).await;
        let service = PlotonRateLimit::new(plan(world.n)).layer(remote.clone());
        let end = Instant::now() + MINUTE * 5;
        outcome(&remote, saturate(service, &world, end).await, world.n * 5)
    })
}

#[test]
fn a_restart_in_a_used_window_makes_no_refusals_once_headers_told() {
    let mut worlds = worlds(100);
    worlds.retain(|world| world.headers == Headers::Always && world.kind != Kind::CounterStrict);
    for part in [0.6, 1.0] {
        let outcomes = in_parallel(&worlds, |world| restarted(world, part));
        print(&format!("restarted with {part} used"), &worlds, &outcomes);
        assert_promised(&worlds, &outcomes, |_, outcome| {
            outcome.tally.refused_though_told == 0
        });
    }
}

/// An hour saturated, by `clients` of one key that know nothing of each other.
fn neighbours(world: World, clients: u32) -> Vec<Outcome> {
    paused().block_on(async {
        let mut remotes = vec![world.begin()];
        for _ in 1..clients {
            remotes.push(remotes[0].another_client());
        }
        let end = Instant::now() + MINUTE * 60;
        let mut running = JoinSet::new();
        for (turn, remote) in remotes.into_iter().enumerate() {
            running.spawn(async move {
                sleep(Duration::from_millis(1_700 * turn as u64)).await;
                let service = PlotonRateLimit::new(plan(world.n)).layer(remote.clone());
                let waits = saturate(service, &world, end).await;
                outcome(&remote, waits, world.n * 60)
            });
        }
        running.join_all().await
    })
}

#[test]
fn processes_with_one_key_share_a_server_with_windows_by_its_headers() {
    let mut worlds = worlds(100);
    worlds.retain(|world| world.headers == Headers::Always && world.kind.has_windows());
    for clients in [2, 4] {
        let each = in_parallel(&worlds, |world| neighbours(world, clients));
        let together: Vec<Outcome> = each.iter().map(|outcomes| sum(outcomes)).collect();
        print(
            &format!("an hour of {clients} processes"),
            &worlds,
            &together,
        );
        assert_promised(&worlds, &together, |_, outcome| {
            f64::from(outcome.tally.refused) <= 0.002 * f64::from(outcome.tally.sent())
                && outcome.used >= 0.95
        });
        for (world, outcomes) in worlds.iter().zip(&each) {
            let used = outcomes.iter().map(|outcome| outcome.used);
            let (poorest, richest) = (used.clone().fold(1.0, f64::min), used.fold(0.0, f64::max));
            assert!(poorest >= 0.8 * richest, "{world:?}: {outcomes:?}");
        }
    }
}

/// Groups of requests at random instants, `load` of the plan on average, in geometric sizes around N/14: an even pace
/// makes a request wait for 5.2 s at a load of 0.3 and for 10.1 s at 0.6, as in the simulation of the rules.
async fn groups(
    service: RateLimitService<Remote>,
    world: &World,
    load: f64,
    end: Instant,
) -> Waits {
    let mut random = StdRng::seed_from_u64(!world.seed);
    let (n, waits) = (f64::from(world.n), Arc::new(Mutex::new(Waits::default())));
    let size = n / 14.0;
    let gap = size / (load * n / MINUTE.as_secs_f64());
    while Instant::now() < end {
        let mut exponential = || -(1.0 - random.random::<f64>()).ln();
        sleep(Duration::from_secs_f64(gap * exponential())).await;
        let count = 1 + (exponential() / -(1.0 - 1.0 / size).ln()) as u32;
        for _ in 0..count {
            let (mut service, waits) = (service.clone(), waits.clone());
            tokio::spawn(async move {
                let asked = Instant::now();
                service.ready().await.unwrap();
                waits.lock().unwrap().add(Instant::now() - asked);
                let _ = service.call(Request::new(())).await;
            });
        }
    }
    *waits.lock().unwrap()
}

fn bursty(world: World, load: f64, hours: u32) -> Outcome {
    paused().block_on(async {
        let remote = world.begin();
        let service = PlotonRateLimit::new(plan(world.n)).layer(remote.clone());
        let end = Instant::now() + MINUTE * 60 * hours;
        outcome(
            &remote,
            groups(service, &world, load, end).await,
            world.n * 60 * hours,
        )
    })
}

#[test]
fn what_idleness_earned_lets_groups_of_requests_leave_with_little_wait() {
    let mut worlds = worlds(100);
    worlds.retain(|world| {
        let kinds = [
            Kind::LogOldest,
            Kind::LogNow,
            Kind::BucketFull,
            Kind::BucketNext,
        ];
        world.headers == Headers::Always && kinds.contains(&world.kind)
    });
    let outcomes = in_parallel(&worlds, |world| bursty(world, 0.3, 20));
    print(
        "20 hours of groups of requests, 30 % of the plan",
        &worlds,
        &outcomes,
    );
    assert_promised(&worlds, &outcomes, |_, outcome| outcome.tally.refused == 0);
    for group in outcomes.chunks(6) {
        let wait = sum(group).waits.mean();
        assert!((0.4..=0.6).contains(&wait), "{wait} s");
    }
}
