//! What the limiter logs: nothing of a request that need not wait.

use std::{mem, time::Duration};

use http::{Request, StatusCode};
use tokio::time::Instant;
use tower::BoxError;
use tracing::field;

use super::{
    QueueFull, WaitTooLong,
    bucket::Bucket,
    fleet::clerk::Lost,
    rule::{Mode, Rule},
    store::StoreError,
    wait::Wait,
};
use crate::{headers::retry_after::Hint, metrics};

/// A request came and waits, in `poll_ready` mostly, where nobody knows more of it.
pub(super) fn waits(wait: &Wait, expected: Duration) {
    if expected > WORTH_A_LINE {
        tracing::trace!(
            expected_ms = millis(expected),
            ahead = wait.ahead,
            rule = wait.rule().map(field::display),
            until_ms = wait.rule_holds().map(millis),
            "a request waits for its turn"
        );
    }
}

/// A request is sent at `now` that need not wait.
#[inline]
pub(super) fn need_not_wait(now: Instant) {
    metrics::waited(None, Duration::ZERO, now);
}

/// A request is sent after it waited. No query: it may hold anything.
pub(super) fn waited<B>(request: &Request<B>, wait: &Wait, now: Instant) {
    let lasted = wait.lasted(now);
    metrics::waited(wait.rule().map(Rule::name), lasted, now);
    if lasted > WORTH_A_LINE {
        tracing::debug!(
            http.request.method = request.method().as_str(),
            url.path = request.uri().path(),
            wait_ms = millis(lasted),
            ahead = wait.ahead,
            rule = wait.rule().map(field::display),
            until_ms = wait.rule_holds().map(millis),
            "a request waited for its turn"
        );
    }
}

/// A request is not sent, as it may not wait. Its caller is told why.
pub(super) fn rejected(error: &BoxError) {
    metrics::rejected(if error.is::<QueueFull>() {
        "queue_full"
    } else if error.is::<WaitTooLong>() {
        "max_wait"
    } else {
        "deadline"
    });
}

/// An answer began a pause.
pub(super) fn paused(status: StatusCode, pause: Duration, hint: Option<Hint>, waiting: usize) {
    metrics::paused(if status == StatusCode::TOO_MANY_REQUESTS {
        "429"
    } else {
        "503"
    });
    let status = i64::from(status.as_u16());
    tracing::warn!(
        http.response.status_code = status,
        pause_ms = millis(pause),
        hint_ms = hint.map(|hint| millis(hint.wait)),
        hint_from = hint.map(|hint| hint.source.name()),
        waiting,
        "a {status} pauses all requests"
    );
}

/// The user began a pause.
pub(super) fn paused_by_hand(pause: Duration, waiting: usize) {
    metrics::paused("by_hand");
    tracing::info!(
        pause_ms = millis(pause),
        waiting,
        "all requests are paused by hand"
    );
}

/// The store said that another process began a pause.
pub(super) fn paused_by_another(pause: Duration, waiting: usize) {
    metrics::paused("another_process");
    tracing::warn!(
        pause_ms = millis(pause),
        waiting,
        "another process was refused: all requests are paused"
    );
}

/// The store gives no answer.
pub(super) fn store_is_away(error: &StoreError, lost: Lost, waiting: usize) {
    tracing::warn!(
        error = %error.in_a_line(),
        on_outage = %lost.outage,
        processes = lost.processes,
        pace_ms = lost.pace.map(millis),
        waiting,
        "the shared store gives no answer: until it does, requests leave at this pace, or wait"
    );
}

/// It does again.
pub(super) fn store_is_back(away: Duration, waiting: usize) {
    tracing::info!(
        away_ms = millis(away),
        waiting,
        "the shared store answers again"
    );
}

/// What is told once, when it changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// `Some` in a pause.
    paused_until: Option<Instant>,
    plan: u32,
    /// Less than the plan where the server counts more strictly than it says.
    paced_to: u32,
    in_windows: bool,
    /// With a delay: from answer to answer it may change back and forth.
    shared: bool,
    /// Told with the others that appear, and not by itself.
    others: u32,
}

impl Seen {
    pub(super) fn at(bucket: &Bucket, now: Instant) -> Self {
        Self {
            paused_until: bucket.paused_until(now),
            plan: bucket.plan(),
            paced_to: bucket.paced_to(),
            in_windows: bucket.mode(now) == Mode::Window,
            shared: bucket.shared_until(now).is_some(),
            others: bucket.others(),
        }
    }

    /// What is new since this was last asked: nearly always nothing.
    pub(super) fn news(&mut self, bucket: &Bucket, waiting: usize, now: Instant) -> Option<News> {
        let after = Self::at(bucket, now);
        if *self == after {
            return None;
        }
        let before = mem::replace(self, after);
        Some(News {
            before,
            after,
            waiting,
            now,
        })
    }
}

/// To be told once the lock is released: a subscriber is foreign code.
#[must_use]
pub(super) struct News {
    before: Seen,
    after: Seen,
    waiting: usize,
    now: Instant,
}

impl News {
    pub(super) fn tell(self) {
        let Self { before, after, .. } = self;
        self.tell_of_the_pause();
        if before.plan != after.plan {
            let (plan, was) = (after.plan, before.plan);
            tracing::info!(plan, was, "the plan changed");
        } else if before.paced_to != after.paced_to {
            let (paced_to, was, plan) = (after.paced_to, before.paced_to, after.plan);
            if paced_to < was {
                tracing::info!(
                    paced_to,
                    was,
                    plan,
                    "refused although paced: the pace falls for a while"
                );
            } else {
                tracing::debug!(paced_to, was, plan, "the pace rises again");
            }
        }
        match (before.in_windows, after.in_windows) {
            (false, true) => tracing::info!("what is left of the server's window leaves at once"),
            (true, false) => tracing::info!("requests leave in even steps again"),
            _ => {}
        }
        match (before.shared, after.shared) {
            (false, true) => {
                tracing::info!(requests = after.others, "others use the same rate limit");
            }
            (true, false) => tracing::info!("nobody else uses the rate limit any longer"),
            _ => {}
        }
    }

    /// That one began is told by whoever began it.
    fn tell_of_the_pause(&self) {
        let (waiting, now) = (self.waiting, self.now);
        match (self.before.paused_until, self.after.paused_until) {
            (Some(end), _) if end <= now => tracing::info!(
                ended_ms_ago = millis(now.saturating_duration_since(end)),
                waiting,
                "the pause is over"
            ),
            (Some(end), Some(until)) if end < until => tracing::debug!(
                pause_ms = millis(until.saturating_duration_since(now)),
                waiting,
                "the pause lasts longer"
            ),
            _ => {}
        }
    }
}

/// Signed, as OpenTelemetry's integers are: of others it makes text.
fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

const WORTH_A_LINE: Duration = Duration::from_millis(100);
