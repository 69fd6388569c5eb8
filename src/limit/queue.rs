//! One queue, first come first served. Pure: it is given the time and what the bucket says.
#![warn(clippy::arithmetic_side_effects)]

use std::{
    collections::{BTreeMap, BTreeSet},
    task::Waker,
    time::Duration,
};

use tokio::time::Instant;

use super::{
    rule::Verdict,
    time::{later, scaled},
};

#[cfg(test)]
mod tests;

/// Those who want a token, in the order in which they came. Each holds a ticket, and is in one of three states:
///
/// *waiting*, until it is among the first and there are tokens; *called up*, as many as there are tokens; *passed*, after
/// it was called up and did nothing. Whoever was passed stops nobody, and is first again as soon as it asks.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// By ticket: whoever came first is first.
    waiting: BTreeMap<u64, Waiter>,
    called_up: BTreeSet<u64>,
    /// When somebody was called up last; `None` after all who were had been passed.
    last_call: Option<Instant>,
    passed: BTreeSet<u64>,
    /// The first of the waiting, and when it is to come by its own timer; `None` once it came.
    expected: Option<(u64, Instant)>,
    next: u64,
}

#[derive(Debug, Default)]
struct Waiter {
    /// `None` of one who was woken, and will ask.
    waker: Option<Waker>,
    /// When its own timer wakes it.
    timer: Option<Instant>,
}

/// What the bucket says at one instant.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outlook {
    pub(super) now: Instant,
    pub(super) verdict: Verdict,
    pub(super) pace: Pace,
}

/// How fast tokens come, at most: so `many` at once, so `often`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pace {
    pub(super) many: u32,
    pub(super) often: Duration,
}

impl Pace {
    /// The time until `count` more have come.
    fn time_for(self, count: usize) -> Duration {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        self.often
            .saturating_mul(count.checked_div(self.many).unwrap_or(count))
    }
}

impl Outlook {
    /// When one may leave whom `ahead` others precede, if nothing changes.
    pub(super) fn expected(self, ahead: usize) -> Instant {
        let first = match self.verdict {
            Verdict::Now(_) => self.now,
            Verdict::Later(_, until) => until.unwrap_or(self.now),
        };
        later(first, self.pace.time_for(ahead))
    }
}

/// Whether it is a ticket's turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Now,
    /// It is woken when there is something new, and asks by itself at this instant.
    Later(Option<Instant>),
}

/// Wakers are foreign code, and may come back for the lock: they are woken and dropped once it is released.
#[derive(Debug, Default)]
#[must_use]
pub(super) struct Wakers {
    woken: Vec<Waker>,
    unused: Vec<Waker>,
}

impl Wakers {
    pub(super) fn wake(self) {
        self.woken.into_iter().for_each(Waker::wake);
    }
}

impl Queue {
    /// Takes a place at the end.
    pub(super) fn join(&mut self) -> u64 {
        let ticket = self.next;
        self.next = ticket.wrapping_add(1);
        self.waiting.insert(ticket, Waiter::default());
        ticket
    }

    /// Takes a place that is called up: nobody else is there, and there is a token.
    pub(super) fn enter(&mut self, now: Instant) -> u64 {
        let ticket = self.next;
        self.next = ticket.wrapping_add(1);
        self.called_up.insert(ticket);
        self.last_call = Some(now);
        ticket
    }

    /// Gives a place up; [`serve`](Self::serve) is due then.
    pub(super) fn leave(&mut self, ticket: u64, wakers: &mut Wakers) {
        self.called_up.remove(&ticket);
        self.passed.remove(&ticket);
        if let Some(waiter) = self.waiting.remove(&ticket) {
            wakers.unused.extend(waiter.waker);
        }
    }

    /// Whether it is the turn of `ticket`. If not, `waker` is taken, and woken when that may have changed.
    pub(super) fn ask(
        &mut self,
        ticket: u64,
        outlook: Outlook,
        waker: &mut Option<Waker>,
        wakers: &mut Wakers,
    ) -> Turn {
        let before = self.waiting.get(&ticket).and_then(|waiter| waiter.timer);
        let looks_up = before.is_some_and(|timer| timer <= outlook.now);
        if self.has_turn(ticket, outlook, wakers) {
            return Turn::Now;
        }
        let timer = self.next_look(ticket, outlook, looks_up);
        if let Some(waiter) = self.waiting.get_mut(&ticket) {
            waiter.waker = waker.take();
            waiter.timer = timer;
        }
        Turn::Later(timer)
    }

    /// Leaves the queue with a token if it is the turn of `ticket`, and waits on where it stands if not;
    /// [`serve`](Self::serve) is due then.
    pub(super) fn take(&mut self, ticket: u64, outlook: Outlook, wakers: &mut Wakers) -> bool {
        self.has_turn(ticket, outlook, wakers) && self.called_up.remove(&ticket)
    }

    /// Something changed: calls up as many as there are tokens, passes those who do nothing, and wakes whom it concerns.
    pub(super) fn serve(&mut self, outlook: Outlook, wakers: &mut Wakers) {
        let now = outlook.now;
        if self
            .last_call
            .is_some_and(|last| later(last, PARKED) <= now)
        {
            self.passed.append(&mut self.called_up);
            self.last_call = None;
        }
        match outlook.verdict {
            Verdict::Now(tokens) => {
                self.pass_a_head_that_did_not_come(now, wakers);
                self.call_up(tokens, now, wakers);
                let guard = self.last_call.map(|last| later(last, PARKED));
                self.wake_by([guard, None], wakers);
            }
            Verdict::Later(_, until) => {
                let head = self.waiting.keys().next().copied();
                self.expected = head.zip(until);
                let guard = until.map(|until| later(until, PARKED));
                self.wake_by([until, guard], wakers);
            }
        }
    }

    /// Whether there is nobody whom a token could be for. Whoever was passed asks by itself.
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many a token could be for.
    pub(super) fn len(&self) -> usize {
        self.waiting.len().saturating_add(self.called_up.len())
    }

    /// How many wait for their turn.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// How many wait before `ticket`: exactly so of the first and the last, at most so of the others, since some may have
    /// left.
    pub(super) fn ahead(&self, ticket: u64) -> usize {
        let Some((first, _)) = self.waiting.first_key_value() else {
            return 0;
        };
        let others = self.waiting.len().saturating_sub(1);
        usize::try_from(ticket.saturating_sub(*first)).map_or(others, |came| came.min(others))
    }

    /// Whether it is the turn of `ticket`, who is there: it asks.
    fn has_turn(&mut self, ticket: u64, outlook: Outlook, wakers: &mut Wakers) -> bool {
        if self.is_called_up(ticket, outlook.verdict) {
            return true;
        }
        self.called_up.remove(&ticket);
        self.passed.remove(&ticket);
        // Without its waker: it needs no waking for what it is told now.
        if let Some(before) = self.waiting.insert(ticket, Waiter::default()) {
            wakers.unused.extend(before.waker);
        }
        if self.expected.is_some_and(|(head, _)| head >= ticket) {
            self.expected = None;
        }
        self.serve(outlook, wakers);
        self.is_called_up(ticket, outlook.verdict)
    }

    fn is_called_up(&self, ticket: u64, verdict: Verdict) -> bool {
        let Verdict::Now(tokens) = verdict else {
            return false;
        };
        if self.called_up.len() <= tokens as usize {
            return self.called_up.contains(&ticket);
        }
        // There were more tokens when they were called up.
        let mut first = self.called_up.iter().take(tokens as usize);
        first.any(|&one| one == ticket)
    }

    fn call_up(&mut self, tokens: u32, now: Instant, wakers: &mut Wakers) {
        while self.called_up.len() < tokens as usize {
            let Some((ticket, mut waiter)) = self.waiting.pop_first() else {
                return;
            };
            self.called_up.insert(ticket);
            self.last_call = Some(now);
            waiter.wake_by(now, wakers);
            wakers.unused.extend(waiter.waker);
        }
    }

    fn pass_a_head_that_did_not_come(&mut self, now: Instant, wakers: &mut Wakers) {
        let Some((ticket, due)) = self.expected.take() else {
            return;
        };
        if later(due, PARKED) > now {
            return;
        }
        if let Some(waiter) = self.waiting.remove(&ticket) {
            wakers.unused.extend(waiter.waker);
            self.passed.insert(ticket);
        }
    }

    /// The first and the second of the waiting must look up at these instants, or earlier.
    fn wake_by(&mut self, instants: [Option<Instant>; 2], wakers: &mut Wakers) {
        for (waiter, instant) in self.waiting.values_mut().zip(instants) {
            if let Some(instant) = instant {
                waiter.wake_by(instant, wakers);
            }
        }
    }

    /// When one who waits asks again by itself. `looks_up`: it does so now.
    fn next_look(&self, ticket: u64, outlook: Outlook, looks_up: bool) -> Option<Instant> {
        let mut order = self.waiting.keys();
        let first = *order.next()?;
        let is_second = order.next() == Some(&ticket);
        let start = match outlook.verdict {
            Verdict::Later(_, until) if first == ticket => return until,
            // One timer for the head and one for its successor, in case the head does nothing.
            Verdict::Later(_, Some(until)) if is_second => return Some(later(until, PARKED)),
            Verdict::Later(_, until) => until.unwrap_or(outlook.now),
            Verdict::Now(_) if first == ticket || looks_up => {
                return self.last_call.map(|last| later(last, PARKED));
            }
            Verdict::Now(_) => outlook.now,
        };
        // Head and successor may stand in one task that polls neither of them. So whoever is behind them looks up too,
        // but not before its turn should have come.
        let turn = outlook.pace.time_for(self.ahead(ticket));
        let late = scaled(turn, 5, 4).saturating_add(LATE);
        Some(later(start, late))
    }
}

impl Waiter {
    /// Wakes it, unless its own timer does so by `instant`.
    fn wake_by(&mut self, instant: Instant, wakers: &mut Wakers) {
        if self.timer.is_none_or(|timer| timer > instant) {
            wakers.woken.extend(self.waker.take());
        }
    }
}

/// A place whose turn it is and that does nothing for so long stops nobody any longer.
const PARKED: Duration = Duration::from_millis(50);
/// Whoever is served later than expected by this looks up by itself.
const LATE: Duration = Duration::from_secs(1);
