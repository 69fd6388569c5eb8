//! One fleet, one store and one server, in virtual time.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use http::Request;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use tower::{Layer, Service, ServiceExt};
use tower_ploton::{Plan, PlotonRateLimit, limit::Outage};

use super::{
    far::{Center, FarStore, Way},
    network::{Delays, Remote, World},
    servers::{Headers, Kind},
};

/// What is counted, after a minute in which all begin.
pub(crate) const MINUTES: u32 = 20;
const MINUTE: Duration = Duration::from_secs(60);
/// All begin within this time.
const BEGINNING: Duration = Duration::from_secs(10);
/// The longest that one waits between two requests that has few.
const IDLE: Duration = Duration::from_secs(10 * 60);
/// What one that comes and goes lives for, on average.
const LIFE: f64 = 120.0;
/// Lives that are shorter, or too short to send so much, say little about shares where all come and go.
const LONG_LIFE: Duration = Duration::from_secs(60);
const ENOUGH: f64 = 20.0;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Case {
    pub(crate) processes: u32,
    /// Requests a minute.
    pub(crate) n: u32,
    pub(crate) way: Way,
    pub(crate) kind: Kind,
    pub(crate) comes_and_goes: bool,
    /// Nine in ten send a request now and then only.
    pub(crate) mostly_idle: bool,
    /// `Some` where the store is away again and again.
    pub(crate) outages: Option<Outage>,
    pub(crate) seed: u64,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome {
    /// Of what the plan names for the time, as a fraction.
    pub(crate) used: f64,
    /// From the very beginning.
    pub(crate) refused: u64,
    /// Jain's index of what each process got, by the time that it was there; `NaN` where that would be the noise of a few
    /// requests.
    pub(crate) jain: f64,
    pub(crate) calls_per_second: f64,
    pub(crate) calls_per_grant: f64,
}

/// What one process got in its life, or in so much of it as is counted.
struct Life {
    remote: Remote,
    busy: bool,
    allowed_before: u32,
    from: Instant,
    to: Option<Instant>,
}

impl Case {
    pub(crate) fn run(self) -> Outcome {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build();
        runtime.unwrap().block_on(self.simulate())
    }

    async fn simulate(self) -> Outcome {
        let center = Center::new(self.way, self.outages.is_some(), self.seed);
        let first = self.world().begin();
        let mut random = StdRng::seed_from_u64(!self.seed);
        let start = Instant::now();
        let end = start + MINUTE * (1 + MINUTES);
        let mut slots = JoinSet::new();
        for number in 0..self.processes {
            let begins = start + BEGINNING.mul_f64(random.random());
            let slot = Slot {
                case: self,
                center: center.clone(),
                remote: first.clone(),
                busy: !self.mostly_idle || number % 10 == 0,
                random: StdRng::seed_from_u64(random.random()),
                counted_from: start + MINUTE,
                end,
            };
            slots.spawn(slot.run(begins));
        }
        sleep_until(start + MINUTE).await;
        let calls_before = center.calls();
        let mut lives = Vec::new();
        while let Some(slot) = slots.join_next().await {
            lives.extend(slot.unwrap());
        }
        self.sum_up(&lives, center.calls() - calls_before, end)
    }

    fn sum_up(self, lives: &[Life], calls: u64, end: Instant) -> Outcome {
        let seconds = MINUTE.as_secs_f64() * f64::from(MINUTES);
        let expected = f64::from(self.n) / 60.0 / f64::from(self.processes);
        let (mut allowed, mut refused, mut rates) = (0_u64, 0_u64, Vec::new());
        for life in lives {
            let tally = life.remote.tally();
            let its = tally.allowed - life.allowed_before;
            allowed += u64::from(its);
            refused += u64::from(tally.refused);
            let lasted = life.to.unwrap_or(end).saturating_duration_since(life.from);
            let says_something = lasted >= LONG_LIFE && lasted.as_secs_f64() * expected >= ENOUGH;
            if life.busy && (says_something || !self.comes_and_goes) {
                rates.push(f64::from(its) / lasted.as_secs_f64());
            }
        }
        Outcome {
            used: allowed as f64 / (f64::from(self.n) * f64::from(MINUTES)),
            refused,
            jain: jain(&rates),
            calls_per_second: calls as f64 / seconds,
            calls_per_grant: calls as f64 / allowed as f64,
        }
    }

    fn world(self) -> World {
        World {
            kind: self.kind,
            headers: Headers::Always,
            n: self.n,
            delays: Delays::Far,
            skew: 0,
            drift: 0,
            faults: false,
            seed: self.seed,
        }
    }
}

/// One place in the fleet: a process, or one after the other.
struct Slot {
    case: Case,
    center: Arc<Center>,
    remote: Remote,
    busy: bool,
    random: StdRng,
    counted_from: Instant,
    end: Instant,
}

impl Slot {
    async fn run(mut self, begins: Instant) -> Vec<Life> {
        let mut lives = Vec::new();
        sleep_until(begins).await;
        while Instant::now() < self.end {
            let lasts = if self.case.comes_and_goes {
                let part: f64 = self.random.random();
                Duration::from_secs_f64(LIFE * -(1.0 - part).ln())
            } else {
                self.end - begins
            };
            let ends = self.end.min(Instant::now() + lasts);
            lives.push(self.live(ends).await);
            sleep(Duration::from_secs_f64(5.0 * self.random.random::<f64>())).await;
        }
        lives
    }

    async fn live(&mut self, ends: Instant) -> Life {
        let remote = self.remote.another_client();
        let store = FarStore::new(self.center.clone());
        let n = NonZeroU32::new(self.case.n).unwrap();
        let plan = Plan::Enterprise {
            requests_per_minute: n,
            concurrent_tasks: n,
        };
        let limit = PlotonRateLimit::new(plan)
            .shared(store.clone())
            .on_outage(self.case.outages.unwrap_or_default());
        let service = limit.layer(remote.clone());
        // All together more than can ever be on their way, and two at least of each.
        let many = if self.busy {
            self.case.n / 10 / self.case.processes + 2
        } else {
            1
        };
        let mut callers = JoinSet::new();
        for _ in 0..many {
            let mut service = service.clone();
            let pause = (!self.busy).then(|| IDLE.mul_f64(self.random.random()));
            callers.spawn(async move {
                loop {
                    if let Some(pause) = pause {
                        sleep(pause).await;
                    }
                    let request = Request::post("/v1/tasks").body(()).unwrap();
                    // What became of it is counted at the server.
                    let _ = service.ready().await.unwrap().call(request).await;
                }
            });
        }
        let begins = Instant::now();
        let mut allowed_before = 0;
        if begins < self.counted_from {
            sleep_until(ends.min(self.counted_from)).await;
            allowed_before = remote.tally().allowed;
        }
        sleep_until(ends).await;
        if self.random.random_bool(0.5) {
            store.crash();
        }
        callers.shutdown().await;
        Life {
            remote,
            busy: self.busy,
            allowed_before,
            from: begins.max(self.counted_from),
            to: (ends < self.end).then_some(ends),
        }
    }
}

/// 1 where all are equal, and one part of all where one has everything.
fn jain(values: &[f64]) -> f64 {
    let sum: f64 = values.iter().sum();
    let squares: f64 = values.iter().map(|value| value * value).sum();
    sum * sum / (values.len() as f64 * squares)
}
