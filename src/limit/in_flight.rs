//! A request on its way, and what its end tells the bucket.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, StatusCode};
use tokio::time::Instant;

use super::{bucket::Sent, events, shared::Shared};
use crate::headers::{rate_limit, retry_after};

/// A request on its way. Dropped without an answer, it counts as one that may still arrive.
#[derive(Debug)]
pub(super) struct InFlight {
    shared: Arc<Shared>,
    /// `Some` until it ended.
    sent: Option<Sent>,
}

impl InFlight {
    pub(super) const fn new(shared: Arc<Shared>, sent: Sent) -> Self {
        Self {
            shared,
            sent: Some(sent),
        }
    }

    pub(super) fn answered(mut self, status: StatusCode, headers: &HeaderMap) {
        let Some(sent) = self.sent.take() else { return };
        let refused = status == StatusCode::TOO_MANY_REQUESTS;
        let hint = if refused || status == StatusCode::SERVICE_UNAVAILABLE {
            self.hint(headers)
        } else {
            None
        };
        let said = None;
        let random = rand::random();
        let pause = self.shared.change(|state, now, _| {
            let until = match hint {
                _ if refused => state.bucket.refused(sent, hint, said, now, random),
                Some(hint) if state.pauses_on_503 => {
                    state.bucket.pause_for(sent, hint, said, now, random)
                }
                _ => {
                    state.bucket.answered(sent, said, now);
                    None
                }
            };
            until.map(|until| (until.saturating_duration_since(now), state.queue.waiting()))
        });
        if let Some((pause, waiting)) = pause {
            events::paused(status, pause, hint, waiting);
        }
    }

    fn hint(&self, headers: &HeaderMap) -> Option<Duration> {
        let (wall, now) = (&self.shared.wall, Instant::now());
        retry_after::retry_after(headers, wall, now)
            .map(|hint| hint.wait)
            .or_else(|| rate_limit::reset(headers, wall, now))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if let Some(sent) = self.sent.take() {
            self.shared
                .change(|state, now, _| state.bucket.lost(sent, now));
        }
    }
}
