//! What the rules say of a request, each in its turn; and what the bucket is like at an instant.
#![warn(clippy::arithmetic_side_effects)]

use std::time::Duration;

use tokio::time::Instant;

use super::Bucket;
use crate::limit::{
    pause::Gate,
    queue::Pace,
    rule::{Mode, Rule, Verdict},
    said::Said,
    time::later,
    window::Held,
};

/// Whether a request may leave.
impl Bucket {
    pub(in crate::limit) fn verdict(&self, now: Instant) -> Verdict {
        match self.pause.gate(now) {
            Gate::Open => self.by_mode(now),
            Gate::OneProbe => self.probe(now),
            Gate::Beside => self.paced(now),
            Gate::Paused(until) => self.until_store(Rule::Paused, until, self.probe(until)),
            Gate::ProbeOut(until) => self.until_store(Rule::Probe, until, self.paced(until)),
        }
    }

    /// Whether one may leave, in the usual case: its verdict is `Now` then. It takes a fraction of the time, since how many
    /// may leave is not worked out; where it says no, only the verdict knows.
    pub(in crate::limit) fn lets_one(&self, now: Instant) -> bool {
        self.fleet.is_none()
            && self.pacer.due().is_none_or(|due| due <= now)
            && self.pause.gate(now) == Gate::Open
            && !self.server.windows.is_trusted()
            && !self.server.neighbours.are_seen(now)
            && self.ring.surely_fits(self.n)
            && self.left_for_credit() != Some(0)
    }

    fn by_mode(&self, now: Instant) -> Verdict {
        if !self.server.windows.is_trusted() {
            return self.paced(now);
        }
        if self.server.windows.has_ended(now) {
            return self.next_probe(now);
        }
        let left = self.left_of_window();
        let windows = &self.server.windows;
        match windows.fitting(left, self.plan, self.span, now) {
            Ok(free) => Verdict::Now(free),
            Err(Held::Kept(until)) => self.until_window(Rule::Kept, until),
            Err(Held::UsedUp(until)) => self.until_window(Rule::Window, until),
        }
    }

    /// Held by `rule` of window mode, and if the window has ended then, by what holds the probe.
    fn until_window(&self, rule: Rule, until: Instant) -> Verdict {
        if self.server.windows.has_ended(until) {
            after(rule, until, self.next_probe(until))
        } else {
            Verdict::Later(rule, Some(until))
        }
    }

    /// One request goes alone. What is left and what was sent before does not matter to it, but if the probe before it was
    /// lost, it is not sent at once.
    fn next_probe(&self, now: Instant) -> Verdict {
        if let Some(fleet) = &self.fleet {
            return Self::one_by_store(fleet, now);
        }
        due(Rule::Paced, self.pacer.spaced(), 1, now)
    }

    /// One request after a pause, or the first of all.
    fn probe(&self, now: Instant) -> Verdict {
        if self.server.windows.is_trusted() {
            return match self.by_mode(now) {
                Verdict::Now(_) => self.next_probe(now),
                held => held,
            };
        }
        match self.ring.fitting(self.n, now) {
            Ok(_) => self.next_probe(now),
            Err(Some(until)) => after(Rule::Ring, until, self.next_probe(until)),
            Err(None) => Verdict::Later(Rule::Ring, None),
        }
    }

    fn paced(&self, now: Instant) -> Verdict {
        match self.ring.fitting(self.n, now) {
            Ok(free) => match self.step(now) {
                Verdict::Now(fitting) => Verdict::Now(fitting.min(free)),
                held => held,
            },
            Err(Some(until)) => after(Rule::Ring, until, self.step(until)),
            Err(None) => Verdict::Later(Rule::Ring, None),
        }
    }

    /// What the pacer says, the ring aside.
    fn step(&self, now: Instant) -> Verdict {
        if let Some(fleet) = &self.fleet {
            return fleet.verdict(now);
        }
        if self.server.neighbours.are_seen(now) {
            return self.shared_step(now);
        }
        let left = self.left_for_credit();
        if left == Some(0) {
            return due(Rule::Paced, self.pacer.due_without_credit(), 1, now);
        }
        let earned = self.earned(now);
        let fitting = self.pacer.fitting(earned, now).max(1);
        let fitting = fitting.min(left.unwrap_or(u32::MAX));
        due(Rule::Paced, self.pacer.due(), fitting, now)
    }

    fn shared_step(&self, now: Instant) -> Verdict {
        let remaining = self.server.left.remaining().unwrap_or(0);
        let step = self.neighbours_step();
        let at = self.pacer.due_by_steps_of(step);
        let left = remaining.saturating_sub(self.unanswered());
        if left >= self.server.neighbours.needed() {
            return due(Rule::Shared, at, 1, now);
        }
        let at = at
            .max(self.pacer.due_without_credit())
            .max(self.server.neighbours.retry(step));
        if self.in_flight() > 0 {
            // An answer says more; but one that never comes stops nobody for ever.
            return match at {
                Some(at) => due(Rule::Shared, Some(later(at, ANSWER_PATIENCE)), 1, now),
                None => Verdict::Later(Rule::Shared, None),
            };
        }
        due(Rule::Shared, at, 1, now)
    }

    /// The step among others.
    fn neighbours_step(&self) -> Duration {
        let remaining = self.server.left.remaining().unwrap_or(0);
        let neighbours = &self.server.neighbours;
        neighbours.step(self.pacer.interval(), self.plan, remaining)
    }

    /// Requests that may have been counted although no answer said so.
    pub(super) fn unanswered(&self) -> u32 {
        self.ring
            .in_flight()
            .saturating_add(self.server.unknown.count())
    }

    /// What is left in window mode. Where the plan is a part of the server's limit, a part of its window is left.
    fn left_of_window(&self) -> u32 {
        let left = self.server.windows.left(self.unanswered());
        match self.server.last() {
            Some(said) if said.limit > self.plan => left.min(
                self.plan
                    .saturating_sub(self.server.windows.ours(self.next)),
            ),
            _ => left,
        }
    }

    /// How many may use credit: as many as the server would take; `None` where it says nothing, or there is no credit.
    fn left_for_credit(&self) -> Option<u32> {
        let remaining = self.server.left.remaining()?;
        let has_credit = self.credit.sees_headers() && self.credit.most(self.plan) > 1;
        has_credit.then(|| remaining.saturating_sub(self.unanswered()))
    }

    pub(super) fn earned(&self, now: Instant) -> Duration {
        self.credit
            .earned(self.plan, self.pacer.interval(), self.span, now)
    }
}

/// What it is like now.
impl Bucket {
    pub(in crate::limit) const fn plan(&self) -> u32 {
        self.plan
    }

    pub(in crate::limit) fn in_flight(&self) -> u32 {
        self.ring.in_flight()
    }

    /// How many more would be within the plan at `now`, or are left of the server's window; they may have to be paced.
    pub(in crate::limit) fn remaining(&self, now: Instant) -> u32 {
        let within_plan = self.n.saturating_sub(self.ring.count(now));
        match self.mode(now) {
            Mode::Window if self.server.windows.has_ended(now) => self.plan,
            Mode::Window => self.left_of_window(),
            Mode::Paced if self.fleet.is_none() => within_plan,
            // What the server says counts the other processes too.
            Mode::Paced => {
                let left = self.server.left.remaining();
                let left = left.map(|left| left.saturating_sub(self.unanswered()));
                within_plan.min(left.unwrap_or(u32::MAX))
            }
            Mode::Shared => {
                let remaining = self.server.left.remaining().unwrap_or(0);
                within_plan.min(remaining.saturating_sub(self.unanswered()))
            }
        }
    }

    pub(in crate::limit) fn paused_until(&self, now: Instant) -> Option<Instant> {
        self.pause.until(now)
    }

    pub(in crate::limit) fn mode(&self, now: Instant) -> Mode {
        if self.server.windows.is_trusted() {
            Mode::Window
        } else if self.server.neighbours.are_seen(now) {
            Mode::Shared
        } else {
            Mode::Paced
        }
    }

    /// When the next one leaves at the soonest, where `verdict` is what holds if nothing changes: a probe may be answered at
    /// any moment.
    pub(in crate::limit) fn soonest(&self, verdict: Verdict, now: Instant) -> Instant {
        match (verdict, self.mode(now)) {
            (Verdict::Later(Rule::Probe, Some(until)), Mode::Paced | Mode::Shared) => {
                self.paced(now).instant(now).min(until)
            }
            (Verdict::Later(Rule::Probe, Some(_)), Mode::Window) => now,
            _ => verdict.instant(now),
        }
    }

    /// How tokens come from now on, where the next one does as `verdict` says.
    pub(in crate::limit) fn pace(&self, verdict: Verdict, now: Instant) -> Pace {
        let next = verdict.instant(now);
        let (first, often) = match (self.mode(now), verdict) {
            (Mode::Window, _) => {
                let (left, end) = (self.left_of_window(), self.server.windows.end());
                return self.pace_of_windows(left, self.plan, end, Duration::ZERO, next);
            }
            (Mode::Shared, _) if !self.server.neighbours.is_sliding() => {
                return self.pace_among_others(next);
            }
            (Mode::Shared, _) => (1, self.neighbours_step()),
            (Mode::Paced, Verdict::Now(tokens)) => (tokens, self.interval()),
            (Mode::Paced, Verdict::Later(..)) => (1, self.interval()),
        };
        Pace {
            first,
            then: later(next, often),
            many: 1,
            often,
            each: Duration::ZERO,
        }
    }

    /// From one request of this process to the next.
    fn interval(&self) -> Duration {
        let fleet = self.fleet.as_ref();
        fleet.map_or(self.pacer.interval(), |fleet| fleet.pace())
    }

    /// A fair share of each window, in steps. At a window's end the steps are longer, but then it has nearly ended.
    fn pace_among_others(&self, next: Instant) -> Pace {
        let neighbours = &self.server.neighbours;
        let remaining = self.server.left.remaining().unwrap_or(0);
        let share = |requests| neighbours.share_of(requests);
        let end = neighbours.retry(Duration::ZERO);
        let each = self.pacer.interval();
        self.pace_of_windows(share(remaining), share(self.plan), end, each, next)
    }

    /// What is `left` of the window that has its `end`, or all of the one that the next token begins; then as many in
    /// each.
    fn pace_of_windows(
        &self,
        left: u32,
        many: u32,
        end: Option<Instant>,
        each: Duration,
        next: Instant,
    ) -> Pace {
        let often = self.span.longest;
        let (first, then) = match end.filter(|&end| next < end) {
            Some(end) => (left.max(1), end),
            None => (many.max(1), later(next, often)),
        };
        Pace {
            first,
            then,
            many: many.max(1),
            often,
            each,
        }
    }

    /// What the last answer with headers said.
    pub(in crate::limit) const fn said(&self) -> Option<Said> {
        self.server.last()
    }

    /// Until when the key counts as shared, at the least; `Some` while it does: others were seen to use it, now or not long
    /// ago.
    pub(in crate::limit) fn shared_until(&self, now: Instant) -> Option<Instant> {
        let neighbours = &self.server.neighbours;
        // Without it they were never seen.
        let gone = neighbours.gone_at(self.span)?;
        (gone > now || neighbours.are_seen(now)).then(|| gone.max(now))
    }

    /// How many requests a window are paced: the plan, or less where the server counts more strictly than it says.
    pub(in crate::limit) const fn paced_to(&self) -> u32 {
        self.n
    }

    /// How many may leave at once because nothing was sent before; at least one as soon as one is due.
    pub(in crate::limit) fn at_once(&self, now: Instant) -> u32 {
        match &self.fleet {
            Some(fleet) => fleet.usable(now),
            None => self.pacer.fitting(self.earned(now), now),
        }
    }

    /// How many requests of others the server counts, as far as its answers show.
    pub(in crate::limit) const fn others(&self) -> u32 {
        self.server.neighbours.others()
    }
}

/// How long what is on its way may hold back the next request, which is due.
const ANSWER_PATIENCE: Duration = Duration::from_secs(2);

/// Held by `rule` until an instant, and then by what would hold a request at that instant.
pub(super) fn after(rule: Rule, until: Instant, then: Verdict) -> Verdict {
    let until = match then {
        Verdict::Now(_) => Some(until),
        Verdict::Later(_, then) => then,
    };
    Verdict::Later(rule, until)
}

/// `count` may leave as soon as `at` has come.
fn due(rule: Rule, at: Option<Instant>, count: u32, now: Instant) -> Verdict {
    match at {
        Some(at) if at > now => Verdict::Later(rule, Some(at)),
        _ => Verdict::Now(count),
    }
}
