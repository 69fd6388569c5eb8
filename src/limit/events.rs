//! What the limiter logs: nothing of a request that need not wait.

use std::{mem, time::Duration};

use http::StatusCode;
use tokio::time::Instant;

use super::{
    bucket::Bucket,
    rule::{Mode, Rule},
};

/// A request is sent after it waited.
pub(super) fn waited(wait: Duration, ahead: usize, rule: Option<Rule>) {
    if wait > WORTH_A_LINE {
        tracing::debug!(
            wait_ms = millis(wait),
            ahead,
            rule = rule.map(tracing::field::display),
            "a request waited for its turn"
        );
    }
}

/// An answer began a pause.
pub(super) fn paused(status: StatusCode, pause: Duration, hint: Option<Duration>, waiting: usize) {
    let status = status.as_u16();
    tracing::warn!(
        http.response.status_code = status,
        pause_ms = millis(pause),
        hint_ms = hint.map(millis),
        waiting,
        "a {status} pauses all requests"
    );
}

/// The user began a pause.
pub(super) fn paused_by_hand(pause: Duration, waiting: usize) {
    tracing::info!(
        pause_ms = millis(pause),
        waiting,
        "all requests are paused by hand"
    );
}

/// What is told once, when it changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    paused: bool,
    plan: u32,
    in_windows: bool,
    /// With a delay: from answer to answer it may change back and forth.
    shared: bool,
}

impl Seen {
    pub(super) fn at(bucket: &Bucket, now: Instant) -> Self {
        Self {
            paused: bucket.paused_until(now).is_some(),
            plan: bucket.plan(),
            in_windows: bucket.mode(now) == Mode::Window,
            shared: bucket.is_shared(now),
        }
    }

    /// What is new since this was last asked.
    pub(super) fn news(&mut self, bucket: &Bucket, waiting: usize, now: Instant) -> News {
        let after = Self::at(bucket, now);
        News {
            before: mem::replace(self, after),
            after,
            waiting,
        }
    }
}

/// To be told once the lock is released: a subscriber is foreign code.
#[must_use]
pub(super) struct News {
    before: Seen,
    after: Seen,
    waiting: usize,
}

impl News {
    pub(super) fn tell(self) {
        let Self {
            before,
            after,
            waiting,
        } = self;
        if before == after {
            return;
        }
        if before.paused && !after.paused {
            tracing::info!(waiting, "the pause is over");
        }
        if before.plan != after.plan {
            let (plan, was) = (after.plan, before.plan);
            tracing::info!(plan, was, "the plan changed");
        }
        match (before.in_windows, after.in_windows) {
            (false, true) => tracing::info!("what is left of the server's window leaves at once"),
            (true, false) => tracing::info!("requests leave in even steps again"),
            _ => {}
        }
        match (before.shared, after.shared) {
            (false, true) => tracing::info!("others use the same rate limit"),
            (true, false) => tracing::info!("nobody else uses the rate limit any longer"),
            _ => {}
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

const WORTH_A_LINE: Duration = Duration::from_millis(100);
