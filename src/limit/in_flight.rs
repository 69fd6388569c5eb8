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
        let hint = match status {
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => self.hint(headers),
            _ => None,
        };
        if status != StatusCode::TOO_MANY_REQUESTS {
            self.shared.change(|state, now, _| {
                state.bucket.answered(sent, now);
                if let Some(hint) = hint.filter(|_| state.pauses_on_503) {
                    state.bucket.pause_until(now + hint);
                }
            });
            return;
        }
        let random = rand::random();
        let pause = self.shared.change(|state, now, _| {
            let until = state.bucket.refused(sent, hint, now, random)?;
            Some((until.saturating_duration_since(now), state.queue.waiting()))
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
