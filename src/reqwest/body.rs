//! reqwest's bodies, in a form that can be sent again.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use reqwest::Body;

use crate::retry::{ReplayBody, ReplayError, RetryBody};

/// A request's body between [`FromReqwest`](super::FromReqwest) and [`IntoReqwest`](super::IntoReqwest): one that
/// [`PlotonRetry`](crate::PlotonRetry) can send again, though a [`reqwest::Body`] itself can't be cloned.
///
/// Bytes stay bytes, of whatever length, and cost a reference count; reqwest can then repeat them too, in a redirect. A stream is
/// a [`ReplayBody`].
pub struct ReqwestBody(Kind);

enum Kind {
    Bytes(Bytes),
    Stream(ReplayBody<Body>),
}

impl ReqwestBody {
    /// Of a stream, up to `max_kept` bytes are kept.
    pub(super) fn new(mut body: Body, max_kept: usize) -> Self {
        if body.as_bytes().is_none() {
            return Self(Kind::Stream(ReplayBody::with_max_kept(body, max_kept)));
        }
        // The only way to the bytes that copies none: they are one frame, there at once.
        let mut cx = Context::from_waker(Waker::noop());
        let frame = http_body::Body::poll_frame(Pin::new(&mut body), &mut cx);
        let bytes = match frame {
            Poll::Ready(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
            _ => Bytes::new(),
        };
        Self(Kind::Bytes(bytes))
    }
}

/// So the typed client makes its bodies.
impl From<Bytes> for ReqwestBody {
    fn from(bytes: Bytes) -> Self {
        Self(Kind::Bytes(bytes))
    }
}

impl From<ReqwestBody> for Body {
    fn from(body: ReqwestBody) -> Self {
        match body.0 {
            Kind::Bytes(bytes) => Self::from(bytes),
            Kind::Stream(body) => Self::wrap(body),
        }
    }
}

impl RetryBody for ReqwestBody {
    fn try_clone(&self) -> Option<Self> {
        Some(Self(match &self.0 {
            Kind::Bytes(bytes) => Kind::Bytes(bytes.clone()),
            Kind::Stream(body) => Kind::Stream(body.try_clone()?),
        }))
    }
}

/// For layers of others between the two.
impl http_body::Body for ReqwestBody {
    type Data = Bytes;
    type Error = ReplayError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ReplayError>>> {
        match &mut self.0 {
            Kind::Bytes(bytes) => {
                let bytes = std::mem::take(bytes);
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            Kind::Stream(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Bytes(bytes) => bytes.is_empty(),
            Kind::Stream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            // fits: a length is at most 64 bits
            Kind::Bytes(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Stream(body) => body.size_hint(),
        }
    }
}

/// Without its content.
impl fmt::Debug for ReqwestBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = http_body::Body::size_hint(self);
        f.debug_struct("ReqwestBody")
            .field("length", &size.exact())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes of a body, and where they are.
    fn bytes(body: &Body) -> (*const u8, &[u8]) {
        let bytes = body.as_bytes().expect("bytes");
        (bytes.as_ptr(), bytes)
    }

    #[test]
    fn bytes_stay_bytes_and_are_not_copied() {
        let body = Body::from(vec![b'x'; 100_000]);
        let before = bytes(&body).0;
        let first = ReqwestBody::new(body, 0);
        let second = first.try_clone().unwrap();
        for body in [first, second] {
            assert_eq!(http_body::Body::size_hint(&body).exact(), Some(100_000));
            let body = Body::from(body);
            assert_eq!(bytes(&body), (before, &[b'x'; 100_000][..]));
        }
    }

    #[test]
    fn an_empty_body_stays_empty() {
        let body = ReqwestBody::new(Body::default(), 0);
        assert!(http_body::Body::is_end_stream(&body));
        assert_eq!(Body::from(body).as_bytes(), Some(&b""[..]));
    }

    #[test]
    fn a_stream_is_kept_up_to_the_cap() {
        let stream = || Body::wrap(http_body_util::Full::<Bytes>::from("{}"));
        assert!(ReqwestBody::new(stream(), 2).try_clone().is_some());
        assert!(ReqwestBody::new(stream(), 1).try_clone().is_none());
    }
}
