//! The answers that idempotency keys stand for.

use std::{collections::HashMap, time::Duration};

use {bytes::Bytes, http::HeaderMap, tokio::time::Instant};

use super::answer::{Answer, ErrorCode};

const LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// What a key is looked up by: a key belongs to its caller and its path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct KeyedRequest {
    pub(super) credential: Option<usize>,
    pub(super) path: String,
    pub(super) key: String,
}

#[derive(Debug)]
struct Stored {
    at: Instant,
    request: Bytes,
    answer: Answer,
}

/// The stored answers.
#[derive(Debug, Default)]
pub(super) struct Replays(HashMap<KeyedRequest, Stored>);

impl Replays {
    /// The answer to a key that was used in the last 24 hours: the stored one, or an error for another body.
    pub(super) fn find(
        &self,
        keyed: &KeyedRequest,
        request: &Bytes,
        now: Instant,
    ) -> Option<Result<Answer, Answer>> {
        let stored = self.0.get(keyed)?;
        if now.saturating_duration_since(stored.at) >= LIFETIME {
            return None;
        }
        if stored.request != request {
            return Some(Err(Answer::error_with(
                http::StatusCode::UNPROCESSABLE_ENTITY,
                ErrorCode::InvalidRequest,
                "the Idempotency-Key was used with another body",
            )));
        }
        Some(Ok(stored.answer.clone()))
    }

    pub(super) fn store(
        &mut self,
        keyed: KeyedRequest,
        request: Bytes,
        answer: Answer,
        now: Instant,
    ) {
        let stored = Stored {
            at: now,
            request,
            answer,
        };
        self.0.insert(keyed, stored);
    }
}

/// The `Idempotency-Key`, if there is one; an error where it is empty, not visible ASCII, or there are several.
pub(super) fn key(headers: &HeaderMap) -> Result<Option<&str>, Answer> {
    let mut values = headers.get_all("idempotency-key").iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    match value.to_str() {
        Ok(key) if !key.is_empty() && values.next().is_none() => Ok(Some(key)),
        _ => Err(Answer::error(
            ErrorCode::InvalidRequest,
            "Idempotency-Key must be one value of visible ASCII",
        )),
    }
}
