//! The token bucket: the only place that decides whether a request may leave. Pure, given the time.

use std::{fmt, num::NonZeroU32, time::Duration};

use tokio::time::Instant;

use super::{
    pacer::Pacer,
    pause::{Held, Pause},
    ring::AnswerRing,
};

/// Whether the next request may leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Now,
    /// Held by a rule until an instant, or (`None`) until a request on its way ends.
    Later(Rule, Option<Instant>),
}

/// The rule that holds a request back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Rule {
    /// A 429 paused all requests.
    Paused,
    /// One request finds out whether the server answers.
    Probe,
    /// As many as the plan allows are on their way or were answered within the last minute.
    Ring,
    /// Requests leave in even steps.
    Paced,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Paused => "paused by a 429",
            Self::Probe => "probe out",
            Self::Ring => "ring",
            Self::Paced => "paced",
        })
    }
}

/// A request that was sent, to be named again when it ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent(u64);

#[derive(Debug)]
pub(super) struct Bucket {
    plan: u32,
    /// The plan, or less where the server counts more strictly than it says.
    n: u32,
    /// When one step of what was cut comes back; `Some` where something was.
    cut_until: Option<Instant>,
    /// How long the next cut holds.
    hold: Duration,
    window: Duration,
    pacer: Pacer,
    ring: AnswerRing,
    pause: Pause,
    /// The number of the next request.
    next: u64,
}

impl Bucket {
    /// A bucket for `plan` requests in each `window` of the server.
    pub(super) fn new(plan: NonZeroU32, window: Duration) -> Self {
        // Clocks differ by up to 200 parts in a million.
        let window = window + window / 5_000;
        let plan = plan.get();
        Self {
            plan,
            n: plan,
            cut_until: None,
            hold: FIRST_HOLD,
            window,
            pacer: Pacer::new(plan, window),
            ring: AnswerRing::new(window),
            pause: Pause::new(),
            next: 0,
        }
    }

    pub(super) fn verdict(&self, now: Instant) -> Verdict {
        match self.pause.held(now) {
            Some(Held::Paused(until)) => return Verdict::Later(Rule::Paused, Some(until)),
            Some(Held::Probe(until)) => return Verdict::Later(Rule::Probe, Some(until)),
            None => {}
        }
        if let Err(until) = self.ring.fits(self.n, now) {
            return Verdict::Later(Rule::Ring, until);
        }
        match self.pacer.held_until(now) {
            Some(until) => Verdict::Later(Rule::Paced, Some(until)),
            None => Verdict::Now,
        }
    }

    /// A request leaves at `now`: takes its token.
    pub(super) fn send(&mut self, now: Instant) -> Sent {
        self.give_back_a_step(now);
        let request = self.next;
        self.next = self.next.wrapping_add(1);
        self.pacer.charge(now);
        self.ring.send();
        self.pause.send(request, now);
        Sent(request)
    }

    /// The server answered, with anything but 429.
    pub(super) fn answered(&mut self, Sent(request): Sent, now: Instant) {
        self.ring.answered(now);
        self.pause.answered(request);
    }

    /// No answer came: the attempt failed or was dropped.
    pub(super) fn lost(&mut self, Sent(request): Sent, now: Instant) {
        self.ring.lost(now);
        self.pause.lost(request);
    }

    /// The server answered 429 and asked for `hint`. Returns until when nothing leaves, where that begins a new pause.
    pub(super) fn refused(
        &mut self,
        Sent(request): Sent,
        hint: Option<Duration>,
        now: Instant,
        random: f64,
    ) -> Option<Instant> {
        let fresh = self.pause.is_fresh(request);
        if fresh && !self.pause.is_probe(request) {
            self.cut(now);
        }
        self.ring.refused();
        // Servers truncate: a hint below the interval is none.
        let hint = hint.unwrap_or(self.window).max(self.pacer.interval());
        let until = self.pause.refused(request, self.next, hint, now, random);
        self.pacer.push_to(until);
        fresh.then_some(until)
    }

    pub(super) fn set_plan(&mut self, plan: NonZeroU32) {
        self.plan = plan.get();
        self.n = self.plan;
        self.cut_until = None;
        self.hold = FIRST_HOLD;
        self.pacer.set_rate(self.n, self.window);
    }

    pub(super) const fn plan(&self) -> u32 {
        self.plan
    }

    pub(super) const fn in_flight(&self) -> u32 {
        self.ring.in_flight()
    }

    /// How many more would be within the plan at `now`, if they were not paced.
    pub(super) fn remaining(&self, now: Instant) -> u32 {
        let count = u32::try_from(self.ring.count(now)).unwrap_or(u32::MAX);
        self.n.saturating_sub(count)
    }

    pub(super) fn paused_until(&self, now: Instant) -> Option<Instant> {
        self.pause.until(now)
    }

    /// Refused although paced, with nearly the whole plan used by us: the server counts more strictly (some estimate
    /// their window), so a little less is all there is.
    fn cut(&mut self, now: Instant) {
        let nearly_all = u64::from(self.n) * 9 / 10;
        if (self.ring.count(now) as u64) < nearly_all {
            return;
        }
        self.n = self.n.saturating_sub(self.step()).max(1);
        self.cut_until = Some(now + self.hold);
        self.hold = self.hold.saturating_mul(2).min(LONGEST_HOLD);
        self.pacer.set_rate(self.n, self.window);
    }

    fn give_back_a_step(&mut self, now: Instant) {
        if self.cut_until.is_some_and(|until| until <= now) {
            self.n = self.n.saturating_add(self.step()).min(self.plan);
            self.cut_until = (self.n < self.plan).then(|| now + FIRST_HOLD);
            self.pacer.set_rate(self.n, self.window);
        }
    }

    fn step(&self) -> u32 {
        (self.plan / 100).max(1)
    }
}

const FIRST_HOLD: Duration = Duration::from_secs(60 * 60);
const LONGEST_HOLD: Duration = Duration::from_secs(24 * 60 * 60);
