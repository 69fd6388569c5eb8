//! The token bucket: the only place that decides whether a request may leave. Pure, given the time.
#![warn(clippy::arithmetic_side_effects)]

use std::{num::NonZeroU32, time::Duration};

use tokio::time::Instant;

use super::{
    credit::Credit,
    cut::Cut,
    fleet::Fleet,
    jump::surely_counting,
    pacer::Pacer,
    pause::Pause,
    ring::{AnswerRing, MAY_STILL_ARRIVE},
    rule::Mode,
    said::Said,
    time::{Span, later},
    view::{Answer, View, farthest},
};
use crate::headers::Undated;

mod fleet;
#[cfg(test)]
#[allow(
    clippy::arithmetic_side_effects,
    reason = "a test may panic, and reads better so"
)]
mod properties;
#[cfg(test)]
#[allow(
    clippy::arithmetic_side_effects,
    reason = "a test may panic, and reads better so"
)]
mod simulation;
#[cfg(test)]
#[allow(
    clippy::arithmetic_side_effects,
    reason = "a test may panic, and reads better so"
)]
mod tests;
mod verdict;

/// A request that was sent, to be named again when it ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    number: u64,
    at: Instant,
    /// Our requests that counted when it was sent, itself among them.
    own: u32,
    /// The number of the server's window then.
    window: u64,
    /// It was not sent in window mode.
    paced: bool,
}

impl Sent {
    pub(super) const fn at(&self) -> Instant {
        self.at
    }
}

#[derive(Debug)]
pub(super) struct Bucket {
    plan: u32,
    /// The plan, or less where the server counts more strictly than it says.
    n: u32,
    cut: Cut,
    span: Span,
    pacer: Pacer,
    credit: Credit,
    ring: AnswerRing,
    pause: Pause,
    server: View,
    /// The number of the next request.
    next: u64,
    learns: bool,
    reads_headers: bool,
    /// `Some` where the plan is shared by a store.
    fleet: Option<Box<Fleet>>,
}

/// How the bucket is made.
impl Bucket {
    /// A bucket for `plan` requests in each `window` of the server.
    pub(super) fn new(plan: NonZeroU32, window: Duration) -> Self {
        let span = Span::new(window);
        let plan = plan.get();
        Self {
            plan,
            n: plan,
            cut: Cut::default(),
            span,
            pacer: Pacer::new(plan, span),
            credit: Credit::new(),
            ring: AnswerRing::new(span.longest),
            pause: Pause::new(),
            server: View::default(),
            next: 0,
            learns: false,
            reads_headers: true,
            fleet: None,
        }
    }

    /// At most `most` leave at once after idleness, in the place of what is earned by default; never more than the plan.
    pub(super) const fn burst(&mut self, most: NonZeroU32) {
        self.credit.set_most(most);
    }

    /// Whatever rate headers say is not looked at.
    pub(super) const fn without_headers(&mut self) {
        self.reads_headers = false;
    }

    /// Takes the plan from Limit as soon as a whole window of it is seen to open.
    pub(super) const fn learn(&mut self) {
        self.learns = true;
    }

    /// Changes the plan: what was counted is kept.
    pub(super) fn set_plan(&mut self, plan: NonZeroU32) {
        self.plan = plan.get();
        self.cut = Cut::default();
        self.server.neighbours.forget_most();
        self.set_rate(self.plan);
    }

    /// How long the server's window is: what was counted is kept.
    pub(super) fn set_window(&mut self, window: Duration) {
        let span = Span::new(window);
        if span != self.span {
            self.span = span;
            self.ring.set_window(span.longest);
            self.server.start_anew();
            self.set_rate(self.n);
        }
    }

    fn set_rate(&mut self, n: u32) {
        self.n = n;
        self.pacer.set_rate(n, self.span);
        if let Some(fleet) = &mut self.fleet {
            fleet.set_rate(n, self.span);
        }
    }
}

/// What happens to a request.
impl Bucket {
    /// A request leaves at `now`: takes its token. `waited_since` is when it began to wait for its turn, if it waited.
    pub(super) fn send(&mut self, now: Instant, waited_since: Option<Instant>) -> Sent {
        let alone = self.server.windows.has_ended(now);
        let number = self.next;
        let sent = Sent {
            number,
            at: now,
            own: self.ring.send(number, now),
            window: self.server.windows.number(),
            paced: !self.server.windows.is_trusted(),
        };
        self.next = self.next.saturating_add(1);
        self.charge(now, waited_since);
        if let Some(fleet) = &mut self.fleet {
            fleet.send(now);
        }
        self.pause.send(sent.number, alone, now);
        self.give_back_a_step(now);
        sent
    }

    /// Whoever waited, waited because idleness had earned nothing: it uses no credit, and none of the time until now counts.
    fn charge(&mut self, now: Instant, waited_since: Option<Instant>) {
        let idle = waited_since.is_none_or(|since| since >= now || self.credit.forgives(since));
        let earns = idle && self.mode(now) == Mode::Paced;
        let credit = if earns {
            self.earned(now)
        } else {
            Duration::ZERO
        };
        let more = self.pacer.charge(credit, now);
        self.credit.sent(more && earns, now);
    }

    /// The server answered, with anything but 429.
    pub(super) fn answered(&mut self, sent: Sent, said: Option<Said>, now: Instant) {
        self.ring.answered(sent.number, now);
        self.pause.answered(sent.number);
        match self.believed(said) {
            Some(said) => self.heard(sent, said, now),
            None => self.unheard(now, now),
        }
    }

    /// No answer came: the attempt failed or was dropped.
    pub(super) fn lost(&mut self, sent: Sent, now: Instant) {
        self.ring.lost(sent.number, now);
        self.pause.lost(sent.number);
        self.unheard(later(now, MAY_STILL_ARRIVE), now);
    }

    /// Answers carry headers no longer, or this one did not.
    fn unheard(&mut self, arrived: Instant, now: Instant) {
        if self.server.unheard(arrived, self.span, now) {
            self.credit.unheard();
            self.doubt_windows();
        }
    }

    /// The headers, unless they are odd: of another window they say nothing about the plan.
    fn believed(&self, said: Option<Said>) -> Option<Said> {
        let said = said.filter(|_| self.reads_headers)?;
        let other_window = said.window.is_some_and(|window| window != self.span.named);
        let is_odd = said.remaining > said.limit || other_window && said.limit != self.plan;
        (!is_odd).then_some(said)
    }

    /// The server said what is left.
    fn heard(&mut self, sent: Sent, said: Said, now: Instant) {
        if let Some(window) = said.window {
            self.set_window(window);
        }
        let answer = self.answer(sent, now);
        let unused =
            u64::from(said.remaining) >= u64::from(said.limit).saturating_sub(answer.total);
        if self.credit.heard(unused, self.span, now) {
            self.pacer.give(self.earned(now), now);
        }
        let trusted = self.trust_as_the_fleet();
        let whole = self.server.heard(said, answer);
        self.tell_fleet(sent, trusted);
        self.see_no_others();
        let learned = whole && self.learns && said.limit != self.plan;
        if let Some(limit) = NonZeroU32::new(said.limit).filter(|_| learned) {
            self.set_plan(limit);
        }
    }

    fn answer(&self, sent: Sent, now: Instant) -> Answer {
        let since = self.next.saturating_sub(sent.number).saturating_sub(1);
        let since = u32::try_from(since).unwrap_or(u32::MAX);
        let recent = self.ring.ended_within(surely_counting(self.span), now);
        Answer {
            now,
            sent: sent.at,
            window: self.window_of(sent),
            ours: sent.own.saturating_add(since),
            recent: recent.saturating_sub(1),
            total: self.next,
            in_flight: self.in_flight(),
            plan: self.plan,
            span: self.span,
        }
    }

    /// How the Reset of a 429 without `Date` is read: by the server's own clock if that is known, else by the `local` one.
    /// `None` where no Reset is believed.
    pub(super) fn undated(&self, local: Duration, now: Instant) -> Option<Undated> {
        self.reads_headers.then(|| Undated {
            shown: self.server.clock(now).unwrap_or(local),
            farthest: farthest(self.span),
        })
    }

    /// The server answered 429 and asked for `hint`. Returns until when nothing leaves, where that begins a new pause.
    pub(super) fn refused(
        &mut self,
        sent: Sent,
        hint: Option<Duration>,
        said: Option<Said>,
        now: Instant,
        random: f64,
    ) -> Option<Instant> {
        let said = self.believed(said);
        // Refused for something else, such as too many tasks, though it counts.
        let has_left = said.is_some_and(|said| said.remaining > 0);
        if has_left {
            self.ring.answered(sent.number, now);
        } else {
            self.ring.refused(sent.number);
        }
        let fresh = self.pause.is_fresh(sent.number);
        if fresh && self.fleet.is_none() && sent.paced && !self.pause.is_probe(sent.number) {
            self.blame_pacing(has_left, now);
        }
        let reset = self.server.refused(said, self.answer(sent, now));
        self.see_no_others();
        let hint = hint.or(reset).unwrap_or(self.span.longest);
        self.pause(sent, hint, now, random)
    }

    /// The server answered, but asked for a pause of `hint` (a 503 does). Returns until when nothing leaves, where that
    /// begins a new pause.
    pub(super) fn pause_for(
        &mut self,
        sent: Sent,
        hint: Duration,
        said: Option<Said>,
        now: Instant,
        random: f64,
    ) -> Option<Instant> {
        self.ring.answered(sent.number, now);
        match self.believed(said) {
            Some(said) => self.heard(sent, said, now),
            None => self.unheard(now, now),
        }
        self.pause(sent, hint, now, random)
    }

    fn pause(&mut self, sent: Sent, hint: Duration, now: Instant, random: f64) -> Option<Instant> {
        let begins = self.pause.is_fresh(sent.number) || self.pause.until(now).is_none();
        let least = self.pacer.interval();
        let until = self
            .pause
            .refused(sent.number, self.next, hint, least, now, random);
        self.pacer.push_to(until);
        if let Some(fleet) = &mut self.fleet {
            fleet.refused(until);
        }
        begins.then_some(until)
    }

    /// Nothing leaves before `until`; a pause that ends later holds on.
    pub(super) fn pause_until(&mut self, until: Instant) {
        let until = self.pause.pause_until(until, self.next);
        self.pacer.push_to(until);
    }

    /// Refused although paced. Either credit was used; or too little of the plan for it to be our fault, so others use the
    /// key, even if Remaining is too small a number to show them (it is where the server's burst is a part of the plan); or
    /// nearly all of the plan, by nobody else, and the server counts more strictly than it says (some estimate their
    /// window); none does so by more than a fifth, but one may refuse for something else.
    fn blame_pacing(&mut self, has_left: bool, now: Instant) {
        if self.credit.refused(self.plan, self.span, now) {
            return;
        }
        let used = u64::from(self.ring.count(now)).saturating_mul(10);
        let nearly_all = u64::from(self.n).saturating_mul(9);
        if used < nearly_all && self.credit.sees_headers() {
            self.server.neighbours.share(self.span, now);
        } else if used >= nearly_all
            && !has_left
            && self.server.neighbours.others() <= self.plan / 50
        {
            self.cut.take(now);
            let least = self.plan.saturating_sub(self.plan.div_ceil(5)).max(1);
            self.set_rate(self.n.saturating_sub(self.a_step()).max(least));
        }
    }

    fn give_back_a_step(&mut self, now: Instant) {
        if self.cut.is_over(now) {
            self.set_rate(self.n.saturating_add(self.a_step()).min(self.plan));
            self.cut.gave_back(self.n < self.plan, now);
        }
    }

    fn a_step(&self) -> u32 {
        (self.plan / 100).max(1)
    }
}
