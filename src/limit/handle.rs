//! A look at the limiter, and a hand on it.

use std::{sync::Arc, time::SystemTime};

use tokio::time::Instant;

use super::{
    bucket::Bucket,
    events,
    fleet::{Fleet, outage::Outage},
    rule::{Mode, Rule, Verdict},
    said::Said,
    shared::Shared,
    store::StoreError,
};
use crate::plan::Plan;

/// Shows what a [`PlotonRateLimit`](crate::PlotonRateLimit) does, and changes its plan.
///
/// # Example
///
/// ```
/// use std::time::Duration;
/// use tokio::time::Instant;
/// use tower_ploton::{Plan, PlotonRateLimit, limit::Rule};
///
/// let handle = PlotonRateLimit::new(Plan::Prototyping).handle();
/// handle.set_plan(Plan::Production);
/// let until = Instant::now() + Duration::from_secs(20);
/// handle.pause_until(until);
///
/// let now = handle.snapshot();
/// assert_eq!(now.limit, 1_000);
/// assert_eq!((now.held_by, now.held_until), (Some(Rule::Paused), Some(until)));
/// ```
#[derive(Clone, Debug)]
pub struct RateLimitHandle {
    pub(super) shared: Arc<Shared>,
}

impl RateLimitHandle {
    /// The limiter as it is now.
    #[must_use]
    pub fn snapshot(&self) -> RateLimitSnapshot {
        self.shared.snapshot()
    }

    /// Why the shared store gave no answer; `None` without one, and since it answered again.
    #[must_use]
    pub fn store_error(&self) -> Option<Arc<StoreError>> {
        self.shared
            .with_fleet(|state, _| state.clerk.as_ref()?.error())
    }

    /// Sets the gauges of the limiter to what they are now. What a request changes is set by itself; what changes by time
    /// alone, such as what is left of the plan, is set by this: a program that idles calls it every few seconds. Before
    /// [`metrics::start`](crate::metrics::start) it does nothing.
    #[cfg(feature = "metrics")]
    #[cfg_attr(docsrs, doc(cfg(feature = "metrics")))]
    pub fn publish(&self) {
        self.shared.publish();
    }

    /// Changes the plan, for those who wait too: they keep their order.
    pub fn set_plan(&self, plan: Plan) {
        let plan = plan.requests_per_minute();
        self.shared
            .change(|state, _, _| state.bucket.set_plan(plan));
    }

    /// Lets no request leave before `until`, as a 429 does: one goes ahead alone then. A pause that lasts longer already
    /// is not shortened, and an instant that is past changes nothing. Other processes that share the plan by a store go on.
    pub fn pause_until(&self, until: Instant) {
        let paused = self.shared.change(|state, now, _| {
            if until <= now {
                return None;
            }
            state.bucket.pause_until(until);
            let until = state.bucket.paused_until(now)?;
            Some((until.saturating_duration_since(now), state.queue.waiting()))
        });
        if let Some((pause, waiting)) = paused {
            events::paused_by_hand(pause, waiting);
        }
    }
}

/// A [`PlotonRateLimit`](crate::PlotonRateLimit) at one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RateLimitSnapshot {
    /// Requests a minute that the plan allows.
    pub limit: u32,
    /// How many more would be within the plan now, or are left of the server's window.
    pub remaining: u32,
    /// How many of them may leave at once, if nothing holds them back, because few left before.
    pub at_once: u32,
    /// Requests on their way.
    pub in_flight: u32,
    /// Requests and services that wait for their turn.
    pub waiting: usize,
    /// Until when nothing leaves; `Some` in a pause.
    pub paused_until: Option<Instant>,
    /// How it goes on.
    pub mode: Mode,
    /// The rule that holds the head of the queue back, or would; `None` where a request could leave now.
    pub held_by: Option<Rule>,
    /// When a request may leave then: that rule or one after it holds it for so long. `None` where that depends on a
    /// request on its way.
    pub held_until: Option<Instant>,
    /// What the last answer with rate headers said.
    pub server: Option<Reported>,
    /// Requests of others that the server counts with ours, as far as its last answer shows.
    pub others: u32,
    /// Until when the key counts as shared with others, at the least; `Some` while it does. None of them may be seen then
    /// any longer, but they were a few windows ago, and no window is used as a whole yet.
    pub shared_until: Option<Instant>,
    /// What is between the limiter and the store that it shares its plan by; `None` without one.
    pub store: Option<StoreState>,
}

impl RateLimitSnapshot {
    pub(super) fn new(bucket: &Bucket, waiting: usize, now: Instant) -> Self {
        let (held_by, held_until) = match bucket.verdict(now) {
            Verdict::Now(_) => (None, None),
            Verdict::Later(rule, until) => (Some(rule), until),
        };
        Self {
            limit: bucket.plan(),
            remaining: bucket.remaining(now),
            at_once: bucket.at_once(now),
            in_flight: bucket.in_flight(),
            waiting,
            paused_until: bucket.paused_until(now),
            mode: bucket.mode(now),
            held_by,
            held_until,
            server: bucket.said().map(Reported::new),
            others: bucket.others(),
            shared_until: bucket.shared_until(now),
            store: bucket.fleet().map(|fleet| StoreState::new(fleet, now)),
        }
    }
}

/// A limiter's side of the [`SharedStore`](super::SharedStore).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreState {
    /// Processes that were there when the store last answered, with this one; 0 if it never did.
    pub processes: u32,
    /// Tokens that this one has from it.
    pub tokens: u32,
    /// Since when it gives no answer; `None` while it does. [`RateLimitHandle::store_error`] tells why.
    pub away_since: Option<Instant>,
    /// When it is tried again; `Some` while it gives no answer.
    pub tried_at: Option<Instant>,
    /// What becomes of requests while it gives no answer.
    pub on_outage: Outage,
}

impl StoreState {
    fn new(fleet: &Fleet, now: Instant) -> Self {
        Self {
            processes: fleet.processes(),
            tokens: fleet.tokens(now),
            away_since: fleet.down().map(|down| down.since()),
            tried_at: fleet.down().map(|down| down.again()),
            on_outage: fleet.outage(),
        }
    }
}

/// What a server said of its rate limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reported {
    /// Requests that it lets through in a window.
    pub limit: u32,
    /// How many of them were left.
    pub remaining: u32,
    /// When more will be left, by the server's own clock.
    pub reset: Option<SystemTime>,
}

impl Reported {
    fn new(said: Said) -> Self {
        let since_1970 = |reset| SystemTime::UNIX_EPOCH.checked_add(reset);
        Self {
            limit: said.limit,
            remaining: said.remaining,
            reset: said.reset.and_then(since_1970),
        }
    }
}
