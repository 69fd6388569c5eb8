//! Starts everything, kills some of it, and shows each second who got how much.

use std::time::Duration;

use http::StatusCode;
use tokio::time::{Instant, sleep, sleep_until};
use tower::BoxError;
use tower_ploton::{
    mock::{Attempt, FakePloton, Fault, RateLimitModel},
    redis::Scope,
};

use crate::{
    INTERRUPTED, KEY, NOT_AS_PROMISED, PLAN, pace,
    store::{Redis, reach},
    workers::{Addresses, Workers},
};

pub(crate) struct Options {
    pub(crate) workers: u32,
    pub(crate) seconds: u32,
    /// `None` where it is to start one.
    pub(crate) redis: Option<String>,
}

/// What happens, and when: after so many hundredths of the time.
#[derive(Clone, Copy)]
enum Event {
    KillRedis,
    StartRedis,
    KillWorker,
    StartWorker,
}

const EVENTS: [(u32, Event); 4] = [
    (25, Event::KillRedis),
    (45, Event::StartRedis),
    (65, Event::KillWorker),
    (80, Event::StartWorker),
];

pub(crate) async fn run(options: Options) -> Result<u8, BoxError> {
    // What is dropped ends its processes.
    tokio::select! {
        code = show(options) => code,
        () = stopped() => {
            eprintln!("\nstopped: all that was started is ended");
            Ok(INTERRUPTED)
        }
    }
}

async fn show(options: Options) -> Result<u8, BoxError> {
    let (redis, url) = match options.redis {
        Some(url) => {
            let reached = reach(&url).await;
            reached.map_err(|error| format!("--redis: {error}"))?;
            (None, url)
        }
        None => {
            let redis = Redis::start().await?;
            let url = redis.url();
            (Some(redis), url)
        }
    };
    let fake = fake();
    let server = fake.listen().await?;
    let addresses = Addresses {
        ploton: server.url(),
        redis: url,
        // Another run on the same Redis has a plan of its own.
        scope: Scope::parse(&format!("fleet-example-{}", std::process::id()))?,
    };
    println!(
        "{} workers share {} requests a minute: {:.1} a second.\n",
        options.workers,
        PLAN.requests_per_minute(),
        pace()
    );
    let mut fleet = Fleet {
        count: usize::try_from(options.workers)?,
        workers: Workers::start(addresses, options.workers)?,
        redis,
        fake,
        seen: 0,
    };
    fleet.work(options.seconds).await?;
    fleet.workers.stop();
    let until = Instant::now() + Duration::from_secs(30);
    while fleet.workers.running() > 0 && Instant::now() < until {
        sleep(Duration::from_millis(50)).await;
    }
    Ok(fleet.sum_up(options.seconds))
}

/// It lets through what the plan allows, and 25 requests more if they come at once after fewer; that is what a busy machine
/// may hold up. It fails now and then, so that tasks could be created twice.
fn fake() -> FakePloton {
    let few = std::num::NonZeroU32::new(25).unwrap_or(std::num::NonZeroU32::MIN);
    let minute = Duration::from_secs(60);
    FakePloton::new()
        .accept_key(KEY)
        .rate_limit(RateLimitModel::token_bucket(
            few,
            PLAN.requests_per_minute(),
            minute,
        ))
        .fault_rate(Fault::Status(StatusCode::INTERNAL_SERVER_ERROR), 0.02)
        .fault_rate(Fault::CutAfter, 0.02)
}

struct Fleet {
    count: usize,
    workers: Workers,
    /// `None` where it is somebody else's.
    redis: Option<Redis>,
    fake: FakePloton,
    /// Attempts that were shown.
    seen: usize,
}

impl Fleet {
    async fn work(&mut self, seconds: u32) -> Result<(), BoxError> {
        self.head();
        let start = Instant::now();
        for second in 1..=seconds {
            for (part, event) in EVENTS {
                let due = seconds * part / 100;
                if due + 1 == second {
                    self.happen(event).await?;
                }
            }
            sleep_until(start + Duration::from_secs(second.into())).await;
            self.row(second);
        }
        if self.workers.running() < self.count {
            return Err("a worker ended by itself".into());
        }
        Ok(())
    }

    async fn happen(&mut self, event: Event) -> Result<(), BoxError> {
        let last = self.count - 1;
        match (event, &mut self.redis) {
            (Event::KillRedis, Some(redis)) => {
                redis.kill();
                println!("   -- Redis is killed: each worker goes on with its share of the plan");
            }
            (Event::StartRedis, Some(redis)) => {
                redis.restart().await?;
                println!("   -- Redis is started again, empty: they are to find it by themselves");
            }
            (Event::KillRedis | Event::StartRedis, None) => {}
            (Event::KillWorker, _) => {
                self.workers.listen();
                self.workers.kill(last);
                println!(
                    "   -- Worker {} is killed: the others get its share",
                    last + 1
                );
            }
            (Event::StartWorker, _) => {
                // All that it said before it was killed.
                self.workers.listen();
                self.workers.start_one(last)?;
                println!(
                    "   -- Worker {} is started again, at the first job it had not finished",
                    last + 1
                );
            }
        }
        Ok(())
    }

    fn head(&self) {
        print!("{:>5} {:>9} {:>8} ", "s", "requests", "of plan");
        for worker in 1..=self.count {
            print!(" {:>9}", format!("worker {worker}"));
        }
        println!("   Redis answers");
    }

    /// What arrived since the last row.
    fn row(&mut self, second: u32) {
        self.workers.listen();
        let attempts = self.fake.attempts();
        let new = attempts.get(self.seen..).unwrap_or_default();
        print!(
            "{second:>5} {:>9} {:>6.0} % ",
            new.len(),
            percent(new.len(), pace())
        );
        for worker in 1..=self.count {
            let its = new.iter().filter(|attempt| sender(attempt) == Some(worker));
            print!(" {:>9}", its.count());
        }
        let running = self.workers.running();
        println!("   {} of {running} workers", self.workers.reaching_redis());
        self.seen = attempts.len();
    }

    fn sum_up(&mut self, seconds: u32) -> u8 {
        self.workers.listen();
        for failure in &self.workers.failures {
            println!("{failure}");
        }
        let counts = self.fake.counts();
        let done = self.workers.done() as u64;
        let shown = percent(self.seen, pace() * f64::from(seconds));
        println!("\nWhat the server counted, which is what matters:");
        println!(
            "  {} attempts; while all was shown, {shown:.0} % of the plan;",
            counts.attempts
        );
        println!(
            "  {} failed or were cut, and were sent again;",
            counts.failed + counts.cut
        );
        println!(
            "  {} came again, and got the stored answer.\n",
            counts.replayed
        );
        println!("tasks.done = {done}");
        println!("tasks.created = {}", counts.created);
        println!("tasks.duplicated = {}", counts.duplicated);
        println!("refused = {}", counts.refused);
        let held = counts.refused == 0
            && counts.duplicated == 0
            && done > 0
            && done <= counts.created
            && self.workers.failures.is_empty();
        if held { 0 } else { NOT_AS_PROMISED }
    }
}

/// Which worker sent it: its idempotency key begins with `fleet-WORKER-`.
fn sender(attempt: &Attempt) -> Option<usize> {
    let key = attempt.idempotency_key.as_deref()?;
    key.split('-').nth(1)?.parse().ok()
}

fn percent(part: usize, whole: f64) -> f64 {
    100.0 * part as f64 / whole
}

/// Waits for Ctrl-C, or for another polite request to end.
async fn stopped() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let kinds = [SignalKind::terminate(), SignalKind::hangup()];
        if let [Ok(mut terminate), Ok(mut hang_up)] = kinds.map(signal) {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
                _ = hang_up.recv() => {}
            }
            return;
        }
    }
    let _ = tokio::signal::ctrl_c().await;
}
