//! What becomes of an answer that is not handed back.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use http::Response;
use http_body::Body;
use hyper::body::Buf;
use pin_project_lite::pin_project;
use tokio::time::Instant;

pin_project! {
    /// The body of an answer that nobody will read: an HTTP/1 connection can be used again only when it was read.
    pub(super) struct Discarded<R> {
        #[pin]
        body: Option<R>,
        read: usize,
        since: Instant,
    }
}

impl<R> Discarded<R> {
    pub(super) fn new(response: Option<Response<R>>, since: Instant) -> Self {
        Self {
            body: response.map(Response::into_body),
            read: 0,
            since,
        }
    }

    /// When the rest is dropped unread; `None` where nothing is left.
    pub(super) fn gives_up(&self) -> Option<Instant> {
        self.body.as_ref().map(|_| self.since + DRAIN_TIME)
    }
}

impl<R: Body> Discarded<R> {
    /// Reads what is there, and drops the body at its end or past a small bound.
    pub(super) fn poll_drain(self: Pin<&mut Self>, cx: &mut Context<'_>, now: Instant) {
        let mut this = self.project();
        while let Some(body) = this.body.as_mut().as_pin_mut() {
            match body.poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    // A frame without data counts too, or a body of such would be read for ever.
                    let len = frame.data_ref().map_or(0, Buf::remaining).max(1);
                    *this.read = this.read.saturating_add(len);
                    if *this.read <= DRAIN_BYTES {
                        continue;
                    }
                }
                Poll::Pending if now < *this.since + DRAIN_TIME => return,
                _ => {}
            }
            this.body.set(None);
        }
    }
}

/// What is read of a discarded answer at the most: more costs more than a new connection.
const DRAIN_BYTES: usize = 64 * 1024;
const DRAIN_TIME: Duration = Duration::from_millis(50);
