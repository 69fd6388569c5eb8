//! Why a call of the typed client has no result.

use std::{error::Error as StdError, fmt, time::Duration};

use http::{StatusCode, response::Parts};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tower::BoxError;

use super::{
    body::{Collected, End},
    errors::{ApiError, ErrorCode},
    tasks::Task,
    text,
};
use crate::idempotency_key::IdempotencyKey;

/// Why a call of the typed client has no result.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// Ploton answered with an error.
    Api(ApiError),
    /// The answer says success, and its body can't be used.
    Unreadable(UnreadableAnswer),
    /// No answer came.
    #[non_exhaustive]
    Service {
        /// The service's own error: of a stack, one to downcast, such as
        /// [`DeadlinePassed`](crate::retry::DeadlinePassed).
        error: BoxError,
        /// The key that the request carried. Boxed, as every `Error` would be larger by it.
        idempotency_key: Option<Box<IdempotencyKey>>,
    },
    /// A task was waited for, and still ran when the time was up.
    StillRunning(StillRunning),
    /// A listing does not move on.
    PagesRepeat(PagesRepeat),
}

impl Error {
    /// The error that Ploton answered with.
    #[must_use]
    pub const fn api(&self) -> Option<&ApiError> {
        match self {
            Self::Api(error) => Some(error),
            _ => None,
        }
    }

    /// Ploton's code, where it named one.
    #[must_use]
    pub const fn code(&self) -> Option<&ErrorCode> {
        match self {
            Self::Api(error) => error.code(),
            _ => None,
        }
    }

    /// The key that the request carried. What was asked for may have happened: the same call with this key finds it, or
    /// makes it happen now. `None` where no key was sent.
    #[must_use]
    pub fn idempotency_key(&self) -> Option<&IdempotencyKey> {
        match self {
            Self::Api(error) => error.idempotency_key(),
            Self::Unreadable(error) => error.idempotency_key(),
            Self::Service {
                idempotency_key, ..
            } => idempotency_key.as_deref(),
            Self::StillRunning(_) | Self::PagesRepeat(_) => None,
        }
    }

    /// The error of a service that was asked for something with `key`; what [`PlotonErrors`](super::PlotonErrors) made of an
    /// answer is an [`ApiError`] here too.
    pub(super) fn of_service(error: BoxError, key: Option<&IdempotencyKey>) -> Self {
        match error.downcast::<ApiError>() {
            Ok(api) => Self::Api(api.with_key(key)),
            Err(error) => Self::Service {
                error,
                idempotency_key: key.cloned().map(Box::new),
            },
        }
    }

    /// The request could not be made.
    pub(super) fn not_made(error: impl Into<BoxError>) -> Self {
        Self::of_service(error.into(), None)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Api(error) => error.fmt(f),
            Self::Unreadable(error) => error.fmt(f),
            Self::Service { error, .. } => error.fmt(f),
            Self::StillRunning(error) => error.fmt(f),
            Self::PagesRepeat(error) => error.fmt(f),
        }
    }
}

/// Transparent: the text is that of the error inside, so the sources are that one's.
impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Api(error) => error.source(),
            Self::Unreadable(error) => error.source(),
            Self::Service { error, .. } => error.source(),
            Self::StillRunning(error) => error.source(),
            Self::PagesRepeat(error) => error.source(),
        }
    }
}

/// An answer says success, and its body is none that can be used.
///
/// What was asked for may have happened. With the [`idempotency_key`](Self::idempotency_key) the same request can be made
/// again, and is still the same.
#[derive(Debug)]
pub struct UnreadableAnswer {
    status: StatusCode,
    problem: String,
    /// `Some` where part of a body came.
    excerpt: Option<String>,
    /// `Some` where the body or its reading failed.
    source: Option<BoxError>,
    broke_off: bool,
    pub(super) calls: u32,
    /// `Some` where the request carried one. Boxed, as this is half of every `Error`.
    pub(super) idempotency_key: Option<Box<IdempotencyKey>>,
}

impl UnreadableAnswer {
    /// The body as a `T`, or why it is none.
    pub(super) fn or_json<T: DeserializeOwned>(head: &Parts, body: Collected) -> Result<T, Self> {
        let Collected { bytes, end } = body;
        let excerpt = (!bytes.is_empty()).then(|| text::excerpt(&bytes));
        let (problem, source, broke_off): (_, Option<BoxError>, _) = match end {
            End::Whole if bytes.is_empty() => ("the body is empty".to_owned(), None, false),
            End::Whole => match serde_json::from_slice(&bytes) {
                Ok(value) => return Ok(value),
                Err(error) if error.is_eof() => (
                    "the body is cut off".to_owned(),
                    Some(without_keys(&error)),
                    true,
                ),
                Err(error) => {
                    let problem = if error.is_data() {
                        "the body is not what was expected"
                    } else {
                        "the body is not JSON"
                    };
                    (problem.to_owned(), Some(without_keys(&error)), false)
                }
            },
            End::TooLong(_) => (end.to_string(), None, false),
            End::Slow(_) => (end.to_string(), None, true),
            End::Broken(_) => (end.to_string(), end.into_source(), true),
        };
        Err(Self {
            status: head.status,
            problem,
            excerpt,
            source,
            broke_off,
            calls: 1,
            idempotency_key: None,
        })
    }

    /// An item of a page that came whole is not what was expected.
    pub(super) fn item(item: &Value, error: &serde_json::Error) -> Self {
        Self {
            status: StatusCode::OK,
            problem: "an item is not what was expected".to_owned(),
            excerpt: Some(text::excerpt(item.to_string().as_bytes())),
            source: Some(without_keys(error)),
            broke_off: false,
            calls: 1,
            idempotency_key: None,
        }
    }

    /// Whether it may come whole next time.
    pub(super) const fn broke_off(&self) -> bool {
        self.broke_off
    }

    /// The answer's status.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        self.status
    }

    /// How the body begins: at most 200 characters, those that can't be shown escaped, without API keys.
    #[must_use]
    pub fn excerpt(&self) -> Option<&str> {
        self.excerpt.as_deref()
    }

    /// How often the request was made, the layers' own attempts not counted.
    #[must_use]
    pub const fn calls(&self) -> u32 {
        self.calls
    }

    /// The key that the request carried.
    #[must_use]
    pub fn idempotency_key(&self) -> Option<&IdempotencyKey> {
        self.idempotency_key.as_deref()
    }
}

/// What serde says of a value that it did not expect repeats the value.
fn without_keys(error: &serde_json::Error) -> BoxError {
    text::shown(&error.to_string()).into()
}

/// "201, but the body broke off: \"{\"id\":\" (4 calls)"
impl fmt::Display for UnreadableAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, but {}", self.status.as_u16(), self.problem)?;
        if let Some(excerpt) = &self.excerpt {
            write!(f, ": \"{excerpt}\"")?;
        }
        match self.calls {
            1 => Ok(()),
            calls => write!(f, " ({calls} calls)"),
        }
    }
}

impl StdError for UnreadableAnswer {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// A task was waited for, and still ran when the time was up.
#[derive(Clone, Debug)]
pub struct StillRunning {
    pub(super) task: Box<Task>,
    pub(super) waited: Duration,
}

impl StillRunning {
    /// The task, as it was seen last.
    #[must_use]
    pub const fn task(&self) -> &Task {
        &self.task
    }

    /// How long it was waited for.
    #[must_use]
    pub const fn waited(&self) -> Duration {
        self.waited
    }
}

impl fmt::Display for StillRunning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { task, waited } = self;
        let (id, status) = (&task.id, text::shown(task.status.as_str()));
        write!(
            f,
            "task {id} is still {status} after {:.1} s",
            waited.as_secs_f64()
        )
    }
}

impl StdError for StillRunning {}

/// A listing does not move on: page after page has only items that were there before. Either the server knows no offset, or
/// items are created faster than they are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PagesRepeat {
    pub(super) offset: u64,
}

impl PagesRepeat {
    /// The offset up to which items were handed out.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.offset
    }
}

impl fmt::Display for PagesRepeat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the pages from offset {} on have nothing new",
            self.offset
        )
    }
}

impl StdError for PagesRepeat {}
