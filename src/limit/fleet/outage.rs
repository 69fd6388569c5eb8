//! What a process does while the store gives no answer.
#![warn(clippy::arithmetic_side_effects)]

use std::time::Duration;

use tokio::time::Instant;

use crate::limit::{
    pacer::LATENESS,
    rule::{Rule, Verdict},
    time::{earlier, later},
};
pub use crate::store::Outage;

/// The time without the store.
#[derive(Clone, Copy, Debug)]
pub(in crate::limit) struct Down {
    since: Instant,
    /// When the store is to be tried again.
    again: Instant,
    /// Failures in a row.
    row: u32,
    /// What was reserved by all processes, as far as is known, ends here.
    reserved: Instant,
    /// When the next request may leave; `None` until one did.
    due: Option<Instant>,
    /// It may have lost what it was told last, or be another one.
    lossy: bool,
}

impl Down {
    pub(super) fn new(lossy: bool, reserved: Instant, now: Instant) -> Self {
        Self {
            since: now,
            again: later(now, wait(0)),
            row: 0,
            reserved,
            due: None,
            lossy,
        }
    }

    /// It failed again; if `lossy`, in another way than by no answer.
    pub(super) fn failed(&mut self, lossy: bool, now: Instant) {
        self.lossy |= lossy;
        self.row = self.row.saturating_add(1);
        self.again = later(now, wait(self.row));
    }

    pub(in crate::limit) const fn since(&self) -> Instant {
        self.since
    }

    pub(in crate::limit) const fn again(&self) -> Instant {
        self.again
    }

    /// How long nobody is to leave when the store is back: what it may have lost begins within this time, and the others who
    /// send without it learn of it.
    pub(super) fn hold(&self, patience: Duration) -> Duration {
        if self.lossy || self.due.is_some() {
            // The longest wait, and two calls that take as long as they may.
            LONGEST_WAIT.saturating_add(patience.saturating_mul(2))
        } else {
            Duration::ZERO
        }
    }

    /// Begins with nothing: what was reserved is not sent again, and the first step passes before the first request.
    pub(super) fn verdict(&self, pace: Option<Duration>, now: Instant) -> Verdict {
        let Some(pace) = pace else {
            return Verdict::Later(Rule::Store, None);
        };
        let due = self.due(pace);
        if due > now {
            Verdict::Later(Rule::Store, Some(due))
        } else {
            Verdict::Now(1)
        }
    }

    pub(super) fn send(&mut self, pace: Duration, now: Instant) {
        let base = self.due(pace).max(earlier(now, LATENESS));
        self.due = Some(later(base, pace));
    }

    fn due(&self, pace: Duration) -> Instant {
        self.due.unwrap_or_else(|| later(self.reserved, pace))
    }
}

/// Until the next try, after so many in vain.
fn wait(tries: u32) -> Duration {
    LONGEST_WAIT.min(FIRST_WAIT.saturating_mul(2_u32.saturating_pow(tries)))
}

const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::patience;

    /// A store puts nothing off by more than 2.52 s.
    #[test]
    fn the_longer_a_call_may_take_the_longer_nothing_is_sent_afterwards() {
        let now = Instant::now();
        let down = Down::new(true, now, now);
        let hold = |millis| {
            down.hold(patience(Duration::from_millis(millis)))
                .as_millis()
        };
        assert_eq!(hold(0), 1_020);
        assert_eq!(hold(100), 1_200);
        assert_eq!(hold(500), 2_000);
        assert_eq!(hold(u64::MAX), 2_500);
    }
}
