//! What a request holds of the queue, and then of the slots.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use http::{Extensions, StatusCode};
use tokio::time::{Instant, Sleep, sleep_until};
use tower::BoxError;

use super::{TaskSlot, queue::Turn, shared::Shared, slots::End};
use crate::{
    fate::{self, Fate},
    idempotency_key::IdempotencyKey,
    no_turn::NoTaskSlot,
};

/// A place in the queue, taken at the first poll and given up by a slot, or by a drop.
pub(super) struct Place {
    shared: Arc<Shared>,
    key: Option<IdempotencyKey>,
    /// `Some` while it is in the queue.
    ticket: Option<u64>,
    since: Instant,
    /// When it waits no longer.
    limit: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Place {
    /// `limit` is when it waits no longer.
    pub(super) fn new(
        shared: Arc<Shared>,
        key: Option<IdempotencyKey>,
        max_wait: Option<Duration>,
        deadline: Option<Instant>,
    ) -> Self {
        let since = Instant::now();
        let patience = max_wait.and_then(|max| since.checked_add(max));
        Self {
            shared,
            key,
            ticket: None,
            since,
            limit: patience.into_iter().chain(deadline).min(),
            timer: None,
        }
    }

    /// The slot, once it is there.
    pub(super) fn poll_slot(&mut self, cx: &mut Context<'_>) -> Poll<Result<Call, NoTaskSlot>> {
        loop {
            let until = match self.ask(cx.waker())? {
                Asked::Slot(call) => return Poll::Ready(Ok(call)),
                Asked::Later(until) => self.limit.into_iter().fold(until, Instant::min),
            };
            ready!(self.poll_timer(until, cx));
        }
    }

    /// The slot if it can be had now: nobody is passed.
    pub(super) fn slot_now(&mut self) -> Result<Option<Call>, NoTaskSlot> {
        Ok(match self.ask(Waker::noop())? {
            Asked::Slot(call) => Some(call),
            Asked::Later(_) => None,
        })
    }

    fn ask(&mut self, waker: &Waker) -> Result<Asked, NoTaskSlot> {
        let shared = self.shared.clone();
        let mut new_key = None;
        let number = shared.change(|state, now, wakers| {
            if let Some(number) = self.key.as_ref().and_then(|key| state.slots.join(key)) {
                if let Some(ticket) = self.ticket.take() {
                    state.queue.leave(ticket, wakers);
                }
                return Ok(Ok(number));
            }
            let ticket = *self.ticket.get_or_insert_with(|| state.queue.join());
            let outlook = state.outlook(now);
            match state.queue.ask(ticket, waker, outlook, wakers) {
                Turn::Now => {
                    self.ticket = None;
                    // Known here, so that the caller's next request with it finds the slot.
                    let make = || new_key.insert(IdempotencyKey::random()).clone();
                    let key = self.key.clone().unwrap_or_else(make);
                    Ok(Ok(state.take(key, now)))
                }
                Turn::Later(_) if self.limit.is_some_and(|limit| limit <= now) => {
                    self.ticket = None;
                    state.queue.leave(ticket, wakers);
                    Err(NoTaskSlot {
                        waited: now.saturating_duration_since(self.since),
                        running: state.running(),
                    })
                }
                Turn::Later(until) => Ok(Err(until)),
            }
        })?;
        Ok(match number {
            Ok(number) => Asked::Slot(Call {
                slot: TaskSlot { shared, number },
                new_key,
                fate: None,
                is_open: true,
            }),
            Err(until) => Asked::Later(until),
        })
    }

    /// How long it has waited.
    pub(super) fn waited(&self) -> Duration {
        Instant::now().saturating_duration_since(self.since)
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
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.shared
                .change(|state, _, wakers| state.queue.leave(ticket, wakers));
        }
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place")
            .field("ticket", &self.ticket)
            .finish_non_exhaustive()
    }
}

/// What one who waits is told.
enum Asked {
    Slot(Call),
    /// To ask again by itself at this instant.
    Later(Instant),
}

/// A request that has a slot. Its end, or its drop, says what becomes of that.
#[derive(Debug)]
pub(super) struct Call {
    slot: TaskSlot,
    /// `Some` where the caller gave it no key, until it is sent.
    new_key: Option<IdempotencyKey>,
    /// `Some` once it is sent.
    fate: Option<Fate>,
    is_open: bool,
}

impl Call {
    /// It is sent now, with these extensions.
    pub(super) fn send(&mut self, extensions: &mut Extensions) {
        self.fate = Some(Fate::get_or_insert(extensions).clone());
        if let Some(key) = self.new_key.take() {
            extensions.insert(key);
        }
    }

    /// An answer came. What keeps the slot gets a handle to it.
    pub(super) fn answered(mut self, status: StatusCode, extensions: &mut Extensions) {
        let end = if status.is_success() {
            End::Created
        } else if fate::refuses(status) && !self.may_be_processed().unwrap_or(false) {
            End::Refused
        } else {
            End::Unknown
        };
        if end != End::Refused {
            extensions.insert(self.slot.clone());
        }
        self.end(end);
    }

    pub(super) fn failed(mut self, error: &BoxError) {
        let may_be_processed = self
            .may_be_processed()
            .unwrap_or_else(|| !fate::was_not_sent(&**error));
        self.end(if may_be_processed {
            End::Unknown
        } else {
            End::Refused
        });
    }

    /// `None` where no layer inside judges it.
    fn may_be_processed(&self) -> Option<bool> {
        match &self.fate {
            Some(fate) => fate.may_be_processed(),
            // It was never sent.
            None => Some(false),
        }
    }

    fn end(&mut self, end: End) {
        self.is_open = false;
        let number = self.slot.number;
        let shared = &self.slot.shared;
        shared.change(|state, now, _| state.slots.end(number, end, now));
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if self.is_open {
            self.end(match self.may_be_processed() {
                Some(false) => End::Refused,
                _ => End::Unknown,
            });
        }
    }
}
