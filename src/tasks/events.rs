//! What the task limit logs: nothing of a request that need not wait.

use std::time::Duration;

use http::Request;

use super::{Outage, StoreError};
use crate::metrics;

/// A request has its slot after it waited, for nothing or for long. No query: it may hold anything.
pub(super) fn waited<B>(request: &Request<B>, wait: Duration) {
    metrics::slot_waited(wait);
    if wait > WORTH_A_LINE {
        tracing::debug!(
            http.request.method = request.method().as_str(),
            url.path = request.uri().path(),
            wait_ms = millis(wait),
            "a request waited for a task slot"
        );
    }
}

/// A request is not sent, as it may not wait. Its caller is told why.
pub(super) fn rejected() {
    metrics::slot_rejected();
}

/// What a process does without the store.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lost {
    pub(super) outage: Outage,
    pub(super) processes: u32,
    /// How many tasks it may run.
    pub(super) share: u32,
}

/// The store gives no answer.
pub(super) fn store_is_away(error: &StoreError, lost: Lost, waiting: usize) {
    tracing::warn!(
        error = %error.in_a_line(),
        on_outage = %lost.outage,
        processes = lost.processes,
        share = lost.share,
        waiting,
        "the store of task slots gives no answer: until it does, at most this share of tasks is begun"
    );
}

/// It does again.
pub(super) fn store_is_back(away: Duration, waiting: usize) {
    tracing::info!(
        away_ms = millis(away),
        waiting,
        "the store of task slots answers again"
    );
}

/// Signed, as OpenTelemetry's integers are: of others it makes text.
fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// A shorter wait is not worth a line in the log.
const WORTH_A_LINE: Duration = Duration::from_secs(1);
