//! A request on its way, and what its end tells the bucket.

use std::sync::Arc;

use http::{HeaderMap, StatusCode};
use tokio::time::Instant;

use super::{bucket::Sent, events, said::Said, shared::Shared};
use crate::{
    headers::{self, date::Wall, rate_limit, when::When},
    metrics,
};

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

    /// The server answered: with a 429 it refused, and a 503 may ask for a pause too.
    pub(super) fn answered(mut self, status: StatusCode, headers: &HeaderMap) {
        let Some(sent) = self.sent.take() else { return };
        let (wall, now) = (&self.shared.wall, Instant::now());
        let said = rate_limit::said(headers, wall, now).map(|said| heard(said, wall, now));
        let refused = status == StatusCode::TOO_MANY_REQUESTS;
        let unavailable = status == StatusCode::SERVICE_UNAVAILABLE;
        if !refused && !unavailable {
            self.shared
                .change_at(now, |state, now| state.bucket.answered(sent, said, now));
            return;
        }
        if refused {
            metrics::refused();
        }
        // What a refusal says in any words counts, unless the user believes none; a 503 pauses by `Retry-After` alone.
        let undated = refused.then(|| {
            let local = wall.since_epoch(now);
            self.shared
                .with(|state, now, _| state.bucket.undated(local, now))
        });
        let hint = match undated.flatten() {
            Some(undated) => headers::refusal(headers, wall, now, undated),
            None => headers::retry_after(headers, wall, now),
        };
        let wait = hint.map(|hint| hint.wait);
        let random = rand::random();
        let pause = self.shared.change(|state, now, _| {
            let until = match wait {
                _ if refused => state.bucket.refused(sent, wait, said, now, random)?,
                Some(wait) if state.pauses_on_503 => {
                    state.bucket.pause_for(sent, wait, said, now, random)?
                }
                _ => {
                    state.bucket.answered(sent, said, now);
                    return None;
                }
            };
            Some((until.saturating_duration_since(now), state.queue.waiting()))
        });
        if let Some((pause, waiting)) = pause {
            events::paused(status, pause, hint, waiting);
        }
    }
}

/// What the headers said, with every time on the server's clock; on ours, where they name no time but a wait.
fn heard(said: rate_limit::Said, wall: &Wall, now: Instant) -> Said {
    let (reset, date) = match said.reset {
        When::At(reset) => (reset, said.date),
        When::In(wait) => {
            let date = said.date.unwrap_or_else(|| wall.since_epoch(now));
            (date.saturating_add(wait), Some(date))
        }
    };
    Said {
        limit: said.limit,
        remaining: said.remaining,
        reset: Some(reset),
        date,
        window: said.window,
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
