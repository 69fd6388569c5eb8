//! The server as its answers show it.
#![warn(clippy::arithmetic_side_effects)]

use std::time::Duration;

use tokio::time::Instant;

use super::{
    clock::{RESOLUTION, ServerClock, end_of_window},
    jump::{Count, JumpProof, Rise},
    neighbours::{Heard, Neighbours},
    said::{Left, Said, Unknown},
    time::Span,
    window::{Told, Which, Windows},
};

/// All that is known of the server, each part by a rule of its own.
#[derive(Debug, Default)]
pub(super) struct View {
    pub(super) left: Left,
    pub(super) unknown: Unknown,
    pub(super) windows: Windows,
    pub(super) neighbours: Neighbours,
    jump: JumpProof,
    /// The name clock, learned from Resets: no `Date` is needed.
    names: ServerClock,
    /// Learned from `Date`, where there is one: more exact at the beginning.
    dates: ServerClock,
    /// The last headers, and when they came.
    last: Option<(Said, Instant)>,
}

/// A request that was answered, and what we know of ourselves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ours {
    /// When it was sent.
    pub(super) sent: Instant,
    /// The number of the server's window then.
    pub(super) window: u64,
    /// The most requests of ours that the server can have counted.
    pub(super) counted: u32,
    /// Our other answers that surely still count on a sliding log.
    pub(super) recent: u32,
    /// How many we sent in all.
    pub(super) total: u64,
    /// How many are on their way.
    pub(super) in_flight: u32,
    pub(super) plan: u32,
}

impl View {
    pub(super) const fn last(&self) -> Option<Said> {
        match self.last {
            Some((said, _)) => Some(said),
            None => None,
        }
    }

    /// An answer says what is left. Returns whether it shows that a whole window of its Limit opened.
    pub(super) fn heard(&mut self, said: Said, ours: Ours, span: Span, now: Instant) -> bool {
        self.last = Some((said, now));
        self.unknown.answered(ours.sent);
        self.left.answered(ours.sent, said.remaining, now);
        let heard = self.read(said, ours.counted, span, now);
        self.neighbours.answered(heard, ours.plan, now);
        let count = Count {
            limit: said.limit,
            remaining: said.remaining,
            rate: said.limit.max(ours.plan),
            recent: ours.recent,
        };
        let rise = self.jump.compare(ours.sent, count, span, now);
        let Some(reset) = within(said, span) else {
            return false;
        };
        let told = Told {
            reset,
            remaining: said.remaining,
            end: end_of_window(&self.names, Some(reset), span.longest, now),
        };
        match self.windows.which(reset, ours.sent) {
            Which::Older => false,
            Which::Contradiction => {
                self.start_over(told, ours, span, now);
                false
            }
            Which::Same => {
                self.same_window(said, told, ours, rise, span, now);
                false
            }
            Which::Next(later) => self.next_window(said, told, later, ours, rise, span, now),
        }
    }

    fn same_window(
        &mut self,
        said: Said,
        told: Told,
        ours: Ours,
        rise: Rise,
        span: Span,
        now: Instant,
    ) {
        self.windows.seen(told);
        if rise != Rise::No {
            self.neighbours.slides(span, now);
        }
        let counted = said.limit.saturating_sub(said.remaining);
        let watched = self.windows.is_trusted() || self.neighbours.shared_for_a_while(now);
        if watched
            && ours.window == self.windows.number()
            && counted > self.windows.ours(ours.total)
        {
            self.neighbours.share(span, now);
            self.windows.leave();
        }
    }

    fn next_window(
        &mut self,
        said: Said,
        told: Told,
        later: Option<Duration>,
        ours: Ours,
        rise: Rise,
        span: Span,
        now: Instant,
    ) -> bool {
        self.open(told, ours, now);
        let Some(later) = later else {
            self.windows.leave();
            return false;
        };
        let nearly = |seconds| span.named.saturating_sub(Duration::from_secs(seconds));
        if rise != Rise::No && later <= nearly(3) {
            self.neighbours.slides(span, now);
        }
        if later < nearly(2) {
            self.windows.leave();
            return false;
        }
        if rise == Rise::Jump && self.neighbours.are_gone(span, now) {
            self.windows.trust();
        }
        rise == Rise::Jump && said.limit.checked_sub(1) == Some(said.remaining)
    }

    /// The server's clock was set back, or what it said of its windows was wrong.
    fn start_over(&mut self, told: Told, ours: Ours, span: Span, now: Instant) {
        self.windows.leave();
        self.names = ServerClock::default();
        self.dates = ServerClock::default();
        let end = end_of_window(&self.names, None, span.longest, now);
        self.open(Told { end, ..told }, ours, now);
    }

    fn open(&mut self, told: Told, ours: Ours, now: Instant) {
        let may_be_in_it = ours.in_flight.saturating_add(1);
        self.windows.open(told, ours.total, may_be_in_it, now);
    }

    /// A request ended without headers, and had arrived by `arrived` if ever. Returns whether there were none for so long
    /// that they seem to have gone.
    pub(super) fn unheard(&mut self, arrived: Instant, span: Span, now: Instant) -> bool {
        self.unknown.add(arrived);
        let gone = self
            .last
            .is_some_and(|(_, at)| now.saturating_duration_since(at) >= span.longest);
        if gone {
            self.windows.leave();
            self.neighbours.unheard();
            self.left.forget();
        }
        gone
    }

    /// A 429, with or without headers. Returns how long its window lasts still, where it says that.
    pub(super) fn refused(
        &mut self,
        said: Option<Said>,
        ours: Ours,
        span: Span,
        now: Instant,
    ) -> Option<Duration> {
        self.windows.leave();
        let remaining = said.map_or(0, |said| said.remaining);
        self.left.set(remaining, now);
        self.jump.set(ours.sent, remaining, now);
        let said = said?;
        self.last = Some((said, now));
        let heard = self.read(said, ours.counted, span, now);
        self.neighbours.refused(heard, now);
        within(said, span).map(|_| heard.reset.saturating_duration_since(now))
    }

    /// Reads the server's clock from an answer.
    fn read(&mut self, said: Said, ours: u32, span: Span, now: Instant) -> Heard {
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
            ours,
            reset: end_of_window(clock, reset, span.longest, now),
        }
    }
}

/// Reset, unless it is that of a longer window than ours.
fn within(said: Said, span: Span) -> Option<Duration> {
    let farthest = span.named.saturating_add(RESOLUTION.saturating_mul(2));
    said.reset.filter(|reset| {
        said.date
            .is_none_or(|date| *reset <= date.saturating_add(farthest))
    })
}
