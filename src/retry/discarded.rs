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

use super::progress::TIMER;

pin_project! {
    /// The body of an answer that nobody will read: an HTTP/1 connection can be used again only when it was read.
    pub(super) struct Discarded<R> {
        #[pin]
        body: Option<R>,
        read: usize,
        gives_up: Instant,
    }
}

impl<R> Discarded<R> {
    /// An answer that came at `now`, while the next attempt waits until `next`. Its rest may come later than that: a short
    /// delay is stretched for it, since a new connection takes longer, but not past the deadline.
    pub(super) fn new(
        response: Option<Response<R>>,
        now: Instant,
        next: Instant,
        deadline: Option<Instant>,
    ) -> Self {
        let gives_up = now + DRAIN_TIME;
        let in_time = deadline.is_none_or(|deadline| gives_up + TIMER < deadline);
        Self {
            body: response.map(Response::into_body),
            read: 0,
            gives_up: if in_time {
                gives_up
            } else {
                gives_up.min(next)
            },
        }
    }

    /// When the rest is dropped unread; `None` where nothing is left.
    pub(super) fn gives_up(&self) -> Option<Instant> {
        self.body.as_ref().map(|_| self.gives_up)
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
                Poll::Pending if now < *this.gives_up => return,
                _ => {}
            }
            this.body.set(None);
        }
    }
}

/// What is read of a discarded answer at the most: more costs more than a new connection.
const DRAIN_BYTES: usize = 64 * 1024;
const DRAIN_TIME: Duration = Duration::from_millis(50);
