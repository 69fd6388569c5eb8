//! What a service or a future holds of the queue.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use http::Request;
use tokio::{
    runtime::{self, Handle},
    time::{Instant, Sleep, sleep_until},
};
use tower::BoxError;

use super::{
    DeadlineTooSoon, QueueFull, WaitTooLong, events,
    in_flight::InFlight,
    queue::{Outlook, Turn, Wakers},
    shared::{Shared, State},
    time::later,
    wait::Wait,
};

/// A place in the queue, taken at the first poll and given up by a request that is sent, or by a drop.
pub(super) struct Place {
    shared: Arc<Shared>,
    bounds: Bounds,
    /// `Some` while it is in the queue.
    ticket: Option<u64>,
    /// Its turn came, and the token was not asked for yet.
    turn: bool,
    /// `Some` of one whose turn it was not at once. Boxed, since services and futures are larger by it, and moved often.
    wait: Option<Box<Wait>>,
    /// Made at the first wait, and kept for the next on the same runtime.
    timer: Option<(runtime::Id, Pin<Box<Sleep>>)>,
}

/// How long a request waits, and behind how many, at the most.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bounds {
    pub(super) max_wait: Option<Duration>,
    pub(super) max_waiting: Option<usize>,
}

impl Place {
    pub(super) const fn new(shared: Arc<Shared>, bounds: Bounds) -> Self {
        Self {
            shared,
            bounds,
            ticket: None,
            turn: false,
            wait: None,
            timer: None,
        }
    }

    /// A place for another service, not in the queue yet.
    pub(super) fn another(&self) -> Self {
        Self::new(self.shared.clone(), self.bounds)
    }

    /// Ready when it is this place's turn, which takes no token, or when it waits no longer.
    pub(super) fn poll_turn(
        &mut self,
        deadline: Option<Instant>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), BoxError>> {
        if self.ticket.is_none() && deadline.is_none() {
            self.ticket = self.shared.enter();
            self.turn = self.ticket.is_some();
        }
        while !self.turn {
            match self.ask(deadline, cx.waker())? {
                Turn::Now => self.turn = true,
                Turn::Later(until) => {
                    let limit = self.limit(deadline);
                    let Some(until) = until.into_iter().chain(limit).min() else {
                        return Poll::Pending;
                    };
                    ready!(self.poll_timer(until, cx));
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    fn ask(&mut self, deadline: Option<Instant>, waker: &Waker) -> Result<Turn, BoxError> {
        let mut waker = Some(waker.clone());
        let shared = self.shared.clone();
        let mut began = None;
        let turn = shared.with(|state, now, wakers| {
            let is_new = self.ticket.is_none();
            let ticket = *self.ticket.get_or_insert_with(|| state.queue.join());
            let outlook = state.outlook(now, Some(ticket));
            let turn = state.queue.ask(ticket, outlook, &mut waker, wakers);
            let Turn::Later(until) = turn else {
                if let Some(late) = self.too_late(deadline, now) {
                    self.give_up(state, outlook, wakers);
                    return Err(late);
                }
                if let Some(wait) = &mut self.wait {
                    wait.has_turn(now);
                }
                return Ok(turn);
            };
            let ahead = state.queue.ahead(ticket);
            let wait = self
                .wait
                .get_or_insert_with(|| Box::new(Wait::new(now, ahead)));
            wait.goes_on(outlook.verdict, now);
            let Some(refused) = self.refused(state, outlook, ahead, is_new, deadline) else {
                let expected = state
                    .queue
                    .expected(ahead, outlook)
                    .saturating_duration_since(now);
                began = self
                    .wait
                    .as_deref()
                    .copied()
                    .filter(|_| is_new)
                    .zip(Some(expected));
                // The head says that a pause is over, even if something else holds it then.
                let pause = state.bucket.paused_until(now).filter(|_| ahead == 0);
                return Ok(Turn::Later(until.into_iter().chain(pause).min()));
            };
            self.give_up(state, outlook, wakers);
            Err(refused)
        });
        if let Some((wait, expected)) = began {
            events::waits(&wait, expected);
        }
        turn
    }

    /// The answer would be worth nothing any more, so it takes no token even where there is one.
    fn too_late(&self, deadline: Option<Instant>, now: Instant) -> Option<BoxError> {
        let deadline = deadline.filter(|&deadline| deadline <= now)?;
        let since = self.wait.as_ref().map_or(now, |wait| wait.began());
        let late = DeadlineTooSoon {
            wait: self
                .wait
                .as_ref()
                .map_or(Duration::ZERO, |wait| wait.lasted(now)),
            left: deadline.saturating_duration_since(since),
        };
        Some(late.into())
    }

    /// Leaves the queue, and the next is served.
    fn give_up(&mut self, state: &mut State, outlook: Outlook, wakers: &mut Wakers) {
        self.wait = None;
        if let Some(ticket) = self.ticket.take() {
            state.queue.leave(ticket, wakers);
            state.queue.serve(outlook, wakers);
        }
    }

    /// Why it may not wait on, if so. Only the first and the last of the queue know how many are before them.
    fn refused(
        &self,
        state: &State,
        outlook: Outlook,
        ahead: usize,
        is_new: bool,
        deadline: Option<Instant>,
    ) -> Option<BoxError> {
        let since = self.wait.as_ref()?.began();
        let turn = state.queue.expected(ahead, outlook);
        let wait = turn.saturating_duration_since(since);
        let waiting = state.queue.waiting().saturating_sub(1);
        if is_new && self.bounds.max_waiting.is_some_and(|max| waiting >= max) {
            return Some(QueueFull { waiting, wait }.into());
        }
        let limit = self.limit(deadline)?;
        let soonest = state.bucket.soonest(outlook.verdict, outlook.now);
        let sooner = outlook.verdict.instant(outlook.now);
        let sooner = sooner.saturating_duration_since(soonest);
        let knows = is_new || ahead == 0;
        let in_vain = limit <= outlook.now || knows && later(limit, sooner) < turn;
        if !in_vain {
            return None;
        }
        Some(match self.bounds.max_wait {
            Some(max) if deadline != Some(limit) => WaitTooLong { wait, max }.into(),
            _ => {
                let left = limit.saturating_duration_since(since);
                DeadlineTooSoon { wait, left }.into()
            }
        })
    }

    /// When it waits no longer.
    fn limit(&self, deadline: Option<Instant>) -> Option<Instant> {
        let patience = self.bounds.max_wait;
        let patience = patience.and_then(|max| self.wait.as_ref()?.began().checked_add(max));
        patience.into_iter().chain(deadline).min()
    }

    fn poll_timer(&mut self, until: Instant, cx: &mut Context<'_>) -> Poll<()> {
        // tokio rounds up to the next millisecond, and panics where there is none.
        let until = until.min(later(Instant::now(), FAR));
        // A service may go to another runtime, on which the timer of the first would never fire, or panic.
        // Outside of any, it is polled by something else while its own goes on.
        let here = Handle::try_current().ok().map(|here| here.id());
        self.timer
            .take_if(|(runtime, _)| here.is_some_and(|here| *runtime != here));
        let (_, timer) = self
            .timer
            .get_or_insert_with(|| (Handle::current().id(), Box::pin(sleep_until(until))));
        if timer.deadline() != until {
            timer.as_mut().reset(until);
        }
        timer.as_mut().poll(cx)
    }

    /// Takes a token and leaves the queue. Where it is not this place's turn, or not any longer, it waits on where it
    /// stands; where the deadline has passed, it leaves.
    pub(super) fn take_token<B>(
        &mut self,
        request: &Request<B>,
        deadline: Option<Instant>,
    ) -> Result<Option<InFlight>, BoxError> {
        if !self.turn {
            return Ok(None);
        }
        self.turn = false;
        let Some(ticket) = self.ticket else {
            return Ok(None);
        };
        if self.wait.is_none() {
            if let Some(sent) = self.shared.take(ticket, deadline) {
                self.ticket = None;
                events::need_not_wait(sent.at());
                return Ok(Some(InFlight::new(self.shared.clone(), sent)));
            }
        }
        let shared = self.shared.clone();
        let taken = shared.change(|state, now, wakers| {
            if let Some(late) = self.too_late(deadline, now) {
                self.ticket = None;
                self.wait = None;
                state.queue.leave(ticket, wakers);
                return Err(late);
            }
            let outlook = state.outlook(now, Some(ticket));
            if !state.queue.take(ticket, outlook, wakers) {
                return Ok(None);
            }
            let since = self.wait.as_ref().map(|wait| wait.since);
            Ok(Some((state.bucket.send(now, since), now)))
        });
        let Some((sent, now)) = taken? else {
            return Ok(None);
        };
        self.ticket = None;
        match self.wait.take() {
            Some(wait) => events::waited(request, &wait, now),
            None => events::need_not_wait(now),
        }
        Ok(Some(InFlight::new(shared, sent)))
    }

    /// Leaves the queue without a token.
    pub(super) fn leave(&mut self) {
        self.turn = false;
        self.wait = None;
        if let Some(ticket) = self.ticket.take() {
            self.shared
                .change(|state, _, wakers| state.queue.leave(ticket, wakers));
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.leave();
    }
}

/// As far as tokio looks itself.
const FAR: Duration = Duration::from_secs(60 * 60 * 24 * 365 * 30);

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place")
            .field("ticket", &self.ticket)
            .field("turn", &self.turn)
            .finish_non_exhaustive()
    }
}
