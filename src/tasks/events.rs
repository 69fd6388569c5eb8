//! What the task limit logs: nothing of a request that need not wait.

use std::time::Duration;

use http::Request;

use crate::metrics;

/// A request has its slot after it waited, for nothing or for long. No query: it may hold anything.
pub(super) fn waited<B>(request: &Request<B>, wait: Duration) {
    metrics::slot_waited(wait);
    if wait > WORTH_A_LINE {
        tracing::debug!(
            http.request.method = request.method().as_str(),
            url.path = request.uri().path(),
            wait_ms = i64::try_from(wait.as_millis()).unwrap_or(i64::MAX),
            "a request waited for a task slot"
        );
    }
}

/// A request is not sent, as it may not wait. Its caller is told why.
pub(super) fn rejected() {
    metrics::slot_rejected();
}

/// A shorter wait is not worth a line in the log.
const WORTH_A_LINE: Duration = Duration::from_secs(1);
