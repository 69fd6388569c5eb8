//! What a process tells the store of the server's windows, with the next call that it makes.
#![warn(clippy::arithmetic_side_effects)]

use std::time::Duration;

use tokio::time::Instant;

use crate::limit::{
    store::{StoreTime, WindowSeen},
    window::Told,
};

#[derive(Debug, Default)]
pub(super) struct Reports {
    news: Option<News>,
    doubts: Doubts,
    /// The store takes the server for one that counts in windows.
    windows: bool,
}

/// What the server said last.
#[derive(Clone, Copy, Debug)]
struct News {
    told: Told,
    /// When the request left that was answered so.
    sent: Instant,
    proved: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Doubts {
    #[default]
    None,
    ToBeTold,
    /// A call that tells them is under way.
    UnderWay,
}

impl Reports {
    /// An answer told of its window, and may prove that it is one.
    pub(super) fn heard(&mut self, told: Told, proved: bool, sent: Instant) {
        let known = self.news.filter(|news| news.told.reset >= told.reset);
        if known.is_some_and(|news| news.told.reset > told.reset || news.sent > sent) {
            return;
        }
        let proved = proved || self.news.is_some_and(|news| news.proved);
        self.news = Some(News { told, sent, proved });
    }

    /// What was seen is none of a server that counts in windows, or a refusal.
    pub(super) fn doubt(&mut self) {
        self.news = None;
        if self.windows {
            self.doubts = Doubts::ToBeTold;
        }
    }

    pub(super) const fn windows(&self) -> bool {
        self.windows
    }

    /// One that is under way is told again: if there is another call, then nobody knows what became of that one.
    pub(super) fn doubts(&self) -> bool {
        self.doubts != Doubts::None
    }

    /// The store's clock shows at least `shows` at `now`.
    pub(super) fn seen(
        &self,
        length: Duration,
        shows: Duration,
        now: Instant,
    ) -> Option<WindowSeen> {
        let News { told, sent, proved } = self.news?;
        let sent = shows.saturating_sub(now.saturating_duration_since(sent));
        Some(WindowSeen {
            reset: told.reset,
            length,
            remaining: told.remaining,
            sent: StoreTime(u64::try_from(sent.as_micros()).unwrap_or(u64::MAX)),
            ends: told.end.saturating_duration_since(now),
            proved,
        })
    }

    /// The store is being told.
    pub(super) fn begin(&mut self) {
        self.news = None;
        if self.doubts() {
            self.doubts = Doubts::UnderWay;
        }
    }

    pub(super) fn answered(&mut self, windows: bool) {
        self.windows = windows;
        if self.doubts == Doubts::UnderWay {
            self.doubts = Doubts::None;
        }
    }

    /// The store may not have heard of it.
    pub(super) fn failed(&mut self) {
        if self.doubts == Doubts::UnderWay {
            self.doubts = Doubts::ToBeTold;
        }
    }
}
