//! The server as its answers show it.
#![warn(clippy::arithmetic_side_effects)]

use std::time::Duration;

use tokio::time::Instant;

use super::{
    clock::{RESOLUTION, ServerClock, end_of_window},
    jump::{Count, JumpProof, Rise},
    neighbours::{Heard, Neighbours},
    said::{Left, Said, Unknown},
    time::{Span, later},
    window::{Told, Which, Windows},
};

/// All that is known of the server, each part by a rule of its own.
#[derive(Debug, Default)]
pub(super) struct View {
    pub(super) left: Left,
    pub(super) unknown: Unknown,
    pub(super) windows: Windows,
    pub(super) neighbours: Neighbours,
    /// What the last answer told of its window; `Some` where that is the newest.
    pub(super) told: Option<Told>,
    /// It proved that the server counts in windows.
    pub(super) jumped: bool,
    jump: JumpProof,
    /// The name clock, learned from Resets: no `Date` is needed.
    names: ServerClock,
    /// Learned from `Date`, where there is one: more exact at the beginning.
    dates: ServerClock,
    /// The last headers.
    last: Option<Said>,
    /// When the first request ended without headers; `Some` where none came since.
    silent: Option<Instant>,
}

/// An answer that came, and what we know of ourselves then.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer {
    pub(super) now: Instant,
    /// When its request was sent.
    pub(super) sent: Instant,
    /// The number of the server's window then.
    pub(super) window: u64,
    /// The most requests of ours that the server can have counted.
    pub(super) ours: u32,
    /// Our other answers that surely still count on a sliding log.
    pub(super) recent: u32,
    /// How many we sent in all.
    pub(super) total: u64,
    /// How many are on their way.
    pub(super) in_flight: u32,
    pub(super) plan: u32,
    pub(super) span: Span,
}

impl View {
    /// An answer says what is left. Returns whether it shows that a whole window of its Limit opened.
    pub(super) fn heard(&mut self, said: Said, answer: Answer) -> bool {
        let Answer { now, span, .. } = answer;
        self.last = Some(said);
        self.silent = None;
        self.told = None;
        self.jumped = false;
        self.unknown.answered(answer.sent);
        self.left.answered(answer.sent, said.remaining, now);
        let heard = self.read(said, answer);
        self.neighbours.answered(heard, answer.plan, now);
        let Some(reset) = within(said, span) else {
            self.windows.leave();
            return false;
        };
        let told = Told {
            reset,
            limit: said.limit,
            remaining: said.remaining,
            end: end_of_window(&self.names, Some(reset), span.longest, now),
        };
        match self.windows.which(reset, answer.sent) {
            Which::Older => return false,
            Which::Contradiction => self.start_over(told, answer),
            Which::Same => self.same_window(told, answer),
            Which::Next(later) => self.next_window(told, answer, later),
        }
        self.told = Some(told);
        let count = Count {
            limit: said.limit,
            remaining: said.remaining,
            rate: said.limit.max(answer.plan),
            recent: answer.recent,
            window: self.windows.number(),
            is_whole: self.windows.is_whole(),
        };
        match self.jump.compare(answer.sent, count, span, now) {
            Rise::No => false,
            Rise::Slow => {
                self.neighbours.slides(span, now);
                false
            }
            Rise::Jump => {
                self.jumped = true;
                if self.neighbours.are_gone(span, now) {
                    self.windows.trust();
                }
                said.limit.checked_sub(1) == Some(said.remaining)
            }
        }
    }

    fn same_window(&mut self, told: Told, answer: Answer) {
        if self.windows.stands_still(answer.sent) {
            self.windows.leave();
            // It was read from this Reset too.
            self.names = ServerClock::default();
        }
        self.windows.seen(told);
        let counted = told.limit.saturating_sub(told.remaining);
        let watched = self.windows.is_trusted() || self.neighbours.shared_for_a_while(answer.now);
        let ours = self.windows.ours(answer.total);
        if watched && answer.window == self.windows.number() && counted > ours {
            self.neighbours.share(answer.span, answer.now);
            self.windows.leave();
        }
    }

    fn next_window(&mut self, told: Told, answer: Answer, later: Option<Duration>) {
        let nearly = answer
            .span
            .named
            .saturating_sub(RESOLUTION.saturating_mul(2));
        let is_whole = later.is_some_and(|later| later >= nearly);
        self.open(told, is_whole, answer);
        if !is_whole {
            self.windows.leave();
        }
    }

    /// The server's clock was set back, or what it said of its windows was wrong.
    fn start_over(&mut self, told: Told, answer: Answer) {
        self.windows.leave();
        self.names = ServerClock::default();
        self.dates = ServerClock::default();
        self.jump = JumpProof::default();
        let end = later(answer.now, answer.span.longest);
        self.open(Told { end, ..told }, false, answer);
    }

    fn open(&mut self, told: Told, is_whole: bool, answer: Answer) {
        let may_be_in_it = answer.in_flight.saturating_add(1);
        self.windows
            .open(told, is_whole, answer.total, may_be_in_it, answer.now);
    }

    /// A request ended without headers, and had arrived by `arrived` if ever. Returns whether there were none for so long
    /// that they seem to have gone.
    pub(super) fn unheard(&mut self, arrived: Instant, span: Span, now: Instant) -> bool {
        self.unknown.add(arrived);
        let silent = *self.silent.get_or_insert(now);
        let gone = later(silent, span.longest) <= now;
        if gone {
            self.windows.leave();
            self.neighbours.unheard();
            self.left.forget();
        }
        gone
    }

    /// A 429, with or without headers. Returns how long its window lasts still, where it says that.
    pub(super) fn refused(&mut self, said: Option<Said>, answer: Answer) -> Option<Duration> {
        let Answer { now, span, .. } = answer;
        self.windows.leave();
        let remaining = said.map_or(0, |said| said.remaining);
        self.left.set(remaining, now);
        self.jump
            .set(answer.sent, remaining, self.windows.number(), now);
        let said = said?;
        self.last = Some(said);
        self.silent = None;
        let reset = within(said, span);
        if reset.is_some_and(|reset| self.windows.goes_on(reset, answer.sent)) {
            // Else each window to come would be taken for ended too early.
            self.names = ServerClock::default();
            self.dates = ServerClock::default();
        }
        let heard = self.read(said, answer);
        self.neighbours.refused(heard, now);
        reset.map(|_| heard.reset.saturating_duration_since(now))
    }

    /// The server's windows are of another length: what was learned by the old one starts anew.
    pub(super) fn start_anew(&mut self) {
        self.windows.start_anew();
        self.names = ServerClock::default();
        self.jump = JumpProof::default();
    }

    /// What the server's clock shows, read from its Resets.
    pub(super) fn clock(&self, now: Instant) -> Option<Duration> {
        self.names.shows(now)
    }

    /// What the last answer with headers said.
    pub(super) const fn last(&self) -> Option<Said> {
        self.last
    }

    /// Reads the server's clock from an answer.
    fn read(&mut self, said: Said, answer: Answer) -> Heard {
        let Answer { now, span, .. } = answer;
        let reset = within(said, span);
        if let Some(reset) = reset {
            // A Reset is rounded up by less than a second, and no window is longer than one.
            let open = span.longest.saturating_add(RESOLUTION);
            self.names.learn(reset.saturating_sub(open), now);
        }
        let clock = match said.date {
            Some(date) => {
                self.dates.learn(date, now);
                &self.dates
            }
            None => &self.names,
        };
        Heard {
            limit: said.limit,
            remaining: said.remaining,
            ours: answer.ours,
            reset: end_of_window(clock, reset, span.longest, now),
        }
    }
}

/// Reset, unless it is that of a longer window than ours.
fn within(said: Said, span: Span) -> Option<Duration> {
    said.reset.filter(|reset| {
        said.date
            .is_none_or(|date| *reset <= date.saturating_add(farthest(span)))
    })
}

/// How far a Reset of a window of this length may be away, rounded as it may be.
pub(super) const fn farthest(span: Span) -> Duration {
    span.named.saturating_add(RESOLUTION.saturating_mul(2))
}

#[cfg(test)]
#[allow(
    clippy::arithmetic_side_effects,
    reason = "a test may panic, and reads better so"
)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::limit::window::Held;

    /// How a server's Reset is rounded to seconds.
    #[derive(Clone, Copy, Debug)]
    enum Rounding {
        Up,
        Down,
        /// From a time to live in rounded seconds.
        TimeToLive,
    }

    /// In milliseconds of the server's clock.
    fn reset(end: u64, at: u64, rounding: Rounding) -> u64 {
        match rounding {
            Rounding::Up => end.div_ceil(1_000),
            Rounding::Down => end / 1_000,
            Rounding::TimeToLive => at / 1_000 + (end - at + 500) / 1_000,
        }
    }

    fn end(view: &View, span: Span, now: Instant) -> Option<Instant> {
        match view.windows.fitting(0, 100, span, now) {
            Err(Held::UsedUp(end)) => Some(end),
            _ => None,
        }
    }

    /// Requests, by the time since the last one and how long each is on its way and its answer back, in milliseconds.
    fn requests() -> impl Strategy<Value = Vec<(u64, u64, u64)>> {
        let gap = prop_oneof![0_u64..20_000, 0_u64..300];
        let way = || prop_oneof![8 => 0_u64..300, 1 => 0_u64..4_000];
        prop::collection::vec((gap, way(), way()), 1..60)
    }

    proptest! {
        /// Whatever the server's clock shows, however fast it goes, however it rounds and however long answers take.
        #[test]
        fn a_window_is_never_taken_for_ended_before_it_is(
            requests in requests(),
            skew in 0_u64..2_000_000_000_000,
            drift in -200_i64..=200,
            rounding in prop_oneof![Just(Rounding::Up), Just(Rounding::Down), Just(Rounding::TimeToLive)],
            anchored in any::<bool>(),
        ) {
            let start = Instant::now();
            let span = Span::new(Duration::from_secs(60));
            let shown = |at: u64| skew + at + at * u64::try_from(200 + drift).unwrap() / 1_000_000;
            let (mut sent, mut arrivals) = (0, Vec::new());
            for (gap, there, back) in requests {
                sent += gap;
                arrivals.push((sent + there, sent, sent + there + back));
            }
            arrivals.sort_unstable();
            let (mut window_end, mut answers) = (0, Vec::new());
            for (arrived, sent, received) in arrivals {
                let at = shown(arrived);
                if at >= window_end {
                    window_end = if anchored { at + 60_000 } else { (at / 60_000 + 1) * 60_000 };
                }
                answers.push((received, sent, reset(window_end, at, rounding), window_end));
            }
            answers.sort_unstable();
            let mut view = View::default();
            let mut newest = None;
            for (received, sent, reset, window_end) in answers {
                let now = start + Duration::from_millis(received);
                let before = end(&view, span, now);
                let answer = Answer {
                    now,
                    sent: start + Duration::from_millis(sent),
                    window: 0,
                    ours: 0,
                    recent: 0,
                    total: 0,
                    in_flight: 0,
                    plan: 100,
                    span,
                };
                view.heard(
                    Said { limit: 100, remaining: 50, reset: Some(Duration::from_secs(reset)), date: None, window: None },
                    answer,
                );
                let after = end(&view, span, now).unwrap();
                if newest.is_none_or(|newest| newest < window_end) {
                    newest = Some(window_end);
                } else {
                    prop_assert!(after <= before.unwrap(), "it moved later");
                }
                // By the server's clock, at an instant that may be before the start of the run.
                let ends = shown(u64::try_from((after - start).as_millis()).unwrap());
                prop_assert!(ends + 1 >= newest.unwrap(), "{ends} {newest:?}");
            }
        }
    }
}
