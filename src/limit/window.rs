//! Window mode: where the server counts in windows, all that is left of one may be sent at once.
#![warn(clippy::arithmetic_side_effects)]

use std::time::Duration;

use tokio::time::Instant;

use super::{
    clock::RESOLUTION,
    time::{Span, later, scaled},
};

/// The server's window as its answers tell it, and whether it was proved to be one. Resets within a second of each other
/// are one window.
#[derive(Debug, Default)]
pub(super) struct Windows {
    /// `Some` after the first answer with a Reset.
    current: Option<Window>,
    /// How many there were.
    number: u64,
    /// The jump proof stands, and all requests are ours.
    trusted: bool,
}

/// One window of the server.
#[derive(Debug)]
struct Window {
    /// Its name.
    reset: Duration,
    /// When its first answer came.
    opened: Instant,
    /// It surely ended by then.
    end: Instant,
    /// The least Remaining seen in it.
    least: u32,
    /// Its Reset is a whole window after the last one's.
    is_whole: bool,
    /// As many of our requests, counted from the first of all, are surely not in it.
    sent_before: u64,
}

/// What an answer told of a window.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    pub(super) reset: Duration,
    pub(super) limit: u32,
    pub(super) remaining: u32,
    /// When it ends by our clock, at the latest.
    pub(super) end: Instant,
}

/// Of which window an answer told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    /// The same as the last.
    Same,
    /// A new one, this much later by the server's clock; `None` where it is the first.
    Next(Option<Duration>),
    /// An older one: the answer was overtaken.
    Older,
    /// An older one, though its request was sent later: the server's clock was set back, or what it said was wrong.
    Contradiction,
}

/// Why window mode holds a request back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Held {
    /// What is left is kept so that another process can show itself.
    Kept(Instant),
    UsedUp(Instant),
}

impl Windows {
    /// Which window `reset` names, in an answer to a request that was sent at `sent`.
    pub(super) fn which(&self, reset: Duration, sent: Instant) -> Which {
        let Some(current) = &self.current else {
            return Which::Next(None);
        };
        if reset > current.reset.saturating_add(RESOLUTION) {
            Which::Next(Some(reset.saturating_sub(current.reset)))
        } else if reset.saturating_add(RESOLUTION) >= current.reset {
            Which::Same
        } else if sent < current.opened {
            Which::Older
        } else {
            Which::Contradiction
        }
    }

    /// One more answer of the same window.
    pub(super) fn seen(&mut self, told: Told) {
        if let Some(current) = &mut self.current {
            current.least = current.least.min(told.remaining);
            current.end = current.end.min(told.end);
        }
    }

    /// The first answer of a window, whose Reset may be a whole window after the last one's. All but `may_be_in_it` of the
    /// `sent` requests are surely not in it.
    pub(super) fn open(
        &mut self,
        told: Told,
        is_whole: bool,
        sent: u64,
        may_be_in_it: u32,
        now: Instant,
    ) {
        self.number = self.number.saturating_add(1);
        self.current = Some(Window {
            reset: told.reset,
            opened: now,
            end: told.end,
            least: told.remaining,
            is_whole,
            sent_before: sent.saturating_sub(u64::from(may_be_in_it)),
        });
    }

    /// Whether this window still goes on for a request that was sent at `sent`, although it had surely ended: its Reset is
    /// none of a window.
    pub(super) fn stands_still(&self, sent: Instant) -> bool {
        let current = self.current.as_ref();
        current.is_some_and(|window| later(window.end, RESOLUTION) < sent)
    }

    /// Whether `reset` is that of a window that was taken for ended when a request was sent at `sent`: the server's clock was
    /// set back, or goes more slowly than clocks do.
    pub(super) fn goes_on(&self, reset: Duration, sent: Instant) -> bool {
        let current = self.current.as_ref();
        let had_ended = current.is_some_and(|window| window.end <= sent);
        had_ended && self.which(reset, sent) == Which::Same
    }

    /// The windows are of another length from here on: what is known of them is of no use.
    pub(super) fn start_anew(&mut self) {
        self.current = None;
        self.leave();
    }

    pub(super) const fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn is_whole(&self) -> bool {
        self.current.as_ref().is_some_and(|window| window.is_whole)
    }

    pub(super) const fn trust(&mut self) {
        self.trusted = true;
    }

    /// Back to pacing.
    pub(super) const fn leave(&mut self) {
        self.trusted = false;
    }

    pub(super) const fn is_trusted(&self) -> bool {
        self.trusted
    }

    /// Whether the window that was trusted has ended: one probe opens the next.
    pub(super) fn has_ended(&self, now: Instant) -> bool {
        self.trusted && self.current.as_ref().is_none_or(|window| window.end <= now)
    }

    /// When this window has surely ended.
    pub(super) fn end(&self) -> Option<Instant> {
        self.current.as_ref().map(|window| window.end)
    }

    /// The most of our `sent` requests that are in this window.
    pub(super) fn ours(&self, sent: u64) -> u32 {
        let before = self.current.as_ref().map_or(0, |w| w.sent_before);
        u32::try_from(sent.saturating_sub(before)).unwrap_or(u32::MAX)
    }

    /// What is left of this window when `unanswered` requests may still be counted in it.
    pub(super) fn left(&self, unanswered: u32) -> u32 {
        let least = self.current.as_ref().map_or(0, |window| window.least);
        least.saturating_sub(unanswered)
    }

    /// How many may leave at once before the window ends, if `left` are left of it; at least one.
    pub(super) fn fitting(
        &self,
        left: u32,
        plan: u32,
        span: Span,
        now: Instant,
    ) -> Result<u32, Held> {
        let Some(window) = &self.current else {
            return Err(Held::UsedUp(now));
        };
        if left == 0 {
            return Err(Held::UsedUp(window.end));
        }
        let freed =
            later(window.opened, scaled(span.named, KEPT_FOR.0, KEPT_FOR.1)).min(window.end);
        let kept = if now < freed { kept(plan) } else { 0 };
        match left.saturating_sub(kept) {
            0 => Err(Held::Kept(freed)),
            free => Ok(free),
        }
    }
}

/// How many are kept for others at the beginning of a window.
fn kept(plan: u32) -> u32 {
    (plan / 50).max(2)
}

/// For how much of a window they are kept: 7 s of a minute.
const KEPT_FOR: (u32, u32) = (7, 60);

#[cfg(test)]
#[allow(
    clippy::arithmetic_side_effects,
    reason = "a test may panic, and reads better so"
)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn told(reset: u32, remaining: u32, end: Instant) -> Told {
        Told {
            reset: reset * SECOND,
            limit: 100,
            remaining,
            end,
        }
    }

    #[test]
    fn resets_within_a_second_are_one_window() {
        let start = Instant::now();
        let mut windows = Windows::default();
        assert_eq!(windows.which(100 * SECOND, start), Which::Next(None));
        windows.open(told(100, 9, start), true, 1, 1, start);
        for reset in [99, 100, 101] {
            assert_eq!(windows.which(reset * SECOND, start), Which::Same);
        }
        let next = windows.which(160 * SECOND, start);
        assert_eq!(next, Which::Next(Some(60 * SECOND)));
        let before = start - SECOND;
        assert_eq!(windows.which(98 * SECOND, before), Which::Older);
        assert_eq!(windows.which(98 * SECOND, start), Which::Contradiction);
    }

    #[test]
    fn the_least_remaining_and_the_first_end_hold() {
        let start = Instant::now();
        let end = start + 60 * SECOND;
        let mut windows = Windows::default();
        windows.open(told(100, 50, end), true, 1, 1, start);
        windows.trust();
        windows.seen(told(100, 48, end + SECOND));
        windows.seen(told(101, 49, end));
        assert_eq!(windows.left(8), 40);
        assert_eq!(windows.left(60), 0);
        assert!(!windows.has_ended(end - Duration::from_nanos(1)));
        assert!(windows.has_ended(end));
        windows.leave();
        assert!(
            !windows.has_ended(end),
            "only a trusted window needs a probe"
        );
    }

    #[test]
    fn a_few_are_kept_for_the_first_seven_seconds() {
        let start = Instant::now();
        let span = Span::new(60 * SECOND);
        let end = start + 60 * SECOND;
        let freed = start + 7 * SECOND;
        let mut windows = Windows::default();
        windows.open(told(100, 99, end), true, 1, 1, start);
        let fitting = |left, now| windows.fitting(left, 100, span, now);
        assert_eq!(fitting(99, start), Ok(97));
        assert_eq!(fitting(2, start), Err(Held::Kept(freed)));
        assert_eq!(fitting(2, freed), Ok(2));
        assert_eq!(fitting(0, freed), Err(Held::UsedUp(end)));
        assert_eq!(windows.fitting(30, 1_000, span, start), Ok(10));
    }

    #[test]
    fn a_window_that_goes_on_after_its_end_stands_still() {
        let start = Instant::now();
        let end = start + 60 * SECOND;
        let mut windows = Windows::default();
        assert!(!windows.stands_still(end), "none is known");
        windows.open(told(100, 99, end), true, 1, 1, start);
        let rounded = end + RESOLUTION;
        assert!(!windows.stands_still(rounded));
        assert!(windows.stands_still(rounded + Duration::from_nanos(1)));
    }

    #[test]
    fn what_was_on_its_way_when_a_window_opened_may_be_in_it() {
        let start = Instant::now();
        let mut windows = Windows::default();
        windows.open(told(100, 99, start), true, 50, 3, start);
        assert_eq!(windows.ours(50), 3);
        assert_eq!(windows.ours(60), 13);
        assert_eq!(windows.number(), 1);
    }
}
