//! Who waits for a slot: first come, first served. Pure: it is given the time and how many slots are free.
#![warn(clippy::arithmetic_side_effects)]

use std::{
    collections::{BTreeMap, BTreeSet},
    task::Waker,
    time::Duration,
};

use tokio::time::Instant;

/// Those who want a slot, in the order in which they came. Each holds a ticket, and is in one of three states:
///
/// *waiting*, until it is among the first and there are slots; *called up*, as many as there are free slots; *passed*,
/// after it was called up and did nothing. Whoever was passed stops nobody, and is first again as soon as it asks.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// By ticket: whoever came first is first.
    waiting: BTreeMap<u64, Waiter>,
    /// With the instant at which each was.
    called_up: BTreeMap<u64, Instant>,
    passed: BTreeSet<u64>,
    next: u64,
}

#[derive(Debug, Default)]
struct Waiter {
    /// `None` of one who was woken, and will ask.
    waker: Option<Waker>,
    /// When its own timer wakes it.
    timer: Option<Instant>,
}

/// The slots at one instant.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outlook {
    pub(super) now: Instant,
    pub(super) free: usize,
    /// When one more comes free by its time limit, if no other does before.
    pub(super) next_end: Option<Instant>,
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

/// Whether it is a ticket's turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// It has left the queue, and takes a slot.
    Now,
    /// It is woken when its turn comes, and asks by itself at this instant.
    Later(Instant),
}

impl Queue {
    /// Takes a place at the end.
    pub(super) fn join(&mut self) -> u64 {
        let ticket = self.next;
        self.next = ticket.wrapping_add(1);
        self.waiting.insert(ticket, Waiter::default());
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

    /// Whether it is the turn of `ticket`. If not, `waker` is kept, and woken when that may have changed.
    pub(super) fn ask(
        &mut self,
        ticket: u64,
        waker: &Waker,
        outlook: Outlook,
        wakers: &mut Wakers,
    ) -> Turn {
        let timer = self.waiting.get(&ticket).and_then(|waiter| waiter.timer);
        let looks_up = timer.is_some_and(|timer| timer <= outlook.now);
        if !self.is_called_up(ticket, outlook) {
            self.called_up.remove(&ticket);
            self.passed.remove(&ticket);
            // Without its waker: it needs no waking for what it is told now.
            if let Some(before) = self.waiting.insert(ticket, Waiter::default()) {
                wakers.unused.extend(before.waker);
            }
            self.serve(outlook, wakers);
        }
        if self.is_called_up(ticket, outlook) {
            self.called_up.remove(&ticket);
            return Turn::Now;
        }
        let timer = self.next_look(ticket, outlook, looks_up);
        if let Some(waiter) = self.waiting.get_mut(&ticket) {
            waiter.waker = Some(waker.clone());
            waiter.timer = Some(timer);
        }
        Turn::Later(timer)
    }

    /// Something changed: calls up as many as there are slots, passes those who do nothing, and wakes whom it concerns.
    pub(super) fn serve(&mut self, outlook: Outlook, wakers: &mut Wakers) {
        let now = outlook.now;
        let passed = &mut self.passed;
        self.called_up.retain(|ticket, called| {
            let is_there = later(*called, PARKED) > now;
            is_there || !passed.insert(*ticket)
        });
        while self.called_up.len() < outlook.free {
            let Some((ticket, waiter)) = self.waiting.pop_first() else {
                break;
            };
            self.called_up.insert(ticket, now);
            // Even where its own timer is due: that may come later than the next one's waker.
            wakers.woken.extend(waiter.waker);
        }
        // The first of the waiting looks after those before it, and after the time limits.
        let due = self.guard().or(outlook.next_end);
        if let (Some(due), Some(head)) = (due, self.waiting.values_mut().next()) {
            head.wake_by(due, wakers);
        }
    }

    /// How many are in the queue.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
            .len()
            .saturating_add(self.called_up.len())
            .saturating_add(self.passed.len())
    }

    /// How many have use for a slot, and until when one of them is sure to.
    pub(super) fn wanting(&self) -> (usize, Option<Instant>) {
        let wanting = self.waiting.len().saturating_add(self.called_up.len());
        (wanting, self.guard())
    }

    fn is_called_up(&self, ticket: u64, outlook: Outlook) -> bool {
        // There may have been more slots when they were called up.
        let mut first = self.called_up.keys().take(outlook.free);
        first.any(|one| *one == ticket)
    }

    /// When the first of those who are called up is passed.
    fn guard(&self) -> Option<Instant> {
        let called = self.called_up.values().min()?;
        Some(later(*called, PARKED))
    }

    /// How many wait before `ticket`, at most: some may have left.
    fn ahead(&self, ticket: u64) -> u32 {
        let first = self.waiting.keys().next().copied().unwrap_or(ticket);
        let others = u32::try_from(self.waiting.len()).unwrap_or(u32::MAX);
        u32::try_from(ticket.saturating_sub(first)).map_or(others, |came| came.min(others))
    }

    /// When one who waits asks again by itself. `looks_up`: it does so now.
    fn next_look(&self, ticket: u64, outlook: Outlook, looks_up: bool) -> Instant {
        let is_first = self.waiting.keys().next() == Some(&ticket);
        // One task may hold several places and poll none of them but the last. So whoever waits looks up now and then.
        let slowly = LOOK.saturating_mul(self.ahead(ticket).saturating_add(20));
        let slowly = later(outlook.now, slowly);
        let due = self.guard().filter(|_| is_first || looks_up);
        let end = outlook.next_end.filter(|_| is_first);
        due.into_iter().chain(end).fold(slowly, Instant::min)
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

fn later(instant: Instant, by: Duration) -> Instant {
    instant.checked_add(by).unwrap_or(instant)
}

/// A place whose turn it is and that does nothing for so long stops nobody any longer.
const PARKED: Duration = Duration::from_millis(50);
/// A place looks up by itself after so long for each one before it, and a second more.
const LOOK: Duration = Duration::from_millis(50);
