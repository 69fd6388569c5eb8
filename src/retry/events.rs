//! What is told of a request: its events, its end, and metrics of both. The spans are next door.

use std::time::Duration;

use http::{Method, Request, StatusCode, Version};
use tokio::time::Instant;
use tracing::span::EnteredSpan;

use super::{Outcome, quota::Quota, spans::Spans};
use crate::{headers::retry_after::Hint, idempotency_key::IdempotencyKey, metrics};

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
    fn status(&self) -> Option<i64> {
        self.result.ok().map(|status| status.as_u16().into())
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
            Self::KeyAge => "key_age",
            Self::Quota => "quota",
        }
    }
}

/// What a logical request tells of itself.
pub(super) struct Told {
    /// `None` where nobody listens, which is nearly always; boxed, since every future around is larger by it.
    spans: Option<Box<Spans>>,
    metrics: metrics::Request,
}

impl Told {
    pub(super) fn begins<B>(request: &Request<B>, key_in_span: bool, now: Instant) -> Self {
        Self {
            spans: Spans::of(request, key_in_span),
            metrics: metrics::Request::begins(|| known(request.method()), now),
        }
    }

    /// Enters the request's span.
    pub(super) fn enter(&self) -> Option<EnteredSpan> {
        self.spans.as_ref().map(|spans| spans.enter())
    }

    /// Enters the span of the attempt on its way.
    pub(super) fn enter_attempt(&self) -> Option<EnteredSpan> {
        self.spans.as_ref().map(|spans| spans.enter_attempt())
    }

    /// `request` is sent, for the first time or after `resent` others.
    pub(super) fn attempt_begins<B>(&mut self, request: &Request<B>, resent: u32) {
        if let Some(spans) = &mut self.spans {
            spans.attempt_begins(request, resent);
        }
    }

    /// The attempt that was sent at `sent` ended. `key` is the idempotency key that it had.
    pub(super) fn attempt_ended<'a>(
        &mut self,
        end: Result<StatusCode, &'static str>,
        version: Option<Version>,
        sent: Instant,
        key: impl FnOnce() -> Option<&'a IdempotencyKey>,
    ) {
        self.metrics.attempt_ended(end, sent);
        if let Some(spans) = &mut self.spans {
            spans.attempt_ended(end, version, key());
        }
    }

    /// How the logical request ended, after `resent` attempts more than one.
    pub(super) fn ended(
        &mut self,
        end: Result<StatusCode, &'static str>,
        resent: u32,
        quota: &Quota,
    ) {
        self.metrics.ended(end);
        show(quota);
        if let Some(spans) = &mut self.spans {
            spans.ended(end, resent);
        }
    }
}

fn show(quota: &Quota) {
    metrics::quota(|| quota.left(), quota.capacity());
}

/// After attempt number `made`, the request is sent again, which `quota` paid for.
pub(super) fn sent_again(made: u32, end: &End, delay: Duration, quota: &Quota) {
    metrics::asked_again(end.outcome.name(), delay);
    show(quota);
    tracing::info!(
        http.request.resend_count = i64::from(made),
        http.response.status_code = end.status(),
        "error.type" = end.error(),
        delay_ms = millis(delay),
        delay_from = end.delay_from(),
        "sending the request again after a delay",
    );
}

/// After attempt number `made`, the request is not sent again, though it could be.
pub(super) fn given_up(made: u32, end: &End, reason: GivenUp) {
    metrics::given_up(reason.name());
    tracing::warn!(
        attempts = i64::from(made),
        http.response.status_code = end.status(),
        "error.type" = end.error(),
        hint_ms = end.hint.map(|hint| millis(hint.wait)),
        reason = reason.name(),
        "not sending the request again",
    );
}

/// The method, if it is one of RFC 9110 or RFC 5789: a label and a span's name must not be anything.
pub(super) fn known(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::PATCH => "PATCH",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        Method::CONNECT => "CONNECT",
        Method::TRACE => "TRACE",
        _ => "_OTHER",
    }
}

/// Signed, as OpenTelemetry's integers are: of others it makes text.
fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}
