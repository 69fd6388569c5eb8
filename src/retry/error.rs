//! How a request ends that no answer came for.

use std::{error::Error, fmt, time::Duration};

use http::StatusCode;
use tower::BoxError;

use crate::{idempotency_key::IdempotencyKey, logical::Attempts};

/// The last of several attempts ended in an error, which is the [`source`](Error::source).
///
/// After a first and only attempt the inner service's error is handed back as it is.
#[derive(Debug)]
pub struct AttemptsFailed {
    pub(super) attempts: Attempts,
    pub(super) source: BoxError,
}

impl AttemptsFailed {
    /// What was tried.
    #[must_use]
    pub const fn attempts(&self) -> &Attempts {
        &self.attempts
    }

    /// The last attempt's error.
    #[must_use]
    pub fn into_source(self) -> BoxError {
        self.source
    }
}

impl fmt::Display for AttemptsFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "request failed after {}", self.attempts)
    }
}

impl Error for AttemptsFailed {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.source)
    }
}

/// The deadline passed while an attempt was under way, while the next one waited for the inner service, or before the
/// first.
///
/// A deadline that the next delay would not meet hands back the last answer instead.
#[derive(Debug)]
pub struct DeadlinePassed {
    pub(super) attempts: Attempts,
    pub(super) deadline: Duration,
    pub(super) last_status: Option<StatusCode>,
}

impl DeadlinePassed {
    /// What was tried.
    #[must_use]
    pub const fn attempts(&self) -> &Attempts {
        &self.attempts
    }

    /// The time that the request had, from its call.
    #[must_use]
    pub const fn deadline(&self) -> Duration {
        self.deadline
    }

    /// The status of the last answer, where one came.
    #[must_use]
    pub const fn last_status(&self) -> Option<StatusCode> {
        self.last_status
    }
}

impl fmt::Display for DeadlinePassed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let deadline = self.deadline.as_secs_f64();
        write!(f, "deadline of {deadline} s passed after {}", self.attempts)?;
        match self.last_status {
            Some(status) => write!(f, ", the last answered {}", status.as_u16()),
            None => Ok(()),
        }
    }
}

impl Error for DeadlinePassed {}

/// The request was not sent: its idempotency key was first used 23 hours ago or longer, and the server, which knows a key
/// for 24, might process a second time what it processed then.
///
/// See [`IdempotencyKey::first_used`].
#[derive(Debug)]
pub struct KeyExpired {
    pub(super) attempts: Attempts,
    pub(super) key: IdempotencyKey,
    pub(super) age: Duration,
}

impl KeyExpired {
    /// What was tried: nothing.
    #[must_use]
    pub const fn attempts(&self) -> &Attempts {
        &self.attempts
    }

    /// The key.
    #[must_use]
    pub const fn idempotency_key(&self) -> &IdempotencyKey {
        &self.key
    }

    /// The time since the key's first use.
    #[must_use]
    pub const fn age(&self) -> Duration {
        self.age
    }
}

impl fmt::Display for KeyExpired {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hours = self.age.as_secs_f64() / 3600.0;
        write!(
            f,
            "idempotency key first used {hours:.1} h ago, too old to be sent after 23 h"
        )
    }
}

impl Error for KeyExpired {}
