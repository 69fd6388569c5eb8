//! What Ploton's errors say, in types.

use std::{error::Error as StdError, fmt, time::Duration};

use http::{HeaderMap, Response, StatusCode, response::Parts};
use http_body::Body;
use serde_json::Value;
use tokio::time::Instant;
use tower::BoxError;

use super::{
    body::{Bounds, Collected, End, ReadBody},
    text,
};
use crate::{
    headers::{self, date::Wall},
    idempotency_key::IdempotencyKey,
    logical::Attempts,
};

/// What went wrong, as Ploton names it: the eight codes of the API page, and whatever else it may send.
///
/// # Example
///
/// ```
/// use tower_ploton::api::ErrorCode;
///
/// assert_eq!(ErrorCode::from("prompt_too_long"), ErrorCode::PromptTooLong);
/// assert_eq!(ErrorCode::from("on_holiday"), ErrorCode::Other("on_holiday".into()));
/// assert_eq!(ErrorCode::TaskNotFound.as_str(), "task_not_found");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorCode {
    /// `invalid_api_key`, 401: the key is malformed or revoked.
    InvalidApiKey,
    /// `missing_api_key`, 401: no `Authorization` header came.
    MissingApiKey,
    /// `invalid_request`, 400: the body is not JSON, or lacks a required field.
    InvalidRequest,
    /// `task_not_found`, 404: there is no such task.
    TaskNotFound,
    /// `task_already_complete`, 409: a finished task can't be cancelled or changed.
    TaskAlreadyComplete,
    /// `rate_limit_exceeded`, 429: too many requests.
    RateLimitExceeded,
    /// `prompt_too_long`, 422: the prompt has more than 10,000 characters.
    PromptTooLong,
    /// `internal_error`, 500: something failed at Ploton.
    InternalError,
    /// A code that the API page does not name.
    Other(String),
}

impl ErrorCode {
    /// The code as it is sent.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::InvalidApiKey => "invalid_api_key",
            Self::MissingApiKey => "missing_api_key",
            Self::InvalidRequest => "invalid_request",
            Self::TaskNotFound => "task_not_found",
            Self::TaskAlreadyComplete => "task_already_complete",
            Self::RateLimitExceeded => "rate_limit_exceeded",
            Self::PromptTooLong => "prompt_too_long",
            Self::InternalError => "internal_error",
            Self::Other(code) => code,
        }
    }

    /// What the API page says to do; `None` for a code that it does not name.
    const fn advice(&self) -> Option<&'static str> {
        Some(match self {
            Self::InvalidApiKey => "use a new API key",
            Self::MissingApiKey => "add an API key",
            Self::InvalidRequest => "mend the request",
            Self::TaskNotFound => "check the task's id",
            Self::TaskAlreadyComplete => "do nothing: the task has finished",
            Self::RateLimitExceeded => "wait as long as Ploton asks, then try again",
            Self::PromptTooLong => "shorten the prompt, or split it",
            Self::InternalError => "try again, with growing delays",
            Self::Other(_) => return None,
        })
    }
}

impl From<&str> for ErrorCode {
    fn from(code: &str) -> Self {
        match code {
            "invalid_api_key" => Self::InvalidApiKey,
            "missing_api_key" => Self::MissingApiKey,
            "invalid_request" => Self::InvalidRequest,
            "task_not_found" => Self::TaskNotFound,
            "task_already_complete" => Self::TaskAlreadyComplete,
            "rate_limit_exceeded" => Self::RateLimitExceeded,
            "prompt_too_long" => Self::PromptTooLong,
            "internal_error" => Self::InternalError,
            other => Self::Other(text::shown(other)),
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An error that Ploton, or something on the way to it, answered with.
///
/// An answer whose body is not the API page's `{"error":{"code":…,"message":…}}` has no code; its message says what the body
/// is instead, and [`excerpt`](Self::excerpt) shows how it begins. API keys are shown in neither.
///
/// # Example
///
/// ```
/// use bytes::Bytes;
/// use http::Request;
/// use http_body_util::Full;
/// use tower_ploton::{api::{ApiError, ErrorCode}, mock::FakePloton};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), tower::BoxError> {
/// use tower::ServiceExt;
///
/// let request = Request::get("https://api.ploton.ai/v1/tasks").body(Full::<Bytes>::default())?;
/// let response = FakePloton::new().oneshot(request).await?;
///
/// let error = ApiError::from_response(response).await;
/// assert_eq!(error.code(), Some(&ErrorCode::MissingApiKey));
/// assert_eq!(error.to_string(), "401 missing_api_key: no Authorization header");
/// assert_eq!(error.what_to_do(), "add an API key");
/// assert!(!error.is_retryable());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct ApiError(Box<Told>);

/// What is known of an error.
#[derive(Clone, Debug)]
struct Told {
    status: StatusCode,
    /// `Some` where the body says it.
    code: Option<ErrorCode>,
    message: String,
    /// `Some` where the body is something else than the API's error.
    excerpt: Option<String>,
    request_id: Option<String>,
    retry_after: Option<Duration>,
    attempts: Option<Attempts>,
    idempotency_key: Option<IdempotencyKey>,
}

impl ApiError {
    /// The answer's status.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        self.0.status
    }

    /// Ploton's code; `None` where the body holds none.
    #[must_use]
    pub const fn code(&self) -> Option<&ErrorCode> {
        self.0.code.as_ref()
    }

    /// Ploton's message, or what is wrong with the body.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// How the body begins, where it is not the API's error: at most 200 characters, those that can't be shown escaped.
    #[must_use]
    pub fn excerpt(&self) -> Option<&str> {
        self.0.excerpt.as_deref()
    }

    /// The answer's `X-Request-Id` or `Request-Id`, to be named to Ploton's support.
    #[must_use]
    pub fn request_id(&self) -> Option<&str> {
        self.0.request_id.as_deref()
    }

    /// How long the server asks to wait, from when the answer came.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// What was tried; `None` where no [`PlotonRetry`](crate::PlotonRetry) took part.
    #[must_use]
    pub const fn attempts(&self) -> Option<&Attempts> {
        self.0.attempts.as_ref()
    }

    /// The key that the request carried: with it the same request can be made again, and is still the same. `None` where
    /// there was none, or neither [`PlotonIdempotency`](crate::PlotonIdempotency) nor
    /// [`PlotonRetry`](crate::PlotonRetry) took part.
    #[must_use]
    pub const fn idempotency_key(&self) -> Option<&IdempotencyKey> {
        self.0.idempotency_key.as_ref()
    }

    /// Whether the same request may succeed later: 408, 429, 500, 502, 503 and 504. A POST is safe to repeat with its
    /// [`idempotency_key`](Self::idempotency_key) only.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self.0.status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504)
    }

    /// What to do, as the API page says; where it does not know the code, what the status suggests.
    #[must_use]
    pub fn what_to_do(&self) -> &'static str {
        let known = self.0.code.as_ref().and_then(ErrorCode::advice);
        known.unwrap_or_else(|| match self.0.status.as_u16() {
            401 => "check the API key",
            403 => "use a key that has the permission",
            404 => "check the id and the path",
            409 => "look at what is there: the request conflicts with it",
            422 => "mend what the message names",
            429 => "wait as long as Ploton asks, then try again",
            408 | 500 | 502 | 503 | 504 => "try again, with growing delays",
            400..=499 => "mend the request",
            _ => "look at the message, and ask Ploton's support",
        })
    }

    /// Reads what an answer says went wrong. Of its body at most 64 KiB are read, for at most 5 s.
    ///
    /// [`PlotonErrors`](super::PlotonErrors) does this for every answer that is an error.
    pub async fn from_response<R>(response: Response<R>) -> Self
    where
        R: Body,
        R::Error: Into<BoxError>,
    {
        let (wall, now) = (Wall::anchored(), Instant::now());
        let (head, body) = response.into_parts();
        let body = ReadBody::new(body, Bounds::ERROR).await;
        Self::new(&head, &body, &wall, now)
    }

    /// The key that the request surely carried, where no layer said it.
    pub(super) fn with_key(mut self, key: Option<&IdempotencyKey>) -> Self {
        self.0.idempotency_key = self.0.idempotency_key.take().or_else(|| key.cloned());
        self
    }

    /// Reads what is wrong out of an answer that was received at `now`.
    pub(super) fn new(head: &Parts, body: &Collected, wall: &Wall, now: Instant) -> Self {
        let attempts: Option<&Attempts> = head.extensions.get();
        let key: Option<&IdempotencyKey> = head.extensions.get();
        let key = key.or_else(|| attempts.and_then(Attempts::idempotency_key));
        let hint = headers::hint(head.status, &head.headers, wall, now);
        let said = Said::read(body);
        Self(Box::new(Told {
            status: head.status,
            code: said.code,
            message: said.message,
            excerpt: said.excerpt,
            request_id: request_id(&head.headers),
            retry_after: hint.map(|hint| hint.wait),
            attempts: attempts.cloned(),
            idempotency_key: key.cloned(),
        }))
    }
}

/// "429 rate_limit_exceeded: too many requests (request id req_7, 4 attempts in 12.3 s, retry after 12 s)"
impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.status.as_u16())?;
        if let Some(code) = &self.0.code {
            write!(f, " {code}")?;
        }
        write!(f, ": {}", self.0.message)?;
        if let Some(excerpt) = &self.0.excerpt {
            write!(f, ": \"{excerpt}\"")?;
        }
        let mut open = " (";
        let mut also = |f: &mut fmt::Formatter<'_>, what: fmt::Arguments<'_>| {
            let before = std::mem::replace(&mut open, ", ");
            write!(f, "{before}{what}")
        };
        if let Some(id) = &self.0.request_id {
            also(f, format_args!("request id {id}"))?;
        }
        if let Some(attempts) = &self.0.attempts {
            also(f, format_args!("{attempts}"))?;
        }
        if let Some(wait) = self.0.retry_after {
            also(f, format_args!("retry after {} s", wait.as_secs_f64()))?;
        }
        if open == ", " {
            f.write_str(")")?;
        }
        Ok(())
    }
}

impl StdError for ApiError {}

/// What a body says.
struct Said {
    code: Option<ErrorCode>,
    message: String,
    excerpt: Option<String>,
}

impl Said {
    fn read(collected: &Collected) -> Self {
        let Collected { bytes, end } = collected;
        let json: Result<Value, _> = serde_json::from_slice(bytes);
        let error = json.as_ref().ok().and_then(|json| json.get("error"));
        let field = |name| error.and_then(|error| error.get(name)?.as_str());
        let (code, message) = (field("code"), field("message"));
        // A whole error is believed, however its body ended.
        if code.is_some() || message.is_some() {
            return Self {
                code: code.map(ErrorCode::from),
                message: text::shown(message.unwrap_or("no message")),
                excerpt: None,
            };
        }
        let message = match (end, json) {
            (End::Whole, _) if bytes.is_empty() => "the body is empty".to_owned(),
            (End::Whole, Ok(_)) => "the body is JSON, but not the API's error".to_owned(),
            (End::Whole, Err(error)) if error.is_eof() => "the body is cut off".to_owned(),
            (End::Whole, Err(_)) => "the body is not JSON".to_owned(),
            (end, _) => end.to_string(),
        };
        Self {
            code: None,
            message,
            excerpt: (!bytes.is_empty()).then(|| text::excerpt(bytes)),
        }
    }
}

fn request_id(headers: &HeaderMap) -> Option<String> {
    let id = headers
        .get("x-request-id")
        .or_else(|| headers.get("request-id"))?;
    Some(text::excerpt(id.as_bytes())).filter(|id| !id.is_empty())
}
