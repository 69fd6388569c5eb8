//! What is run, and what comes of it.

use super::*;

/// How long a request or an answer is on its way.
#[derive(Clone, Copy, Debug)]
pub(super) enum Network {
    /// 0.5 to 20 ms.
    Near,
    /// 10 to 250 ms.
    Far,
    /// As near, but one in a hundred takes a second more.
    Spikes,
}

impl Network {
    pub(super) const ALL: [Self; 3] = [Self::Near, Self::Far, Self::Spikes];

    pub(super) fn delay(self, random: &mut SmallRng) -> Duration {
        let micros = match self {
            Self::Near | Self::Spikes => 500..20_000,
            Self::Far => 10_000..250_000,
        };
        let spike = matches!(self, Self::Spikes) && random.random_range(0..100) == 0;
        Duration::from_micros(random.random_range(micros)) + SECOND * u32::from(spike)
    }
}

/// When requests come.
#[derive(Clone, Copy, Debug)]
pub(super) enum Load {
    /// Always more than may leave.
    Saturated,
    /// Groups of up to this many at once, so that this percentage of the plan is used.
    Groups { most: u32, percent: u32 },
}

/// One run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Case {
    pub(super) kind: Kind,
    pub(super) headers: Headers,
    pub(super) n: u32,
    pub(super) window: Duration,
    pub(super) network: Network,
    pub(super) load: Load,
    pub(super) clients: usize,
    pub(super) length: Duration,
    /// By how many seconds the server's clock is wrong, and by how many parts in a million it gains.
    pub(super) skew: i64,
    pub(super) drift: i64,
    /// One in so many requests is dropped before its answer comes, and one answer in so many has no headers.
    pub(super) faults: Option<u32>,
    /// When the first client is started again: what it knew is gone.
    pub(super) restart: Option<Duration>,
    pub(super) seed: u64,
}

impl Case {
    pub(super) fn new(kind: Kind, headers: Headers, n: u32) -> Self {
        Self {
            kind,
            headers,
            n,
            window: 60 * SECOND,
            network: Network::Near,
            load: Load::Saturated,
            clients: 1,
            length: 1_200 * SECOND,
            skew: 0,
            drift: 0,
            faults: None,
            restart: None,
            seed: 1,
        }
    }

    pub(super) fn run(self) -> Outcome {
        World::new(self).run()
    }
}

/// What came of a run.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) sent: u64,
    pub(super) allowed: u64,
    /// When the server refused a request.
    pub(super) refusals: Vec<Duration>,
    /// What each client was allowed.
    pub(super) shares: Vec<u64>,
    pub(super) waited: Duration,
    /// How long the first client was in window mode.
    pub(super) in_window_mode: Duration,
}

impl Outcome {
    /// The share of the plan that was allowed in all.
    pub(super) fn used(&self, case: Case) -> f64 {
        let windows = case.length.as_secs_f64() / case.window.as_secs_f64();
        self.allowed as f64 / (f64::from(case.n) * windows)
    }

    pub(super) fn mean_wait(&self) -> f64 {
        self.waited.as_secs_f64() / self.sent.max(1) as f64
    }

    /// What the poorest client was allowed for each of the richest.
    pub(super) fn fairness(&self) -> f64 {
        let poorest = self.shares.iter().min().copied().unwrap_or(0);
        let richest = self.shares.iter().max().copied().unwrap_or(1);
        poorest as f64 / richest as f64
    }
}
