//! A step less, for a while.
#![warn(clippy::arithmetic_side_effects)]

use std::time::Duration;

use tokio::time::Instant;

use super::time::later;

/// When a step that was taken away comes back: after an hour, and each time that one is taken away again after twice as
/// long, so that a server that counts more strictly than it says is tried ever more rarely.
#[derive(Debug)]
pub(super) struct Cut {
    /// `Some` while something is taken away.
    back: Option<Instant>,
    hold: Duration,
}

impl Default for Cut {
    fn default() -> Self {
        Self {
            back: None,
            hold: FIRST_HOLD,
        }
    }
}

impl Cut {
    /// One more step is taken away.
    pub(super) fn take(&mut self, now: Instant) {
        self.back = Some(later(now, self.hold));
        self.hold = self.hold.saturating_mul(2).min(LONGEST_HOLD);
    }

    /// Whether one step comes back at `now`.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.back.is_some_and(|back| back <= now)
    }

    /// One step came back; `more` are still taken away.
    pub(super) fn gave_back(&mut self, more: bool, now: Instant) {
        self.back = more.then(|| later(now, FIRST_HOLD));
    }
}

const FIRST_HOLD: Duration = Duration::from_secs(60 * 60);
const LONGEST_HOLD: Duration = Duration::from_secs(24 * 60 * 60);

#[cfg(test)]
#[allow(
    clippy::arithmetic_side_effects,
    reason = "a test may panic, and reads better so"
)]
mod tests {
    use super::*;

    #[test]
    fn each_cut_holds_twice_as_long_as_the_last() {
        let mut now = Instant::now();
        let mut cut = Cut::default();
        assert!(!cut.is_over(now), "nothing was taken");
        let mut holds = Vec::new();
        for _ in 0..7 {
            cut.take(now);
            let mut hours = 0;
            while !cut.is_over(now) {
                now += FIRST_HOLD;
                hours += 1;
            }
            cut.gave_back(false, now);
            assert!(!cut.is_over(now + LONGEST_HOLD));
            holds.push(hours);
        }
        assert_eq!(holds, [1, 2, 4, 8, 16, 24, 24]);
    }

    #[test]
    fn what_was_taken_in_two_steps_comes_back_in_two() {
        let now = Instant::now();
        let mut cut = Cut::default();
        cut.take(now);
        cut.take(now);
        let first = now + 2 * FIRST_HOLD;
        assert!(!cut.is_over(first - Duration::from_nanos(1)));
        assert!(cut.is_over(first));
        cut.gave_back(true, first);
        assert!(!cut.is_over(first));
        assert!(cut.is_over(first + FIRST_HOLD));
    }
}
