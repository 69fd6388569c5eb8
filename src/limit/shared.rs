//! The bucket and the queue behind one lock, and what the services hold of them.

use std::{
    fmt,
    num::NonZeroU32,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use http::{HeaderMap, StatusCode};
use tokio::time::{Instant, Sleep, sleep_until};

use super::{
    RateLimitSnapshot,
    bucket::{Bucket, Sent},
    queue::{Queue, Turn, Wakers},
    rule::Verdict,
};
use crate::headers::{date::Wall, rate_limit, retry_after};

/// What all services made by one layer share.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    wall: Wall,
}

#[derive(Debug)]
struct State {
    bucket: Bucket,
    queue: Queue,
}

impl Shared {
    pub(super) fn new(plan: NonZeroU32) -> Self {
        Self {
            state: Mutex::new(State {
                bucket: Bucket::new(plan, WINDOW),
                queue: Queue::default(),
            }),
            wall: Wall::anchored(),
        }
    }

    pub(super) fn set_plan(&self, plan: NonZeroU32) {
        self.change(|state, _| state.bucket.set_plan(plan));
    }

    pub(super) fn snapshot(&self) -> RateLimitSnapshot {
        let now = Instant::now();
        let state = self.lock();
        RateLimitSnapshot {
            limit: state.bucket.plan(),
            remaining: state.bucket.remaining(now),
            in_flight: state.bucket.in_flight(),
            waiting: state.queue.len(),
            paused_until: state.bucket.paused_until(now),
            held_by: match state.bucket.verdict(now) {
                Verdict::Now(_) => None,
                Verdict::Later(rule, _) => Some(rule),
            },
        }
    }

    /// Changes the state, and wakes those whom it concerns once the lock is released. What `change` returns is dropped
    /// after that too.
    fn change<T>(&self, change: impl FnOnce(&mut State, Instant) -> T) -> T {
        let now = Instant::now();
        let mut state = self.lock();
        let result = change(&mut state, now);
        let wakers = state.wake(now);
        drop(state);
        wakers.into_iter().flatten().for_each(Waker::wake);
        result
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn wake(&mut self, now: Instant) -> Wakers {
        let verdict = self.bucket.verdict(now);
        self.queue.wake(verdict, now)
    }
}

/// A place in the queue, taken at the first poll and given up by a request that is sent, or by a drop.
pub(super) struct Place {
    shared: Arc<Shared>,
    /// `Some` while it is in the queue.
    ticket: Option<u64>,
    /// Its turn came, and the token was not asked for yet.
    turn: bool,
    /// Made at the first wait, and kept for the next.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Place {
    pub(super) const fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            ticket: None,
            turn: false,
            timer: None,
        }
    }

    /// A place for another service, not in the queue yet.
    pub(super) fn another(&self) -> Self {
        Self::new(self.shared.clone())
    }

    /// Ready when it is this place's turn. The turn takes no token.
    pub(super) fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !self.turn {
            match self.ask(cx.waker()) {
                Turn::Now => self.turn = true,
                Turn::Later(None) => return Poll::Pending,
                Turn::Later(Some(until)) => ready!(self.poll_timer(until, cx)),
            }
        }
        Poll::Ready(())
    }

    fn ask(&mut self, waker: &Waker) -> Turn {
        let (now, waker) = (Instant::now(), waker.clone());
        let mut state = self.shared.lock();
        let verdict = state.bucket.verdict(now);
        let ticket = *self.ticket.get_or_insert_with(|| state.queue.join());
        let polled = state.queue.poll(ticket, verdict, now, waker);
        drop(state);
        drop(polled.unused);
        if let Some(watcher) = polled.watcher {
            watcher.wake();
        }
        polled.turn
    }

    fn poll_timer(&mut self, until: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(sleep_until(until)));
        if timer.deadline() != until {
            timer.as_mut().reset(until);
        }
        timer.as_mut().poll(cx)
    }

    /// Takes a token and leaves the queue. Where it is not this place's turn, or another was quicker, it waits on where
    /// it stands.
    pub(super) fn take_token(&mut self) -> Option<InFlight> {
        if !self.turn {
            return None;
        }
        self.turn = false;
        let ticket = self.ticket;
        let (sent, _unused) = self.shared.change(|state, now| {
            let Verdict::Now(_) = state.bucket.verdict(now) else {
                return None;
            };
            let waker = ticket.and_then(|ticket| state.queue.leave(ticket));
            Some((state.bucket.send(now, None), waker))
        })?;
        self.ticket = None;
        Some(InFlight {
            shared: self.shared.clone(),
            sent: Some(sent),
        })
    }

    /// Leaves the queue without a token.
    pub(super) fn leave(&mut self) {
        self.turn = false;
        if let Some(ticket) = self.ticket.take() {
            drop(self.shared.change(|state, _| state.queue.leave(ticket)));
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.leave();
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place")
            .field("ticket", &self.ticket)
            .field("turn", &self.turn)
            .finish_non_exhaustive()
    }
}

/// A request on its way. Dropped without an answer, it counts as one that may still arrive.
#[derive(Debug)]
pub(super) struct InFlight {
    shared: Arc<Shared>,
    /// `Some` until it ended.
    sent: Option<Sent>,
}

impl InFlight {
    pub(super) fn answered(mut self, status: StatusCode, headers: &HeaderMap) {
        let Some(sent) = self.sent.take() else { return };
        if status != StatusCode::TOO_MANY_REQUESTS {
            self.shared
                .change(|state, now| state.bucket.answered(sent, None, now));
            return;
        }
        let wall = &self.shared.wall;
        let now = Instant::now();
        let hint = retry_after::retry_after(headers, wall, now)
            .map(|hint| hint.wait)
            .or_else(|| rate_limit::reset(headers, wall, now));
        let random = rand::random();
        let pause = self.shared.change(|state, now| {
            let until = state.bucket.refused(sent, hint, None, now, random)?;
            Some((until.saturating_duration_since(now), state.queue.len()))
        });
        if let Some((pause, waiting)) = pause {
            tracing::warn!(
                pause_ms = millis(pause),
                hint_ms = hint.map(millis),
                waiting,
                "a 429 pauses all requests"
            );
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if let Some(sent) = self.sent.take() {
            self.shared
                .change(|state, now| state.bucket.lost(sent, now));
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Ploton counts requests a minute.
const WINDOW: Duration = Duration::from_secs(60);
