//! Why there is no key to send a request with.

use std::{error::Error, fmt, sync::Arc, time::Duration};

use tower::BoxError;

use super::WrongKeyKind;

/// The key source gave no key that could be used. The request was not sent; its cause is the [`source`](Error::source).
///
/// All requests that waited for the same answer of the source get the same error. After a 401 it is in the extensions of
/// the answer, which is handed back.
#[derive(Clone, Debug)]
pub struct KeyUnavailable(Arc<Cause>);

#[derive(Debug)]
enum Cause {
    Source(BoxError),
    TimedOut(Duration),
    WrongKind(WrongKeyKind),
}

impl KeyUnavailable {
    pub(crate) fn source_failed(error: BoxError) -> Self {
        Self(Arc::new(Cause::Source(error)))
    }

    pub(crate) fn timed_out(after: Duration) -> Self {
        Self(Arc::new(Cause::TimedOut(after)))
    }

    pub(crate) fn wrong_kind(wrong: WrongKeyKind) -> Self {
        Self(Arc::new(Cause::WrongKind(wrong)))
    }

    /// Whether the source took longer than
    /// [`PlotonAuth::source_timeout`](crate::PlotonAuth::source_timeout).
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        matches!(*self.0, Cause::TimedOut(_))
    }

    /// The cause in a word: a source's own text may hold anything.
    pub(crate) fn kind(&self) -> &'static str {
        match &*self.0 {
            Cause::Source(_) => "source",
            Cause::TimedOut(_) => "timeout",
            Cause::WrongKind(_) => "wrong kind",
        }
    }
}

/// "no API key to be had: the key source took longer than 10 s"
impl fmt::Display for KeyUnavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no API key to be had: the key source ")?;
        match &*self.0 {
            Cause::Source(_) => f.write_str("failed"),
            Cause::TimedOut(after) => write!(f, "took longer than {} s", after.as_secs_f64()),
            Cause::WrongKind(_) => f.write_str("gave a key of the other kind"),
        }
    }
}

impl Error for KeyUnavailable {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &*self.0 {
            Cause::Source(error) => Some(&**error),
            Cause::TimedOut(_) => None,
            Cause::WrongKind(wrong) => Some(wrong),
        }
    }
}
