//! What is told of a request: its span, and an event for each attempt that is followed by another, or could be.

use std::time::Duration;

use http::{Request, StatusCode};
use tracing::{Span, field};

use super::Outcome;
use crate::{headers::retry_after::Hint, idempotency_key::IDEMPOTENCY_KEY};

/// How an attempt ended, and what that means.
pub(super) struct End {
    pub(super) outcome: Outcome,
    /// `Err` with the kind of the error, in a word: its text may hold anything.
    pub(super) result: Result<StatusCode, &'static str>,
    pub(super) hint: Option<Hint>,
}

/// Why a request is not sent again that could be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GivenUp {
    /// It was sent as often as it may be.
    Attempts,
    /// Its body can't be sent twice.
    Body,
    /// The server asks for a longer wait than anyone waits.
    Hint,
    /// The deadline comes before the next attempt would.
    Deadline,
    /// The server may have forgotten the idempotency key by then.
    KeyAge,
    /// All requests together were sent again too often.
    Quota,
}

impl End {
    fn status(&self) -> Option<u16> {
        self.result.ok().map(|status| status.as_u16())
    }

    fn error(&self) -> Option<&'static str> {
        self.result.err()
    }

    /// Where the delay before the next attempt comes from.
    fn delay_from(&self) -> &'static str {
        match self.hint {
            Some(hint) => hint.source.name(),
            None if self.outcome == Outcome::Unauthorized => "new key",
            None => "backoff",
        }
    }
}

impl GivenUp {
    /// What logs call it.
    const fn name(self) -> &'static str {
        match self {
            Self::Attempts => "attempts",
            Self::Body => "body",
            Self::Hint => "hint",
            Self::Deadline => "deadline",
            Self::KeyAge => "key age",
            Self::Quota => "quota",
        }
    }
}

/// After attempt number `made`, the request is sent again.
pub(super) fn sent_again(made: u32, end: &End, delay: Duration) {
    tracing::info!(
        http.request.resend_count = made,
        http.response.status_code = end.status(),
        "error.type" = end.error(),
        delay_ms = millis(delay),
        delay_from = end.delay_from(),
        "sending the request again after a delay",
    );
}

/// After attempt number `made`, the request is not sent again, though it could be.
pub(super) fn given_up(made: u32, end: &End, reason: GivenUp) {
    tracing::warn!(
        attempts = made,
        http.response.status_code = end.status(),
        "error.type" = end.error(),
        hint_ms = end.hint.map(|hint| millis(hint.wait)),
        reason = reason.name(),
        "not sending the request again",
    );
}

/// The span of a logical request, with the names of OpenTelemetry's HTTP conventions. No query: it may hold anything.
pub(super) fn span<B>(request: &Request<B>, key_in_span: bool) -> Span {
    let key = || {
        let key = request.headers().get(IDEMPOTENCY_KEY);
        key.filter(|_| key_in_span)?.to_str().ok()
    };
    tracing::info_span!(
        "request",
        http.request.method = request.method().as_str(),
        server.address = request.uri().host(),
        url.path = request.uri().path(),
        ploton.idempotency_key = key(),
        http.request.resend_count = field::Empty,
        http.response.status_code = field::Empty,
        "error.type" = field::Empty,
    )
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
