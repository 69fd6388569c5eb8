//! The body of an answer: whole, or cut off.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use {
    bytes::Bytes,
    http_body::{Body, Frame, SizeHint},
};

/// The body of an answer of [`FakePloton`](super::FakePloton). One that is cut off yields the first half of its bytes and then an error.
#[derive(Debug)]
pub struct FakeBody {
    data: Option<Bytes>,
    /// The bytes that were promised and have not come.
    promised: u64,
    cut: bool,
}

impl FakeBody {
    pub(super) fn whole(data: Bytes) -> Self {
        Self {
            promised: data.len() as u64, // fits: a length is at most 64 bits
            data: Some(data).filter(|data| !data.is_empty()),
            cut: false,
        }
    }

    pub(super) fn truncated(mut data: Bytes) -> Self {
        let promised = data.len() as u64; // fits: as above
        data.truncate(data.len().div_ceil(2));
        Self {
            data: Some(data).filter(|data| !data.is_empty()),
            promised,
            cut: true,
        }
    }
}

impl Body for FakeBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if let Some(data) = self.data.take() {
            self.promised = self.promised.saturating_sub(data.len() as u64); // fits: as above
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if self.cut {
            self.cut = false;
            return Poll::Ready(Some(Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "connection cut within the body",
            ))));
        }
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_none() && !self.cut
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.promised)
    }
}

#[cfg(test)]
mod tests {
    use {super::*, http_body_util::BodyExt};

    #[tokio::test]
    async fn a_whole_body_is_one_frame() {
        let mut body = FakeBody::whole(Bytes::from_static(b"abc"));
        assert_eq!(body.size_hint().exact(), Some(3));
        let data = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(data, "abc");
        assert!(body.is_end_stream());
        assert!(body.frame().await.is_none());
    }

    #[tokio::test]
    async fn a_truncated_body_breaks_its_promise() {
        let mut body = FakeBody::truncated(Bytes::from_static(b"abc"));
        assert_eq!(body.size_hint().exact(), Some(3));
        let data = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(data, "ab");
        assert!(!body.is_end_stream());
        let error = body.frame().await.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
