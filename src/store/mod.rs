//! What is the same for all that processes share by a store.

use std::{error::Error, fmt, pin::Pin, time::Duration};

use tokio::time::timeout;
use tower::BoxError;

pub(crate) mod worker;

/// What a store that processes share answers, later.
pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// What a process does while the shared store gives no answer. It goes back to the store by itself when that does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outage {
    /// Takes its share: what the plan allows, divided by the processes that were there before the store went away, and rounded
    /// down; requests leave in even steps. Where that is less than one, or the store never answered, it waits.
    #[default]
    Share,
    /// Begins nothing.
    Wait,
    /// Takes all that the plan allows, as if it were alone: all processes together take as many times that as there are.
    Local,
}

impl Outage {
    /// How much of `plan` is for this process.
    pub(crate) fn share(self, plan: u32, processes: u32) -> u32 {
        match self {
            Self::Share => plan.checked_div(processes).unwrap_or(0),
            Self::Wait => 0,
            Self::Local => plan,
        }
    }
}

impl fmt::Display for Outage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Share => "share",
            Self::Wait => "wait",
            Self::Local => "local",
        })
    }
}

/// A store that processes share gave no answer that could be used.
#[derive(Debug)]
pub struct StoreError {
    source: BoxError,
    late: bool,
}

impl StoreError {
    /// Failed because of `source`, whose text must name no secret: it is logged.
    pub fn new(source: impl Into<BoxError>) -> Self {
        Self {
            source: source.into(),
            late: false,
        }
    }

    /// Failed only because no answer came in time, which `source` says. The store may be as it was: other than after
    /// [`new`](Self::new), the processes need not stand still when it answers again.
    pub fn late(source: impl Into<BoxError>) -> Self {
        Self {
            source: source.into(),
            late: true,
        }
    }

    /// Whether it only took too long.
    #[must_use]
    pub const fn is_late(&self) -> bool {
        self.late
    }

    /// What the log is told: the causes as one line. An error may say itself what its cause does.
    pub(crate) fn in_a_line(&self) -> String {
        let mut line = self.source.to_string();
        let mut cause = self.source.source();
        while let Some(error) = cause {
            let text = error.to_string();
            if !line.contains(&text) {
                line.push_str(": ");
                line.push_str(&text);
            }
            cause = error.source();
        }
        line
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("shared store failed")
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(self.source.as_ref())
    }
}

/// Waits for an answer for so long, and no longer.
pub(crate) async fn in_time<T>(
    patience: Duration,
    call: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let answer = timeout(patience, call).await;
    answer.unwrap_or_else(|_| Err(StoreError::late(NoAnswer(patience))))
}

/// How long a call may take, whatever its store or its user says.
pub(crate) fn patience(timeout: Duration) -> Duration {
    timeout.clamp(SHORTEST_TIMEOUT, LONGEST_TIMEOUT)
}

#[derive(Debug)]
struct NoAnswer(Duration);

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no answer within {} ms", self.0.as_millis())
    }
}

impl Error for NoAnswer {}

/// How long a call may take, where nobody says it.
pub(crate) const TIMEOUT: Duration = Duration::from_millis(100);
const SHORTEST_TIMEOUT: Duration = Duration::from_millis(10);
/// Fits: when a store is back, nothing is sent for a second and two calls, and a store puts nothing off by more than 2.5 s.
const LONGEST_TIMEOUT: Duration = Duration::from_millis(750);

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn causes_are_told_once_each() {
        let refused = || io::Error::other("refused");
        assert_eq!(StoreError::new(refused()).in_a_line(), "refused");
        let nested = io::Error::other(StoreError::new(refused()));
        let line = StoreError::new(nested).in_a_line();
        assert_eq!(line, "shared store failed: refused");
    }
}
