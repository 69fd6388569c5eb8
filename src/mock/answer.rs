//! Answers, as the API page words them.

use std::time::Duration;

use {
    bytes::Bytes,
    http::{
        HeaderMap, HeaderName, HeaderValue, Response, StatusCode,
        header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER},
    },
    serde_json::{Value, json},
};

use super::body::FakeBody;

pub(super) const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
pub(super) const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
pub(super) const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// The error codes of the API page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ErrorCode {
    InvalidApiKey,
    MissingApiKey,
    InvalidRequest,
    TaskNotFound,
    TaskAlreadyComplete,
    RateLimitExceeded,
    PromptTooLong,
    InternalError,
}

impl ErrorCode {
    const fn status(self) -> StatusCode {
        match self {
            Self::InvalidApiKey | Self::MissingApiKey => StatusCode::UNAUTHORIZED,
            Self::InvalidRequest => StatusCode::BAD_REQUEST,
            Self::TaskNotFound => StatusCode::NOT_FOUND,
            Self::TaskAlreadyComplete => StatusCode::CONFLICT,
            Self::RateLimitExceeded => StatusCode::TOO_MANY_REQUESTS,
            Self::PromptTooLong => StatusCode::UNPROCESSABLE_ENTITY,
            Self::InternalError => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::InvalidApiKey => "invalid_api_key",
            Self::MissingApiKey => "missing_api_key",
            Self::InvalidRequest => "invalid_request",
            Self::TaskNotFound => "task_not_found",
            Self::TaskAlreadyComplete => "task_already_complete",
            Self::RateLimitExceeded => "rate_limit_exceeded",
            Self::PromptTooLong => "prompt_too_long",
            Self::InternalError => "internal_error",
        }
    }

    /// The code that the page has for `status`, or the nearest.
    fn fitting(status: StatusCode) -> Self {
        match status.as_u16() {
            401 => Self::InvalidApiKey,
            404 => Self::TaskNotFound,
            409 => Self::TaskAlreadyComplete,
            422 => Self::PromptTooLong,
            429 => Self::RateLimitExceeded,
            500.. => Self::InternalError,
            _ => Self::InvalidRequest,
        }
    }
}

/// A whole answer.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    pub(super) fn json(status: StatusCode, body: &Value) -> Self {
        let json = HeaderValue::from_static("application/json");
        Self {
            status,
            headers: HeaderMap::from_iter([(CONTENT_TYPE, json)]),
            body: Bytes::from(body.to_string()),
        }
    }

    pub(super) fn error(code: ErrorCode, message: &str) -> Self {
        Self::error_with(code.status(), code, message)
    }

    pub(super) fn error_with(status: StatusCode, code: ErrorCode, message: &str) -> Self {
        let body = json!({"error": {"code": code.name(), "message": message}});
        Self::json(status, &body)
    }

    /// The answer of a server that fails with `status`.
    pub(super) fn failure(status: StatusCode) -> Self {
        let message = status.canonical_reason().unwrap_or("unknown status");
        Self::error_with(status, ErrorCode::fitting(status), message)
    }

    pub(super) fn with(mut self, name: HeaderName, value: impl Into<HeaderValue>) -> Self {
        self.headers.insert(name, value.into());
        self
    }

    /// Adds `Retry-After`, in whole seconds: rounded up, as the wait would be too short otherwise.
    pub(super) fn retry_after(self, wait: Duration) -> Self {
        self.with(RETRY_AFTER, whole_seconds(wait))
    }

    pub(super) fn into_response(self, truncated: bool) -> Response<FakeBody> {
        let length = self.body.len();
        let body = if truncated {
            FakeBody::truncated(self.body)
        } else {
            FakeBody::whole(self.body)
        };
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response
            .headers_mut()
            .entry(CONTENT_LENGTH)
            .or_insert_with(|| HeaderValue::from(length));
        response
    }
}

pub(super) fn whole_seconds(time: Duration) -> u64 {
    time.as_secs()
        .saturating_add(u64::from(time.subsec_nanos() > 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn part_of_a_second_is_one() {
        for (millis, whole) in [(0, 0), (1, 1), (1_000, 1), (11_001, 12)] {
            assert_eq!(whole_seconds(Duration::from_millis(millis)), whole);
        }
    }

    #[test]
    fn a_failure_has_the_code_that_fits_its_status() {
        for (status, code) in [
            (400, "invalid_request"),
            (403, "invalid_request"),
            (404, "task_not_found"),
            (429, "rate_limit_exceeded"),
            (500, "internal_error"),
            (503, "internal_error"),
        ] {
            let answer = Answer::failure(StatusCode::from_u16(status).unwrap());
            let body: Value = serde_json::from_slice(&answer.body).unwrap();
            assert_eq!(body["error"]["code"], code);
        }
    }
}
