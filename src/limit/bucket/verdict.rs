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
            Gate::Paused(until) => after(Rule::Paused, until, self.probe(until)),
            Gate::ProbeOut(until) => after(Rule::Probe, until, self.paced(until)),
        }
    }

    /// Whether one may leave, in the usual case: its verdict is `Now` then. It takes a fraction of the time, since how many
    /// may leave is not worked out; where it says no, only the verdict knows.
    pub(in crate::limit) fn lets_one(&self, now: Instant) -> bool {
        self.pacer.due().is_none_or(|due| due <= now)
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
        let step = self
            .server
            .neighbours
            .step(self.pacer.interval(), self.plan, remaining);
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

    /// Requests that may have been counted although no answer said so.
    pub(super) const fn unanswered(&self) -> u32 {
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

    pub(in crate::limit) const fn in_flight(&self) -> u32 {
        self.ring.in_flight()
    }

    /// How many more would be within the plan at `now`, or are left of the server's window; they may have to be paced.
    pub(in crate::limit) fn remaining(&self, now: Instant) -> u32 {
        let within_plan = self.n.saturating_sub(self.ring.count(now));
        match self.mode(now) {
            Mode::Window if self.server.windows.has_ended(now) => self.plan,
            Mode::Window => self.left_of_window(),
            Mode::Paced => within_plan,
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

    /// How fast tokens come.
    pub(in crate::limit) fn pace(&self, now: Instant) -> Pace {
        match self.mode(now) {
            Mode::Window => Pace {
                many: self.plan,
                often: self.span.longest,
            },
            Mode::Paced | Mode::Shared => Pace {
                many: 1,
                often: self.pacer.interval(),
            },
        }
    }

    /// What the last answer with headers said.
    pub(in crate::limit) const fn said(&self) -> Option<Said> {
        self.server.last()
    }

    /// Whether others were seen to use the key, now or not long ago.
    pub(in crate::limit) fn is_shared(&self, now: Instant) -> bool {
        !self.server.neighbours.are_gone(self.span, now)
    }

    /// How many may leave at once because nothing was sent before; at least one as soon as one is due.
    pub(in crate::limit) fn at_once(&self, now: Instant) -> u32 {
        self.pacer.fitting(self.earned(now), now)
    }

    /// How many requests of others the server counts, as far as its answers show.
    pub(in crate::limit) const fn others(&self) -> u32 {
        self.server.neighbours.others()
    }
}

/// How long what is on its way may hold back the next request, which is due.
const ANSWER_PATIENCE: Duration = Duration::from_secs(2);

/// Held by `rule` until an instant, and then by what would hold a request at that instant.
fn after(rule: Rule, until: Instant, then: Verdict) -> Verdict {
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
