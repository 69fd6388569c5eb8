//! Four processes, one real Redis and a fake Ploton with a window of 10 s: they use the whole plan, share it fairly, and see
//! no 429, whatever becomes of Redis.

use std::{env, fs, future::Future, num::NonZeroU32, path::PathBuf, time::Duration};

use http::StatusCode;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use tower_ploton::{
    Plan,
    mock::{Attempt, FakePloton, FakeServer, Outcome, RateLimitModel},
};

use super::{
    server::Redis,
    worker::{Worker, machine_clock},
};

pub(super) const WINDOW: Duration = Duration::from_secs(10);
const N: NonZeroU32 = NonZeroU32::new(200).unwrap();
const WORKERS: usize = 4;
/// By how much the way to the server may differ from request to request.
const ROOM: Duration = Duration::from_millis(250);
/// Until all have found each other and go steadily.
const BEGINNING: Duration = Duration::from_secs(8);
/// How long the plan is to be used.
const CALM: Duration = Duration::from_secs(15);
/// How much later than at once that may be.
const PATIENCE: Duration = Duration::from_secs(40);

pub(super) fn plan() -> Plan {
    Plan::Enterprise {
        requests_per_minute: N,
        concurrent_tasks: N,
    }
}

/// The processes of one case, and their server.
struct Fleet {
    case: &'static str,
    fake: FakePloton,
    _server: FakeServer,
    workers: Vec<Worker>,
    /// Where it stands where Redis is.
    address: PathBuf,
    /// When the first request came.
    start: Instant,
    /// The same by the machine's clock.
    clock: Duration,
}

impl Fleet {
    async fn start(case: &'static str, redis: &Redis) -> Self {
        let name = format!("tower-ploton-fleet-{}-{}", std::process::id(), redis.port());
        let address = env::temp_dir().join(name);
        fs::write(&address, redis.url()).unwrap();
        let fake = FakePloton::new().rate_limit(RateLimitModel::fixed_window(N, WINDOW));
        let server = fake.listen().await.unwrap();
        let worker = |number| Worker::start(&server.url(), &address, number);
        let workers = (0..WORKERS).map(worker).collect();
        while fake.counts().attempts == 0 {
            sleep(Duration::from_millis(20)).await;
        }
        let fleet = Self {
            case,
            fake,
            _server: server,
            workers,
            address,
            start: Instant::now(),
            clock: machine_clock(),
        };
        fleet.at(BEGINNING).await;
        fleet
    }

    /// Waits until so long after the first request.
    async fn at(&self, time: Duration) {
        sleep_until(self.start + time).await;
    }

    fn now(&self) -> Duration {
        Instant::now() - self.start
    }

    fn finds_redis_at(&self, redis: &Redis) {
        // As one step, or a worker reads half of it.
        let new = self.address.with_extension("new");
        fs::write(&new, redis.url()).unwrap();
        fs::rename(&new, &self.address).unwrap();
    }

    /// What arrived in that time.
    fn arrived(&self, from: Duration, to: Duration) -> Vec<Attempt> {
        let (from, to) = (self.start + from, self.start + to);
        let attempts = self.fake.attempts();
        let within = |attempt: &Attempt| (from..to).contains(&attempt.at);
        attempts.into_iter().filter(within).collect()
    }

    /// What came in that time: the part of the plan that was used, and how many by each process.
    fn used(&self, from: Duration, to: Duration) -> (f64, [u32; WORKERS]) {
        let mut shares = [0; WORKERS];
        for attempt in self.arrived(from, to) {
            shares[attempt.credential.unwrap()] += 1;
        }
        let allowed = f64::from(N.get()) * (to - from).as_secs_f64() / WINDOW.as_secs_f64();
        (f64::from(shares.iter().sum::<u32>()) / allowed, shares)
    }

    /// Waits until for 15 s at least so much of the plan was used, and by all processes but `gone` evenly. That begins now,
    /// or soon: a busy machine may stop a process for longer than a token lasts.
    async fn comes_to(&self, least: f64, gone: usize) {
        let from = self.now();
        let mut best = (0.0, [0; WORKERS]);
        while self.now() < from + CALM + PATIENCE {
            self.at(self.now().max(from + CALM) + seconds(1)).await;
            let now = self.now();
            let (used, mut shares) = self.used(now - CALM, now);
            shares.sort_unstable();
            let spread = f64::from(shares[WORKERS - 1] - shares[gone]);
            let mean = f64::from(shares.iter().sum::<u32>()) / (WORKERS - gone) as f64;
            if used >= least && spread <= mean / 10.0 {
                return eprintln!(
                    "{}: {:.1} % used, {shares:?}, {:.0?} later",
                    self.case,
                    100.0 * used,
                    now - CALM - from,
                );
            }
            if used > best.0 {
                best = (used, shares);
            }
        }
        panic!("{}: {:.1} % used, {:?}", self.case, 100.0 * best.0, best.1);
    }

    /// Checks that at least so much of the plan was used since `from`.
    fn expect(&self, least: f64, from: Duration) {
        let (used, shares) = self.used(from, self.now());
        let story = format!(
            "{}: {:.1} % used meanwhile, {shares:?}",
            self.case,
            100.0 * used
        );
        eprintln!("{story}");
        assert!(used >= least, "{story}");
    }

    /// Checks that no more left within any window than the plan allows, and that the server refused none: unless some in the
    /// window before were on their way for longer than the pace has room for, as on a machine that stalls.
    fn expect_no_refusal(&self) {
        let attempts = self.fake.attempts();
        let on_its_way =
            |attempt: &Attempt| (attempt.at - self.start).saturating_sub(self.left(attempt));
        let mut story = String::new();
        let mut refused = false;
        for attempt in &attempts {
            if attempt.outcome == Outcome::Answered(StatusCode::TOO_MANY_REQUESTS) {
                let at = attempt.at - self.start;
                let before = self.arrived(at.saturating_sub(WINDOW), at);
                let late = before.iter().map(on_its_way).max().unwrap_or_default();
                refused |= late <= ROOM;
                story += &format!("; refused after {at:.1?}, where some came {late:.0?} late");
            }
        }
        let mut left: Vec<_> = attempts.iter().map(|attempt| self.left(attempt)).collect();
        left.sort();
        let most = (0..left.len()).map(|first| {
            let within = left[first..].iter();
            within.take_while(|at| **at < left[first] + WINDOW).count()
        });
        let most = most.max().unwrap();
        let story = format!("{}: at most {most} left in a window{story}", self.case);
        eprintln!("{story}");
        assert!(!refused && most <= N.get() as usize, "{story}");
    }

    /// When it left its process.
    fn left(&self, attempt: &Attempt) -> Duration {
        let sent = attempt.idempotency_key.as_ref().unwrap().parse().unwrap();
        Duration::from_micros(sent).saturating_sub(self.clock)
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        // Before what they read is gone.
        self.workers.clear();
        let _ = fs::remove_file(&self.address);
    }
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

async fn undisturbed() {
    let redis = Redis::start().await;
    let fleet = Fleet::start("undisturbed", &redis).await;
    fleet.comes_to(0.98, 0).await;
    fleet.expect_no_refusal();
}

async fn redis_is_killed_and_started_again() {
    let mut redis = Redis::start().await;
    let fleet = Fleet::start("killed", &redis).await;
    redis.kill();
    fleet.at(seconds(16)).await;
    fleet.expect(0.75, seconds(9));
    redis.restart().await;
    fleet.comes_to(0.98, 0).await;
    fleet.expect_no_refusal();
}

/// Nobody knows then what others reserved, so nothing begins for a second.
async fn redis_is_flushed_three_times() {
    let redis = Redis::start().await;
    let fleet = Fleet::start("flushed", &redis).await;
    for _ in 0..3 {
        redis.run("FLUSHALL").await;
        sleep(seconds(4)).await;
    }
    fleet.expect(0.5, seconds(8));
    fleet.comes_to(0.98, 0).await;
    fleet.expect_no_refusal();
}

async fn redis_forgets_the_script_again_and_again() {
    let redis = Redis::start().await;
    let fleet = Fleet::start("script flushed", &redis).await;
    let flushes = async {
        loop {
            redis.run("SCRIPT FLUSH").await;
            sleep(Duration::from_millis(300)).await;
        }
    };
    tokio::select! {
        () = flushes => {}
        () = fleet.comes_to(0.98, 0) => {}
    }
    fleet.expect_no_refusal();
}

/// The primary dies; a while later its replica is promoted, and a while after that all are told where it is.
async fn redis_dies_and_a_replica_takes_over() {
    let (mut primary, replica) = (Redis::start().await, Redis::start().await);
    replica.follow(&primary).await;
    let fleet = Fleet::start("failover", &primary).await;
    primary.kill();
    fleet.at(seconds(11)).await;
    replica.run("REPLICAOF NO ONE").await;
    fleet.at(seconds(12)).await;
    fleet.finds_redis_at(&replica);
    fleet.comes_to(0.98, 0).await;
    fleet.expect_no_refusal();
}

/// Two change places while both live: the connections last, and lead to one that can't write.
async fn redis_is_demoted() {
    let (old, new) = (Redis::start().await, Redis::start().await);
    new.follow(&old).await;
    let fleet = Fleet::start("demoted", &old).await;
    new.run("REPLICAOF NO ONE").await;
    old.follow(&new).await;
    fleet.at(seconds(11)).await;
    fleet.finds_redis_at(&new);
    fleet.comes_to(0.98, 0).await;
    fleet.expect_no_refusal();
}

async fn redis_hangs_for_a_while() {
    let redis = Redis::start().await;
    let fleet = Fleet::start("hangs", &redis).await;
    redis.hang();
    fleet.at(seconds(15)).await;
    fleet.expect(0.75, seconds(9));
    redis.go_on();
    fleet.comes_to(0.98, 0).await;
    fleet.expect_no_refusal();
}

/// Three go on, and use what the fourth does not.
async fn a_worker_is_killed() {
    let redis = Redis::start().await;
    let mut fleet = Fleet::start("worker killed", &redis).await;
    fleet.workers[1].kill();
    fleet.comes_to(0.98, 1).await;
    fleet.expect_no_refusal();
}

/// Side by side, since each takes half a minute.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_processes_use_the_plan_and_are_never_refused() {
    let mut cases = JoinSet::new();
    cases.spawn(undisturbed());
    cases.spawn(after(1, redis_is_killed_and_started_again()));
    cases.spawn(after(2, redis_is_flushed_three_times()));
    cases.spawn(after(3, redis_forgets_the_script_again_and_again()));
    cases.spawn(after(4, redis_dies_and_a_replica_takes_over()));
    cases.spawn(after(5, redis_is_demoted()));
    cases.spawn(after(6, redis_hangs_for_a_while()));
    cases.spawn(after(7, a_worker_is_killed()));
    let mut failures = Vec::new();
    while let Some(case) = cases.join_next().await {
        failures.extend(case.err());
    }
    assert!(failures.is_empty(), "{failures:?}");
}

/// A bit after the others, since a machine is slow to start forty processes at once.
async fn after(turn: u64, case: impl Future<Output = ()>) {
    sleep(Duration::from_millis(500 * turn)).await;
    case.await;
}
