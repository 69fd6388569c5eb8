//! Why Redis gave no answer.

use std::{error::Error, fmt, sync::Arc, time::Duration};

/// There is no connection, and the next one is not tried yet.
#[derive(Clone, Debug)]
pub struct NotConnected {
    /// `None` where it can't be made anew.
    pub(super) next_try: Option<Duration>,
    /// `None` where the last try did not end in time.
    pub(super) source: Option<Arc<dyn Error + Send + Sync>>,
}

impl NotConnected {
    /// How long no connection is tried, from then on; `None` where it was [given](super::RedisStore::from_connection), and
    /// is lost for good.
    #[must_use]
    pub const fn next_try(&self) -> Option<Duration> {
        self.next_try
    }
}

impl fmt::Display for NotConnected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not connected to Redis")?;
        self.next_try.map_or(Ok(()), |wait| {
            write!(f, "; next try in {:.1} s", wait.as_secs_f64())
        })
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
