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
    /// This many may leave at once; at least 1.
    Now(u32),
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
            None => Verdict::Now(1),
        }
    }

    /// A request leaves at `now`: takes its token.
    pub(super) fn send(&mut self, now: Instant, _waited_since: Option<Instant>) -> Sent {
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

    /// The time from one token to the next.
    pub(super) const fn pace(&self) -> Duration {
        self.pacer.interval()
    }

    pub(super) fn set_window(&mut self, window: Duration) {
        self.window = window;
        self.pacer.set_rate(self.n, self.window);
        self.ring.set_window(window);
    }

    /// Nothing leaves before `until`.
    pub(super) fn pause_until(&mut self, until: Instant) {
        self.pause.pause_until(until, self.next);
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WINDOW: Duration = Duration::from_secs(60);

    fn plan(n: u32) -> NonZeroU32 {
        NonZeroU32::new(n).unwrap()
    }

    /// Sends as soon as the bucket allows it, and says when.
    fn send(bucket: &mut Bucket, now: &mut Instant) -> Sent {
        for _ in 0..10 {
            match bucket.verdict(*now) {
                Verdict::Now(_) => return bucket.send(*now, None),
                Verdict::Later(_, Some(until)) => *now = until,
                verdict => panic!("{verdict:?}"),
            }
        }
        panic!("no instant is ever the right one");
    }

    #[test]
    fn a_strict_server_gets_a_little_less_and_the_rest_again_later() {
        let mut now = Instant::now();
        let mut bucket = Bucket::new(plan(100), WINDOW);
        for _ in 0..95 {
            let sent = send(&mut bucket, &mut now);
            bucket.answered(sent, now);
        }
        let refused = send(&mut bucket, &mut now);
        let until = bucket.refused(refused, Some(WINDOW), now, 0.0).unwrap();
        assert_eq!(until, now + WINDOW);
        assert_eq!(bucket.n, 99);
        now += FIRST_HOLD;
        let sent = send(&mut bucket, &mut now);
        bucket.answered(sent, now);
        assert_eq!(bucket.n, 100);
    }

    #[test]
    fn a_refusal_with_little_of_the_plan_used_is_not_about_us() {
        let mut now = Instant::now();
        let mut bucket = Bucket::new(plan(100), WINDOW);
        for _ in 0..20 {
            let sent = send(&mut bucket, &mut now);
            bucket.answered(sent, now);
        }
        let sent = send(&mut bucket, &mut now);
        bucket.refused(sent, None, now, 0.0);
        assert_eq!(bucket.n, 100);
    }

    #[test]
    fn a_hint_below_the_interval_is_none() {
        let now = Instant::now();
        let mut bucket = Bucket::new(plan(1), WINDOW);
        let sent = bucket.send(now, None);
        let until = bucket
            .refused(sent, Some(Duration::from_secs(1)), now, 0.0)
            .unwrap();
        assert!(until >= now + WINDOW);
    }

    #[derive(Clone, Debug)]
    enum Event {
        Advance(u64),
        Send,
        Answer(prop::sample::Index),
        Refuse(prop::sample::Index, u64),
        Lose(prop::sample::Index),
        Plan(u32),
    }

    fn event() -> impl Strategy<Value = Event> {
        let index = any::<prop::sample::Index>;
        prop_oneof![
            3 => (0_u64..20_000).prop_map(Event::Advance),
            12 => Just(Event::Send),
            8 => index().prop_map(Event::Answer),
            1 => (index(), 0_u64..30).prop_map(|(i, hint)| Event::Refuse(i, hint)),
            1 => index().prop_map(Event::Lose),
            1 => (1_u32..40).prop_map(Event::Plan),
        ]
    }

    proptest! {
        /// Whatever happens: within the plan, not in a pause, never stuck, and every count ends at zero.
        #[test]
        fn the_rules_hold_in_any_order_of_events(events in prop::collection::vec(event(), 1..400), n in 1_u32..40) {
            let mut now = Instant::now();
            let mut bucket = Bucket::new(plan(n), WINDOW);
            let mut out = Vec::new();
            let mut sends: Vec<Instant> = Vec::new();
            let mut largest = n;
            let mut paused = now;
            for event in events {
                match event {
                    Event::Advance(millis) => now += Duration::from_millis(millis),
                    Event::Send => {
                        match bucket.verdict(now) {
                            Verdict::Now(_) => {}
                            Verdict::Later(_, None) => continue,
                            Verdict::Later(rule, Some(until)) => {
                                prop_assert!(until > now);
                                let before = until - Duration::from_nanos(1);
                                prop_assert_ne!(bucket.verdict(before.max(now)), Verdict::Now(1));
                                // The instant that a rule names is not held by that rule.
                                if let Verdict::Later(next, _) = bucket.verdict(until) {
                                    prop_assert_ne!(next, rule);
                                    continue;
                                }
                                now = until;
                            }
                        }
                        prop_assert!(now >= paused);
                        prop_assert!(bucket.ring.count(now) < bucket.n as usize);
                        sends.push(now);
                        out.push(bucket.send(now, None));
                        let in_window = sends.iter().filter(|&&at| now - at < WINDOW).count();
                        prop_assert!(in_window <= largest as usize, "{in_window} in a window");
                    }
                    Event::Answer(i) if !out.is_empty() => {
                        let sent = out.swap_remove(i.index(out.len()));
                        bucket.answered(sent, now);
                    }
                    Event::Refuse(i, hint) if !out.is_empty() => {
                        let sent = out.swap_remove(i.index(out.len()));
                        bucket.refused(sent, Some(Duration::from_secs(hint)), now, 0.5);
                        let until = bucket.paused_until(now).unwrap();
                        prop_assert!(until >= paused);
                        paused = until;
                        // What was refused does not count at the server.
                        sends.clear();
                    }
                    Event::Lose(i) if !out.is_empty() => {
                        let sent = out.swap_remove(i.index(out.len()));
                        bucket.lost(sent, now);
                    }
                    Event::Plan(n) => {
                        largest = largest.max(n);
                        bucket.set_plan(plan(n));
                    }
                    _ => {}
                }
                prop_assert_eq!(bucket.in_flight() as usize, out.len());
                prop_assert!(bucket.n >= 1 && bucket.n <= bucket.plan());
            }
            for sent in out {
                bucket.answered(sent, now);
            }
            prop_assert_eq!(bucket.in_flight(), 0);
            send(&mut bucket, &mut now);
        }
    }
}
