//! One queue, first come first served. Pure: it is given the time and what the bucket says.
#![warn(clippy::arithmetic_side_effects)]

use std::{
    collections::{BTreeMap, BTreeSet},
    task::Waker,
    time::Duration,
};

use tokio::time::Instant;

use super::{
    pacer::LATENESS,
    rule::{Rule, Verdict},
    tickets::Tickets,
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
    called_up: Tickets,
    /// When somebody was called up last; `None` after all who were had been passed.
    last_call: Option<Instant>,
    passed: BTreeSet<u64>,
    /// As many more must leave before it is believed again that whoever is first will act in time.
    doubt: u32,
    /// The first of the waiting, and when it is to come by its own timer; `None` once it came.
    expected: Option<(u64, Instant)>,
    next: u64,
}

#[derive(Debug, Default)]
struct Waiter {
    /// When it was told first that it has to wait.
    since: Option<Instant>,
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

/// How tokens come, as far as can be told: in groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pace {
    /// How many are in the group that the next one begins; at least 1.
    pub(super) first: u32,
    /// When the group after it comes.
    pub(super) then: Instant,
    /// How many are in each group from then on; at least 1.
    pub(super) many: u32,
    /// The time from one of these groups to the next.
    pub(super) often: Duration,
    /// The time from one token to the next within a group.
    pub(super) each: Duration,
}

impl Outlook {
    /// When one may leave whom `ahead` others precede, if nothing changes.
    pub(super) fn expected(self, ahead: usize) -> Instant {
        let pace = self.pace;
        let ahead = u32::try_from(ahead).unwrap_or(u32::MAX);
        let (group, within) = match ahead.checked_sub(pace.first) {
            None => (self.verdict.instant(self.now), ahead),
            Some(more) => {
                let groups = more.checked_div(pace.many).unwrap_or(more);
                let within = more.checked_rem(pace.many).unwrap_or(0);
                (later(pace.then, pace.often.saturating_mul(groups)), within)
            }
        };
        later(group, pace.each.saturating_mul(within))
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

    /// Whether the holder of `ticket` is called up, and nobody else is there.
    pub(super) fn is_only(&self, ticket: u64) -> bool {
        self.called_up.is_only(ticket) && self.waiting.is_empty()
    }

    /// The only one who is there leaves with a token.
    pub(super) fn take_only(&mut self, ticket: u64) {
        self.called_up.remove(ticket);
        self.doubt = self.doubt.saturating_sub(1);
    }

    /// Gives a place up; [`serve`](Self::serve) is due then.
    pub(super) fn leave(&mut self, ticket: u64, wakers: &mut Wakers) {
        self.called_up.remove(ticket);
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
        let before = self.waiting.get(&ticket);
        let since = before.and_then(|waiter| waiter.since);
        let looks_up = before
            .and_then(|waiter| waiter.timer)
            .is_some_and(|timer| timer <= outlook.now);
        if self.has_turn(ticket, outlook, wakers) {
            return Turn::Now;
        }
        let waited = since.filter(|_| looks_up);
        let waited = waited.map(|since| outlook.now.saturating_duration_since(since));
        let timer = self.next_look(ticket, outlook, waited);
        if let Some(waiter) = self.waiting.get_mut(&ticket) {
            waiter.since = since.or(Some(outlook.now));
            waiter.waker = waker.take();
            waiter.timer = timer;
        }
        Turn::Later(timer)
    }

    /// Leaves the queue with a token if it is the turn of `ticket`, and waits on where it stands if not;
    /// [`serve`](Self::serve) is due then.
    pub(super) fn take(&mut self, ticket: u64, outlook: Outlook, wakers: &mut Wakers) -> bool {
        let taken = self.has_turn(ticket, outlook, wakers) && self.called_up.remove(ticket);
        self.doubt = self.doubt.saturating_sub(taken.into());
        taken
    }

    /// Something changed: calls up as many as there are tokens, passes those who do nothing, and wakes whom it concerns.
    pub(super) fn serve(&mut self, outlook: Outlook, wakers: &mut Wakers) {
        let now = outlook.now;
        self.pass_the_parked(now, wakers);
        if self
            .last_call
            .is_some_and(|last| later(last, PARKED) <= now)
        {
            if !self.called_up.is_empty() {
                self.doubt = DOUBT;
            }
            self.passed.extend(self.called_up.drain());
            self.last_call = None;
        }
        match outlook.verdict {
            Verdict::Now(tokens) => {
                self.pass_a_head_that_did_not_come(now, wakers);
                self.call_up(tokens, now, wakers);
                let guard = self.last_call.map(|last| self.guard(last, outlook));
                self.wake_by([guard, None], LATENESS, wakers);
            }
            Verdict::Later(rule, until) => {
                let head = self.waiting.keys().next().copied();
                self.expected = head.zip(until);
                let guard = until.map(|until| self.guard(until, outlook));
                let slack = match until {
                    // Each answer moves the steps among others a little.
                    Some(until) if rule == Rule::Shared => {
                        let step = outlook.expected(1).saturating_duration_since(until);
                        scaled(step, 1, 4).clamp(LATENESS, PARKED)
                    }
                    _ => LATENESS,
                };
                self.wake_by([until, guard], slack, wakers);
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

    /// Whether a token could be for nobody but the one who `asks`, if one does.
    pub(super) fn is_for_one(&self, asks: Option<u64>) -> bool {
        let is_there =
            |ticket| self.called_up.contains(ticket) || self.waiting.contains_key(&ticket);
        self.len() <= 1 && asks.is_none_or(|ticket| self.is_empty() || is_there(ticket))
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

    /// When it is the turn of one whom `ahead` precede who wait. Those who were called up are before all of them.
    pub(super) fn expected(&self, ahead: usize, outlook: Outlook) -> Instant {
        outlook.expected(ahead.saturating_add(self.called_up.len()))
    }

    /// Whether it is the turn of `ticket`, who is there: it asks.
    fn has_turn(&mut self, ticket: u64, outlook: Outlook, wakers: &mut Wakers) -> bool {
        if self.is_called_up(ticket, outlook.verdict) {
            return true;
        }
        self.called_up.remove(ticket);
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
        // There may have been more tokens when they were called up.
        self.called_up.is_among_first(ticket, tokens as usize)
    }

    fn call_up(&mut self, tokens: u32, now: Instant, wakers: &mut Wakers) {
        while self.called_up.len() < tokens as usize {
            self.pass_the_parked(now, wakers);
            let Some((ticket, mut waiter)) = self.waiting.pop_first() else {
                return;
            };
            self.called_up.insert(ticket);
            self.last_call = Some(now);
            waiter.wake_by(now, wakers);
            wakers.unused.extend(waiter.waker);
        }
    }

    /// Those at the front who should have looked up long ago: a service that `load_shed` kept, or one that was forgotten. To
    /// call up one after the other would take as long as if each were served.
    fn pass_the_parked(&mut self, now: Instant, wakers: &mut Wakers) {
        while let Some(first) = self.waiting.first_entry() {
            let timer = first.get().timer;
            if timer.is_none_or(|timer| later(timer, LATE) > now) {
                return;
            }
            let (ticket, waiter) = first.remove_entry();
            wakers.unused.extend(waiter.waker);
            self.passed.insert(ticket);
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
            self.doubt = DOUBT;
        }
    }

    /// When the next one sees whether the one before it acted, who was to do so at `due`: at its own turn, so that it need
    /// not look up twice. Soon, where somebody did not act lately; and not much later in any case.
    fn guard(&self, due: Instant, outlook: Outlook) -> Instant {
        let soon = later(due, PARKED);
        if self.doubt > 0 {
            return soon;
        }
        soon.max(outlook.expected(1)).min(later(due, LATE))
    }

    /// The first and the second of the waiting must look up at these instants, or no later than by `slack`.
    fn wake_by(&mut self, instants: [Option<Instant>; 2], slack: Duration, wakers: &mut Wakers) {
        for (waiter, instant) in self.waiting.values_mut().zip(instants) {
            if let Some(instant) = instant {
                waiter.wake_by(later(instant, slack), wakers);
            }
        }
    }

    /// When one who waits asks again by itself. It does so now where it has `waited` for long.
    fn next_look(
        &self,
        ticket: u64,
        outlook: Outlook,
        waited: Option<Duration>,
    ) -> Option<Instant> {
        let mut order = self.waiting.keys();
        let first = *order.next()?;
        let is_second = order.next() == Some(&ticket);
        match outlook.verdict {
            // A request on its way may never end, if its future was leaked; and whoever asks the store may stand on a
            // runtime that ended, or that nobody drives.
            Verdict::Later(rule, until) if first == ticket => {
                let patience = if rule == Rule::Store { LATE } else { LEAKED };
                return until.or(Some(later(outlook.now, patience)));
            }
            // One timer for the head and one for its successor, in case the head does nothing.
            Verdict::Later(_, Some(until)) if is_second => {
                return Some(self.guard(until, outlook));
            }
            Verdict::Now(_) if first == ticket || waited.is_some() => {
                return self.last_call.map(|last| later(last, PARKED));
            }
            Verdict::Later(..) | Verdict::Now(_) => {}
        }
        // Head and successor may stand in one task that polls neither of them. So whoever is behind them looks up too,
        // but not before its turn should have come, and the more rarely the longer that is put off.
        let next = outlook.verdict.instant(outlook.now);
        let ahead = self.ahead(ticket);
        let turn = self
            .expected(ahead, outlook)
            .saturating_duration_since(next);
        let (numerator, denominator) = if ahead < MANY { (5, 4) } else { (5, 1) };
        let late = scaled(turn, numerator, denominator).saturating_add(LATE);
        let rarely = waited.unwrap_or_default().saturating_mul(2);
        Some(later(next, late).max(later(outlook.now, rarely)))
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
/// For so many grants after one who did not act in time.
const DOUBT: u32 = 16;
/// Behind so many it is not known how long the wait will be: others may come to use the key.
const MANY: usize = 100;
/// How often whoever waits for something on its way looks up by itself.
const LEAKED: Duration = Duration::from_secs(60);
/// Whoever is served later than expected by this looks up by itself.
const LATE: Duration = Duration::from_secs(1);
