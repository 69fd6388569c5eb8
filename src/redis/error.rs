//! Why Redis gave no answer.

use std::{error::Error, fmt, sync::Arc, time::Duration};

/// There is no connection, and the next one is not tried yet.
#[derive(Clone, Debug)]
pub struct NotConnected {
    pub(super) next_try: Duration,
    /// `None` where the last try did not end in time.
    pub(super) source: Option<Arc<dyn Error + Send + Sync>>,
}

impl NotConnected {
    /// How long no connection is tried, from then on.
    #[must_use]
    pub const fn next_try(&self) -> Duration {
        self.next_try
    }
}

impl fmt::Display for NotConnected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wait = self.next_try.as_secs_f64();
        write!(f, "not connected to Redis; next try in {wait:.1} s")
    }
}

impl Error for NotConnected {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// Redis did not answer in time. It may have done what it was asked for, now or later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoAnswer {
    pub(super) after: Duration,
}

impl NoAnswer {
    /// How long it was waited for.
    #[must_use]
    pub const fn after(&self) -> Duration {
        self.after
    }
}

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "no answer from Redis after {} ms",
            self.after.as_millis()
        )
    }
}

impl Error for NoAnswer {}

/// Redis answered something else than the script does: what answers is no Redis, or the user's script of the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnexpectedReply(pub(crate) ());

impl fmt::Display for UnexpectedReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("unexpected reply from Redis")
    }
}

impl Error for UnexpectedReply {}
