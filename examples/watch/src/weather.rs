//! The fake Ploton, and what befalls it.

use std::{
    fmt, io,
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Empty;
use hyper::{
    body::Incoming,
    service::{Service, service_fn},
};
use tokio::{
    task::{AbortHandle, JoinSet},
    time::{Instant, interval_at},
};
use tower::ServiceExt;
use tower_ploton::mock::{FakeBody, FakePloton, Fault, RateLimitModel};

/// What the server's day is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spell {
    Calm,
    /// Another program uses the account, and leaves half of the plan.
    Neighbour,
    /// Nothing is answered well; some requests are done, and the connection is cut.
    Outage,
    /// Answers take long, some longer than a client waits for.
    Slow,
}

/// A fake Ploton whose spells follow one another.
#[derive(Clone)]
pub(crate) struct Weather {
    fake: FakePloton,
    plan: NonZeroU32,
    window: Duration,
    start: Instant,
    lasts: Duration,
    troubles: Arc<AtomicUsize>,
}

impl Weather {
    pub(crate) fn new(plan: NonZeroU32, window: Duration, lasts: Duration) -> Self {
        let limit = RateLimitModel::fixed_window(plan, window);
        let fake = FakePloton::new().rate_limit(limit);
        Self {
            fake: fake.latency(Duration::from_millis(20)),
            plan,
            window,
            start: Instant::now(),
            lasts,
            troubles: Arc::default(),
        }
    }

    pub(crate) const fn fake(&self) -> &FakePloton {
        &self.fake
    }

    pub(crate) fn plan_a_second(&self) -> u64 {
        u64::from(self.plan.get()) / self.window.as_secs().max(1)
    }

    pub(crate) fn spell(&self) -> Spell {
        let elapsed = Instant::now().saturating_duration_since(self.start);
        let share = elapsed.as_secs_f64() / self.lasts.as_secs_f64();
        let spells = SPELLS.iter().rev();
        let now = spells.copied().find(|(_, begin)| share >= *begin);
        now.map_or(Spell::Calm, |(spell, _)| spell)
    }

    /// The fake, in the weather of each request's arrival.
    pub(crate) fn service(
        &self,
    ) -> impl Service<
        Request<Incoming>,
        Response = Response<FakeBody>,
        Error = io::Error,
        Future: Send,
    > + Clone
    + Send
    + use<> {
        let weather = self.clone();
        service_fn(move |request| {
            let number = weather.troubles.fetch_add(1, Ordering::Relaxed);
            if let Some(fault) = weather.spell().fault(number) {
                weather.fake.fail_next(fault);
            }
            weather.fake.clone().oneshot(request)
        })
    }

    /// Another program that takes all that is left of the same account while it is its spell.
    pub(crate) fn neighbour(&self) -> AbortHandle {
        let weather = self.clone();
        let neighbour = tokio::spawn(async move {
            // Half a window after each begin.
            let mut ticks = interval_at(weather.start + weather.window / 2, weather.window);
            loop {
                ticks.tick().await;
                if weather.spell() != Spell::Neighbour {
                    continue;
                }
                // All at once: if what is left fell step by step, the limiter would see it, and nothing be refused.
                let requests = (0..weather.plan.get()).filter_map(|_| {
                    let request = Request::get("https://api.ploton.ai/v1/tasks?limit=1")
                        .header("authorization", "Bearer pk_test_neighbour0neighbour");
                    request.body(Empty::<Bytes>::new()).ok()
                });
                // The last are refused when nothing is left, and so is the load then.
                let calls = requests.map(|request| weather.fake.clone().oneshot(request));
                calls.collect::<JoinSet<_>>().join_all().await;
            }
        });
        neighbour.abort_handle()
    }
}

impl Spell {
    /// What befalls request number `number`.
    const fn fault(self, number: usize) -> Option<Fault> {
        match (self, number % 4) {
            (Self::Calm | Self::Neighbour, _) => None,
            (Self::Outage, 0) => Some(Fault::CutAfter),
            (Self::Outage, 1) => Some(Fault::CutBefore),
            (Self::Outage, _) => Some(Fault::Status(StatusCode::SERVICE_UNAVAILABLE)),
            // Longer than the timeout of an attempt.
            (Self::Slow, 0) => Some(Fault::Delay(Duration::from_millis(2_500))),
            (Self::Slow, _) => Some(Fault::Delay(Duration::from_millis(600))),
        }
    }
}

impl fmt::Display for Spell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Calm => "calm",
            Self::Neighbour => "rate limit",
            Self::Outage => "outage",
            Self::Slow => "slow",
        })
    }
}

/// "First calm, from 4 s on rate limit, …"
impl fmt::Display for Weather {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("First calm")?;
        for (spell, begin) in &SPELLS[1..] {
            let at = self.lasts.mul_f64(*begin).as_secs();
            write!(f, ", from {at} s on {spell}")?;
        }
        f.write_str(".")
    }
}

/// With the share of the time at which each begins.
const SPELLS: [(Spell, f64); 5] = [
    (Spell::Calm, 0.0),
    (Spell::Neighbour, 0.2),
    (Spell::Outage, 0.45),
    (Spell::Slow, 0.65),
    (Spell::Calm, 0.8),
];
