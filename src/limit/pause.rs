//! What a 429 does: nothing leaves until its hint has passed, then one probe.
#![warn(clippy::arithmetic_side_effects)]

use std::time::Duration;

use tokio::time::Instant;

use super::time::{later, scaled};

/// No request leaves before an instant; the first one after it goes alone. So does the very first of all, and the first
/// after a server's window has ended.
#[derive(Debug)]
pub(super) struct Pause {
    until: Option<Instant>,
    /// Refusals in a row, a pause counted once.
    row: u32,
    /// The first request after the last refusal: what was sent before it says nothing about it.
    since: u64,
    probe: Probe,
}

/// One request that finds out whether the server answers again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Probe {
    /// The next request is one.
    Needed,
    /// It was sent at this instant, and nothing came back yet.
    Out { request: u64, sent: Instant },
    /// An answer came since the last refusal.
    Answered,
}

/// What [`Pause`] says of a request that nothing else holds back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gate {
    Open,
    Paused(Instant),
    /// The next request goes alone.
    OneProbe,
    /// Until the probe's answer, and no longer than this.
    ProbeOut(Instant),
    /// The probe was not answered in time: others go on beside it, paced.
    Beside,
}

impl Pause {
    pub(super) const fn new() -> Self {
        Self {
            until: None,
            row: 0,
            since: 0,
            probe: Probe::Needed,
        }
    }

    pub(super) fn until(&self, now: Instant) -> Option<Instant> {
        self.until.filter(|&until| until > now)
    }

    pub(super) fn gate(&self, now: Instant) -> Gate {
        if let Some(until) = self.until(now) {
            return Gate::Paused(until);
        }
        match self.probe {
            Probe::Needed => Gate::OneProbe,
            Probe::Answered => Gate::Open,
            Probe::Out { sent, .. } => {
                let patience = later(sent, PROBE_PATIENCE);
                if now < patience {
                    Gate::ProbeOut(patience)
                } else {
                    Gate::Beside
                }
            }
        }
    }

    /// Request number `request` leaves; `alone` makes it a probe even if no pause was.
    pub(super) fn send(&mut self, request: u64, alone: bool, now: Instant) {
        if self.probe == Probe::Needed || alone && self.probe == Probe::Answered {
            self.probe = Probe::Out { request, sent: now };
        }
    }

    pub(super) fn is_probe(&self, request: u64) -> bool {
        matches!(self.probe, Probe::Out { request: probe, .. } if probe == request)
    }

    /// Whether `request` was sent after the last refusal.
    pub(super) const fn is_fresh(&self, request: u64) -> bool {
        request >= self.since
    }

    /// An answer came to `request`. It answers for the probe too, unless it was sent before it.
    pub(super) const fn answered(&mut self, request: u64) {
        if !self.is_fresh(request) {
            return;
        }
        self.row = 0;
        match self.probe {
            Probe::Out { request: probe, .. } if request < probe => {}
            _ => self.probe = Probe::Answered,
        }
    }

    /// Nothing came back for `request`: if it was the probe, another is needed.
    pub(super) fn lost(&mut self, request: u64) {
        if self.is_probe(request) {
            self.probe = Probe::Needed;
        }
    }

    /// The server refused `request`; `next` is the number of the next one. `hint` is what it asked for: servers truncate, so
    /// below `least` it says nothing. The pause is prolonged, never shortened; requests of one burst that are refused
    /// together are one refusal.
    pub(super) fn refused(
        &mut self,
        request: u64,
        next: u64,
        hint: Duration,
        least: Duration,
        now: Instant,
        random: f64,
    ) -> Instant {
        if self.is_fresh(request) {
            self.row = self.row.saturating_add(1);
        }
        let wait = self.lengthened(hint.min(LONGEST).max(least));
        let spread = scaled(wait, 1, 5).clamp(MIN_SPREAD, MAX_SPREAD);
        let wait = wait.saturating_add(spread.mul_f64(random));
        self.pause_until(later(now, wait), next)
    }

    /// Nothing leaves before `until`, or before a later end of a pause that is there. `next` is the number of the next
    /// request.
    pub(super) fn pause_until(&mut self, until: Instant, next: u64) -> Instant {
        self.since = next;
        self.probe = Probe::Needed;
        *self
            .until
            .insert(self.until.map_or(until, |old| old.max(until)))
    }

    /// A server that names a short wait and refuses again means a longer one.
    fn lengthened(&self, hint: Duration) -> Duration {
        if hint >= SHORT {
            return hint;
        }
        let doublings = self.row.saturating_sub(1).min(MAX_DOUBLINGS);
        hint.saturating_mul(2_u32.saturating_pow(doublings))
            .min(LONGEST_DOUBLED)
    }
}

/// A probe that is not answered for this long stops nobody any longer: pacing goes on beside it.
const PROBE_PATIENCE: Duration = Duration::from_secs(2);
const MIN_SPREAD: Duration = Duration::from_millis(250);
const MAX_SPREAD: Duration = Duration::from_secs(5);
const SHORT: Duration = Duration::from_secs(10);
const MAX_DOUBLINGS: u32 = 5;
const LONGEST_DOUBLED: Duration = Duration::from_secs(60);
/// One probe an hour harms no server, and a nonsense hint stops nobody for ever.
const LONGEST: Duration = Duration::from_secs(60 * 60);

#[cfg(test)]
#[allow(
    clippy::arithmetic_side_effects,
    reason = "a test may panic, and reads better so"
)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    /// The interval of a plan of 100.
    const T: Duration = Duration::from_micros(602_620);

    #[test]
    fn before_the_first_answer_one_request_is_in_flight_for_two_seconds() {
        let start = Instant::now();
        let mut pause = Pause::new();
        assert_eq!(pause.gate(start), Gate::OneProbe);
        pause.send(0, false, start);
        assert_eq!(pause.gate(start), Gate::ProbeOut(start + PROBE_PATIENCE));
        assert_eq!(pause.gate(start + PROBE_PATIENCE), Gate::Beside);
        pause.answered(0);
        assert_eq!(pause.gate(start), Gate::Open);
    }

    #[test]
    fn a_lost_probe_frees_its_place() {
        let start = Instant::now();
        let mut pause = Pause::new();
        pause.send(0, false, start);
        pause.lost(0);
        assert_eq!(pause.gate(start), Gate::OneProbe);
        pause.send(1, false, start);
        assert!(pause.is_probe(1));
        pause.lost(0);
        assert!(pause.is_probe(1), "what is lost late was no probe");
    }

    #[test]
    fn the_answer_to_a_request_from_before_a_probe_is_not_the_probes() {
        let start = Instant::now();
        let mut pause = Pause::new();
        pause.send(0, false, start);
        pause.answered(0);
        pause.send(1, false, start);
        assert_eq!(pause.gate(start), Gate::Open);
        pause.send(2, true, start);
        let held = Gate::ProbeOut(start + PROBE_PATIENCE);
        assert_eq!(pause.gate(start), held);
        pause.answered(1);
        assert_eq!(pause.gate(start), held);
        pause.send(3, true, start + PROBE_PATIENCE);
        pause.answered(3);
        assert_eq!(
            pause.gate(start),
            Gate::Open,
            "it was sent later, beside the probe"
        );
    }

    #[test]
    fn refusals_of_one_burst_are_one_pause_that_is_never_shortened() {
        let start = Instant::now();
        let mut pause = Pause::new();
        let first = pause.refused(0, 5, 12 * SECOND, T, start, 0.0);
        assert_eq!(first, start + 12 * SECOND);
        for request in 1..5 {
            let until = pause.refused(request, 5, SECOND, T, start, 0.0);
            assert_eq!(until, first);
        }
        assert_eq!(pause.row, 1);
        assert_eq!(pause.gate(start), Gate::Paused(first));
        pause.answered(4);
        pause.send(5, false, first);
        assert!(
            pause.is_probe(5),
            "an answer from before the pause says nothing"
        );
        assert_eq!(pause.gate(first), Gate::ProbeOut(first + PROBE_PATIENCE));
    }

    #[test]
    fn a_short_hint_doubles_with_each_refusal_in_a_row() {
        let mut now = Instant::now();
        let mut pause = Pause::new();
        let mut waits = Vec::new();
        for request in 0..8 {
            pause.send(request, false, now);
            let until = pause.refused(request, request + 1, 3 * SECOND, T, now, 0.0);
            waits.push((until - now).as_secs());
            now = until;
        }
        assert_eq!(waits, [3, 6, 12, 24, 48, 60, 60, 60]);
        pause.send(8, false, now);
        pause.answered(8);
        let until = pause.refused(9, 10, 3 * SECOND, T, now, 0.0);
        assert_eq!((until - now).as_secs(), 3);
    }

    #[test]
    fn the_spread_is_above_the_hint_and_a_nonsense_hint_is_bounded() {
        let start = Instant::now();
        let until = Pause::new().refused(0, 1, 12 * SECOND, T, start, 0.999_999);
        assert!(until > start + 14 * SECOND && until < start + Duration::from_millis(14_400));
        let until = Pause::new().refused(0, 1, Duration::MAX, T, start, 0.0);
        assert_eq!(until, start + LONGEST);
    }

    /// The bound of a nonsense hint took the floor away again.
    #[test]
    fn a_pause_lasts_an_interval_also_where_that_is_more_than_an_hour() {
        let (start, day) = (Instant::now(), 24 * LONGEST);
        for hint in [Duration::ZERO, SECOND, 2 * LONGEST] {
            let until = Pause::new().refused(0, 1, hint, day, start, 0.0);
            assert_eq!(until, start + day, "{hint:?}");
        }
    }
}
