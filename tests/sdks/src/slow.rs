//! Answers whose bodies go on for longer than anything may take until their heads.

use std::time::Duration;

use bytes::Bytes;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio_stream::StreamExt;
use tower::BoxError;
use tower_ploton::{PlotonRetry, PlotonStack};

use crate::{Answer, Server, stack};

/// At once.
pub const SOON: Duration = Duration::ZERO;

/// How long an attempt of [`timed`] may take until its answer's head.
pub const TIMEOUT: Duration = Duration::from_millis(600);

/// How long all of them may take.
pub const DEADLINE: Duration = Duration::from_millis(800);

/// Later than either.
pub const LATER: Duration = Duration::from_millis(1_000);

/// Sooner than the limiter lets others go beside a first request whose answer does not come, which is 2 s.
pub const FREE: Duration = Duration::from_millis(1_500);

/// The stack, for the origin of `server`, with little time until an answer's head.
pub fn timed(server: &Server) -> PlotonStack {
    stack(server)
        .attempt_timeout(TIMEOUT)
        .retry(PlotonRetry::new().deadline(DEADLINE))
}

/// The body of an answer that says each of `parts` so long after the one before it.
pub fn slowly(
    parts: impl IntoIterator<Item = (Duration, String), IntoIter: Send + 'static>,
) -> Answer {
    let parts = tokio_stream::iter(parts).then(|(pause, text)| async move {
        tokio::time::sleep(pause).await;
        Ok::<_, BoxError>(Frame::data(Bytes::from(text)))
    });
    StreamBody::new(parts).boxed_unsync()
}
