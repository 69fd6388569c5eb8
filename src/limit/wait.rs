//! How long a request waits for its turn, and why.
#![warn(clippy::arithmetic_side_effects)]

use std::time::Duration;

use tokio::time::Instant;

use super::{
    rule::{Rule, Verdict},
    time::later,
};

/// The wait of one whose turn it was not at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wait {
    pub(super) since: Instant,
    /// How many were before it when it came.
    pub(super) ahead: usize,
    /// What held the head of the queue when it last asked, and until when; `None` where that was not known.
    held: Option<(Rule, Option<Instant>)>,
    /// When its turn came; `Some` until it asks again.
    turn: Option<Instant>,
    /// How long it had its turn and lost it unused.
    unused: Duration,
}

impl Wait {
    pub(super) const fn new(since: Instant, ahead: usize) -> Self {
        Self {
            since,
            ahead,
            held: None,
            turn: None,
            unused: Duration::ZERO,
        }
    }

    /// It is not its turn, or not any longer.
    pub(super) fn goes_on(&mut self, verdict: Verdict, now: Instant) {
        if let Some(turn) = self.turn.take() {
            let unused = now.saturating_duration_since(turn);
            self.unused = self.unused.saturating_add(unused);
        }
        if let Verdict::Later(rule, until) = verdict {
            self.held = Some((rule, until));
        }
    }

    /// Its turn came: what passes from here on until it is sent is not our doing.
    pub(super) const fn has_turn(&mut self, now: Instant) {
        self.turn = Some(now);
    }

    /// When it would have begun, if it had never had its turn in vain.
    pub(super) fn began(&self) -> Instant {
        later(self.since, self.unused)
    }

    /// How long it waited for its turn until `now`.
    pub(super) fn lasted(&self, now: Instant) -> Duration {
        let until = self.turn.unwrap_or(now);
        until.saturating_duration_since(self.began())
    }

    /// The rule that held it.
    pub(super) fn rule(&self) -> Option<Rule> {
        self.held.map(|(rule, _)| rule)
    }

    /// For how long the rule was to hold, from the begin of the wait.
    pub(super) fn rule_holds(&self) -> Option<Duration> {
        let (_, until) = self.held?;
        until.map(|until| until.saturating_duration_since(self.since))
    }
}

#[cfg(test)]
#[allow(
    clippy::arithmetic_side_effects,
    reason = "a test may panic, and reads better so"
)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_turn_that_is_not_used_is_no_part_of_the_wait() {
        let start = Instant::now();
        let mut wait = Wait::new(start, 3);
        assert_eq!(wait.lasted(start + SECOND), SECOND);
        wait.has_turn(start + 2 * SECOND);
        assert_eq!(wait.lasted(start + 10 * SECOND), 2 * SECOND);
        wait.goes_on(Verdict::Now(1), start + 10 * SECOND);
        assert_eq!(wait.lasted(start + 11 * SECOND), 3 * SECOND);
        wait.has_turn(start + 12 * SECOND);
        assert_eq!(wait.lasted(start + 20 * SECOND), 4 * SECOND);
    }

    #[test]
    fn the_last_rule_is_named_with_its_end() {
        let start = Instant::now();
        let mut wait = Wait::new(start, 0);
        assert_eq!((wait.rule(), wait.rule_holds()), (None, None));
        let until = Some(start + 12 * SECOND);
        wait.goes_on(Verdict::Later(Rule::Window, until), start + SECOND);
        wait.goes_on(Verdict::Now(1), start + 2 * SECOND);
        assert_eq!(wait.rule(), Some(Rule::Window));
        assert_eq!(wait.rule_holds(), Some(12 * SECOND));
        wait.goes_on(Verdict::Later(Rule::Ring, None), start + 2 * SECOND);
        assert_eq!((wait.rule(), wait.rule_holds()), (Some(Rule::Ring), None));
    }
}
