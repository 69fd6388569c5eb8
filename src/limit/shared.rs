//! The bucket and the queue behind one short lock.

use std::{num::NonZeroU32, sync::PoisonError, time::Duration};

use tokio::time::Instant;

use super::{
    RateLimitSnapshot,
    bucket::{Bucket, Sent},
    events::{News, Seen},
    fleet::{
        clerk::{Call, Clerk},
        outage::Outage,
    },
    queue::{Outlook, Queue, Wakers},
    rule::Verdict,
};
use crate::{
    headers::date::Wall,
    sync::{Mutex, MutexGuard},
};

/// What all services made by one layer share.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    pub(super) wall: Wall,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) bucket: Bucket,
    pub(super) queue: Queue,
    pub(super) pauses_on_503: bool,
    pub(super) outage: Outage,
    /// `Some` where the plan is shared by a store.
    pub(super) clerk: Option<Clerk>,
    /// What the log was told of last.
    seen: Seen,
    /// The time of the last look.
    latest: Instant,
}

impl Shared {
    pub(super) fn new(plan: NonZeroU32) -> Self {
        let bucket = Bucket::new(plan, WINDOW);
        let now = Instant::now();
        let seen = Seen::at(&bucket, now);
        Self {
            state: Mutex::new(State {
                bucket,
                queue: Queue::default(),
                pauses_on_503: true,
                outage: Outage::default(),
                clerk: None,
                seen,
                latest: now,
            }),
            wall: Wall::anchored(),
        }
    }

    /// A place whose turn it is at once, where nobody is there and there is a token: nearly always.
    pub(super) fn enter(&self) -> Option<u64> {
        let mut state = self.lock();
        let now = Instant::now();
        state.latest = now;
        (state.queue.is_empty() && state.bucket.lets_one(now)).then(|| state.queue.enter(now))
    }

    /// Takes the token of such a place, if nobody came meanwhile and it is still there: nearly always. Not after `deadline`.
    pub(super) fn take(&self, ticket: u64, deadline: Option<Instant>) -> Option<Sent> {
        let mut state = self.lock();
        let now = Instant::now();
        state.latest = now;
        let is_late = deadline.is_some_and(|deadline| deadline <= now);
        if is_late || !state.queue.is_only(ticket) || !state.bucket.lets_one(now) {
            return None;
        }
        state.queue.take_only(ticket);
        // What is new is told when it ends.
        let sent = state.bucket.send(now, None);
        drop(state);
        #[cfg(feature = "metrics")]
        self.publish();
        Some(sent)
    }

    /// Looks at the state, and changes nothing that others wait for.
    pub(super) fn with<T>(&self, look: impl FnOnce(&mut State, Instant, &mut Wakers) -> T) -> T {
        self.look(None, look)
    }

    /// Changes the state, and then serves those who wait.
    pub(super) fn change<T>(
        &self,
        change: impl FnOnce(&mut State, Instant, &mut Wakers) -> T,
    ) -> T {
        self.look(None, serving(change))
    }

    /// The same, for what happened `at` an instant that was read before.
    pub(super) fn change_at(&self, at: Instant, change: impl FnOnce(&mut State, Instant)) {
        self.look(Some(at), serving(|state, now, _| change(state, now)));
    }

    fn look<T>(
        &self,
        at: Option<Instant>,
        look: impl FnOnce(&mut State, Instant, &mut Wakers) -> T,
    ) -> T {
        let mut wakers = Wakers::default();
        let mut state = self.lock();
        // Read under the lock, or not before the last look: time goes back for no thread.
        let now = at.map_or_else(Instant::now, |at| at.max(state.latest));
        state.latest = now;
        let result = look(&mut state, now, &mut wakers);
        let news = state.news(now);
        let call = state.call(now);
        drop(state);
        wakers.wake();
        if let Some(call) = call {
            call.make();
        }
        if let Some(news) = news {
            news.tell();
        }
        #[cfg(feature = "metrics")]
        self.publish();
        result
    }

    /// Looks at what is between the limiter and its store.
    pub(super) fn with_fleet<T>(&self, look: impl FnOnce(&mut State, Instant) -> T) -> T {
        let mut state = self.lock();
        let now = Instant::now();
        look(&mut state, now)
    }

    /// Sets the gauges, if anybody wants them.
    #[cfg(feature = "metrics")]
    #[inline]
    pub(super) fn publish(&self) {
        if crate::metrics::is_started() {
            self.set_gauges();
        }
    }

    /// A recorder is foreign code, and called without the lock on the state.
    #[cfg(feature = "metrics")]
    #[cold]
    fn set_gauges(&self) {
        crate::metrics::limiter(|| {
            let state = self.lock();
            let now = Instant::now();
            let until = |at: Instant| at.saturating_duration_since(now);
            let seen = crate::metrics::Limiter {
                limit: state.bucket.plan(),
                remaining: state.bucket.remaining(now),
                server_remaining: state.bucket.said().map(|said| said.remaining),
                in_flight: state.bucket.in_flight(),
                waiting: state.queue.waiting(),
                paused_until: state
                    .bucket
                    .paused_until(now)
                    .map(|at| self.wall.since_epoch(now).saturating_add(until(at))),
                store_is_up: state.bucket.fleet().map(|fleet| fleet.down().is_none()),
            };
            (now, seen)
        });
    }

    pub(super) fn snapshot(&self) -> RateLimitSnapshot {
        let state = self.lock();
        let now = Instant::now();
        RateLimitSnapshot::new(&state.bucket, state.queue.waiting(), now)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// What the bucket says to the one who `asks`, or to those who wait.
    pub(super) fn outlook(&self, now: Instant, asks: Option<u64>) -> Outlook {
        let for_one = self.queue.is_for_one(asks) && self.bucket.lets_one(now);
        // How many more may leave is of no use to nobody.
        let verdict = if for_one {
            Verdict::Now(1)
        } else {
            self.bucket.verdict(now)
        };
        Outlook {
            now,
            verdict,
            pace: self.bucket.pace(verdict, now),
        }
    }

    /// What the store's task must be told, if anything: nothing without a store.
    fn call(&mut self, now: Instant) -> Option<Call> {
        let clerk = self.clerk.as_mut().filter(|clerk| !clerk.is_at_work(now))?;
        match self.bucket.errand(self.queue.len(), now) {
            Ok(_) => clerk.is_due(now, now),
            Err(at) => clerk.is_due(at?, now),
        }
    }

    fn news(&mut self, now: Instant) -> Option<News> {
        self.seen.news(&self.bucket, self.queue.waiting(), now)
    }
}

impl Drop for State {
    fn drop(&mut self) {
        if let (Some(clerk), Some(fleet)) = (&self.clerk, self.bucket.fleet_mut()) {
            clerk.end(fleet);
        }
    }
}

/// `change`, after which those who wait are served.
fn serving<T>(
    change: impl FnOnce(&mut State, Instant, &mut Wakers) -> T,
) -> impl FnOnce(&mut State, Instant, &mut Wakers) -> T {
    |state, now, wakers| {
        let result = change(state, now, wakers);
        // What the bucket would say need not be worked out for nobody.
        if !state.queue.is_empty() {
            state.queue.serve(state.outlook(now, None), wakers);
        }
        result
    }
}

/// Ploton counts requests a minute.
const WINDOW: Duration = Duration::from_secs(60);
