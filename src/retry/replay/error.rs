//! How a body ends that could not be sent, or not again.

use std::{error::Error, fmt, sync::Arc};

use tower::BoxError;

/// A [`ReplayBody`](super::ReplayBody) ended before it was whole.
///
/// Where the body inside failed, its error is the [`source`](Error::source).
#[derive(Clone, Debug)]
pub struct ReplayError {
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Failed(Arc<dyn Error + Send + Sync>),
    Panicked,
    OverCap { max: usize },
    TakenOver,
}

impl ReplayError {
    pub(super) fn failed(error: impl Into<BoxError>) -> Self {
        Kind::Failed(Arc::from(error.into())).into()
    }

    pub(super) fn panicked() -> Self {
        Kind::Panicked.into()
    }

    pub(super) fn over_cap(max: usize) -> Self {
        Kind::OverCap { max }.into()
    }

    pub(super) fn taken_over() -> Self {
        Kind::TakenOver.into()
    }

    /// Whether the body had become longer than what is [kept](super::ReplayBody::with_max_kept), so that only the attempt that
    /// read it so far could go on.
    #[must_use]
    pub fn is_over_cap(&self) -> bool {
        matches!(self.kind, Kind::OverCap { .. })
    }

    /// Whether a later attempt had begun to read the body: it has one reader at a time.
    #[must_use]
    pub fn is_taken_over(&self) -> bool {
        matches!(self.kind, Kind::TakenOver)
    }
}

impl From<Kind> for ReplayError {
    fn from(kind: Kind) -> Self {
        Self { kind }
    }
}

impl fmt::Display for ReplayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Failed(_) => f.write_str("request body failed"),
            Kind::Panicked => f.write_str("request body panicked in an earlier attempt"),
            Kind::OverCap { max } => {
                write!(
                    f,
                    "request body is longer than the {max} bytes that are kept for another attempt"
                )
            }
            Kind::TakenOver => f.write_str("request body was taken over by a later attempt"),
        }
    }
}

impl Error for ReplayError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.kind {
            Kind::Failed(error) => Some(&**error),
            Kind::Panicked | Kind::OverCap { .. } | Kind::TakenOver => None,
        }
    }
}
