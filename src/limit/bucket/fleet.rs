//! What becomes of the rules where the plan is shared with other processes by a store: its tokens take the place of pacing.
//! What would count the others' requests as those of strangers is off.
#![warn(clippy::arithmetic_side_effects)]

use std::time::Duration;

use tokio::time::Instant;

use super::{Bucket, Sent, verdict::after};
use crate::limit::{
    fleet::{AHEAD, Demand, Errand, Fleet, Heard, SAME, outage::Outage},
    neighbours::Neighbours,
    pause::Gate,
    rule::{Rule, Verdict},
    time::{earlier, later},
};

impl Bucket {
    /// From now on the plan is shared by a store.
    pub(in crate::limit) fn share(&mut self, process: u64, outage: Outage) {
        let fleet = Fleet::new(process, outage, self.plan, self.span);
        self.fleet = Some(Box::new(fleet));
        self.see_no_others();
    }

    pub(in crate::limit) fn fleet(&self) -> Option<&Fleet> {
        self.fleet.as_deref()
    }

    pub(in crate::limit) fn fleet_mut(&mut self) -> Option<&mut Fleet> {
        self.fleet.as_deref_mut()
    }

    /// What is to be done at the store for `waiting` requests: an errand now, or else to look again, at an instant or when
    /// something has changed.
    pub(in crate::limit) fn errand(
        &self,
        waiting: usize,
        now: Instant,
    ) -> Result<Errand, Option<Instant>> {
        match &self.fleet {
            Some(fleet) => fleet.next(self.demand(waiting, now), now),
            None => Err(None),
        }
    }

    /// How many tokens could be used soon: what the other rules hold back needs none.
    fn demand(&self, waiting: usize, now: Instant) -> Demand {
        let waiting = u32::try_from(waiting).unwrap_or(u32::MAX);
        let (tokens, until) = match self.pause.gate(now) {
            Gate::Paused(until) if earlier(until, AHEAD) > now => (0, Some(earlier(until, AHEAD))),
            Gate::Paused(_) | Gate::OneProbe => (waiting.min(1), None),
            Gate::ProbeOut(until) => (0, Some(until)),
            Gate::Open | Gate::Beside => {
                let ahead = self.fleet().map_or(Duration::ZERO, Fleet::ahead);
                match self.ring.fitting(self.n, later(now, ahead)) {
                    Ok(free) => (waiting.min(free), None),
                    Err(until) => (0, until.map(|until| earlier(until, ahead))),
                }
            }
        };
        Demand { tokens, until }
    }

    /// Another process was refused. Returns whether that is news.
    pub(in crate::limit) fn paused_by_others(&mut self, until: Instant, now: Instant) -> bool {
        let known = self.pause.until(now);
        let is_news = known.is_none_or(|known| later(known, SAME) < until);
        if is_news {
            self.pause_until(until);
        }
        is_news
    }

    pub(in crate::limit) fn store_answered(
        &mut self,
        answered: impl FnOnce(&mut Fleet) -> Heard,
    ) -> Heard {
        self.fleet_mut().map(answered).unwrap_or_default()
    }

    /// Returns whether that is news.
    pub(in crate::limit) fn store_failed(&mut self, lossy: bool, now: Instant) -> bool {
        self.fleet_mut()
            .is_some_and(|fleet| fleet.failed(lossy, now))
    }

    /// What the server counts beyond our own requests are the other processes'.
    pub(super) fn see_no_others(&mut self) {
        if self.fleet.is_some() {
            self.server.neighbours = Neighbours::default();
            self.server.windows.leave();
        }
    }

    /// Whatever ends the trust in windows ends it for all processes: so an answer is read as by one who trusts them, if it is
    /// not the first. Returns whether it is.
    pub(super) fn trust_as_the_fleet(&mut self) -> bool {
        let fleet = self.fleet.as_ref();
        let trusts = fleet.is_some_and(|fleet| fleet.has_windows());
        let trusts = trusts && self.server.windows.end().is_some();
        if trusts {
            self.server.windows.trust();
        }
        trusts
    }

    /// What the last answer said of the server's windows, to a request of ours; `trusted` before.
    pub(super) fn tell_fleet(&mut self, sent: Sent, trusted: bool) {
        let Some(fleet) = &mut self.fleet else { return };
        if trusted && !self.server.windows.is_trusted() {
            fleet.doubt_windows();
            return;
        }
        // Where the plan is a part of the server's, or more than it, a window says little of the plan.
        let told = self.server.told.filter(|told| told.limit == self.plan);
        if let Some(told) = told {
            fleet.heard(told, self.server.jumped, sent.at);
        }
    }

    pub(super) fn doubt_windows(&mut self) {
        if let Some(fleet) = &mut self.fleet {
            fleet.doubt_windows();
        }
    }

    /// The window that a request was sent in. Among many processes it is none: what is counted in it beyond our own requests
    /// are theirs.
    pub(super) fn window_of(&self, sent: Sent) -> u64 {
        if self.fleet.is_some() {
            u64::MAX
        } else {
            sent.window
        }
    }

    /// What the store says of a request that goes alone.
    pub(super) fn one_by_store(fleet: &Fleet, now: Instant) -> Verdict {
        match fleet.verdict(now) {
            Verdict::Now(_) => Verdict::Now(1),
            held => held,
        }
    }

    /// Held until then by `rule`; what the store says by that time is not known yet.
    pub(super) fn until_store(&self, rule: Rule, until: Instant, then: Verdict) -> Verdict {
        if self.fleet.is_some() && matches!(then, Verdict::Later(_, None)) {
            return Verdict::Later(rule, Some(until));
        }
        after(rule, until, then)
    }
}
