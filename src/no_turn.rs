//! Why a request did not wait for its turn at the rate limit.

use std::{error::Error, fmt, time::Duration};

/// As many wait already as [`PlotonRateLimit::max_waiting`](crate::PlotonRateLimit::max_waiting) allows. The request was
/// not sent.
#[derive(Debug)]
pub struct QueueFull {
    pub(crate) waiting: usize,
    pub(crate) wait: Duration,
}

impl QueueFull {
    /// How many wait.
    #[must_use]
    pub const fn waiting(&self) -> usize {
        self.waiting
    }

    /// How long the request would have waited behind them, about.
    #[must_use]
    pub const fn wait(&self) -> Duration {
        self.wait
    }
}

/// "100 requests wait for the rate limit already, this one would wait 61.0 s"
impl fmt::Display for QueueFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (waiting, wait) = (self.waiting, self.wait.as_secs_f64());
        let requests = if waiting == 1 {
            "request waits"
        } else {
            "requests wait"
        };
        write!(
            f,
            "{waiting} {requests} for the rate limit already, this one would wait {wait:.1} s"
        )
    }
}

impl Error for QueueFull {}

/// The request would have waited longer than [`PlotonRateLimit::max_wait`](crate::PlotonRateLimit::max_wait) allows, or
/// has. It was not sent.
#[derive(Debug)]
pub struct WaitTooLong {
    pub(crate) wait: Duration,
    pub(crate) max: Duration,
}

impl WaitTooLong {
    /// How long the request would have waited in all, about.
    #[must_use]
    pub const fn wait(&self) -> Duration {
        self.wait
    }

    /// How long it was allowed to wait.
    #[must_use]
    pub const fn max(&self) -> Duration {
        self.max
    }
}

/// "request would wait 61.0 s for the rate limit, longer than the 5.0 s it may"
impl fmt::Display for WaitTooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (wait, max) = (self.wait.as_secs_f64(), self.max.as_secs_f64());
        write!(
            f,
            "request would wait {wait:.1} s for the rate limit, longer than the {max:.1} s it may"
        )
    }
}

impl Error for WaitTooLong {}

/// The request's [`Deadline`](crate::Deadline) is before its turn, or has passed. It was not sent.
#[derive(Debug)]
pub struct DeadlineTooSoon {
    pub(crate) wait: Duration,
    pub(crate) left: Duration,
}

impl DeadlineTooSoon {
    /// How long the request would have waited in all, about.
    #[must_use]
    pub const fn wait(&self) -> Duration {
        self.wait
    }

    /// How long it could wait, from when it began to.
    #[must_use]
    pub const fn left(&self) -> Duration {
        self.left
    }
}

/// "request would wait 61.0 s for the rate limit, and its deadline is in 5.0 s"
impl fmt::Display for DeadlineTooSoon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.left.is_zero() {
            return f.write_str("deadline had passed before the request came to the rate limit");
        }
        let (wait, left) = (self.wait.as_secs_f64(), self.left.as_secs_f64());
        write!(
            f,
            "request would wait {wait:.1} s for the rate limit, and its deadline is in {left:.1} s"
        )
    }
}

impl Error for DeadlineTooSoon {}

/// Whether it is one of the above: to wait and to ask again would be what was not allowed.
pub(crate) fn did_not_wait(error: &(dyn Error + 'static)) -> bool {
    error.is::<QueueFull>() || error.is::<WaitTooLong>() || error.is::<DeadlineTooSoon>()
}
