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

/// What is told once, when it changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    paused: bool,
    plan: u32,
    mode: Mode,
    others: bool,
}

impl Seen {
    pub(super) fn at(bucket: &Bucket, now: Instant) -> Self {
        Self {
            paused: bucket.paused_until(now).is_some(),
            plan: bucket.plan(),
            mode: bucket.mode(now),
            others: bucket.others() > 0,
        }
    }

    /// What is new since it was last asked.
    pub(super) fn news(&mut self, bucket: &Bucket, now: Instant) -> News {
        let after = Self::at(bucket, now);
        let before = mem::replace(self, after);
        News { before, after }
    }
}

/// To be told once the lock is released: a subscriber is foreign code.
#[must_use]
pub(super) struct News {
    before: Seen,
    after: Seen,
}

impl News {
    pub(super) fn tell(self) {
        let Self { before, after } = self;
        if before == after {
            return;
        }
        if before.plan != after.plan {
            let (from, to) = (before.plan, after.plan);
            tracing::info!(from, to, "the plan changed");
        }
        if before.mode != after.mode {
            let (from, to) = (before.mode, after.mode);
            tracing::info!(%from, %to, "the limiter goes on in another mode");
        }
        if before.others != after.others {
            let others = after.others;
            tracing::info!(others, "whether others use the same limit has changed");
        }
        if before.paused && !after.paused {
            tracing::info!("the pause is over");
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

const WORTH_A_LINE: Duration = Duration::from_millis(100);
