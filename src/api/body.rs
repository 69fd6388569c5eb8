//! Reads a body to its end, but not forever: bounded in bytes and in time.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};
use tower::BoxError;

/// How much of a body is read, and for how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) bytes: usize,
    pub(super) time: Duration,
}

impl Bounds {
    /// For the bodies of error answers.
    pub(super) const ERROR: Self = Self {
        bytes: 64 * 1024,
        time: Duration::from_secs(5),
    };
}

/// What came of a body.
#[derive(Debug)]
pub(super) struct Collected {
    /// All of it, or its beginning.
    pub(super) bytes: Bytes,
    pub(super) end: End,
}

/// How the reading of a body ended.
#[derive(Debug)]
pub(super) enum End {
    /// All of it came.
    Whole,
    /// It broke off.
    Broken(BoxError),
    /// It did not end in time.
    Slow(Duration),
    /// It has more bytes than this.
    TooLong(usize),
}

impl End {
    pub(super) fn into_source(self) -> Option<BoxError> {
        match self {
            Self::Broken(error) => Some(error),
            _ => None,
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole => f.write_str("the body is whole"),
            Self::Broken(_) => f.write_str("the body broke off"),
            Self::Slow(time) => write!(f, "the body did not end within {} s", time.as_secs_f64()),
            Self::TooLong(most) => write!(f, "the body has more than {most} bytes"),
        }
    }
}

pin_project! {
    /// Collects a body; never fails.
    #[derive(Debug)]
    pub(super) struct ReadBody<R> {
        #[pin]
        body: R,
        // `Some` once the body had to be waited for. Boxed: a timer can't be moved, and the future around it can then.
        sleep: Option<Pin<Box<Sleep>>>,
        // `None` where that is further away than a clock can tell.
        until: Option<Instant>,
        bounds: Bounds,
        bytes: BytesMut,
    }
}

impl<R> ReadBody<R> {
    pub(super) fn new(body: R, bounds: Bounds) -> Self {
        Self {
            body,
            sleep: None,
            until: Instant::now().checked_add(bounds.time),
            bounds,
            bytes: BytesMut::new(),
        }
    }
}

impl<R> Future for ReadBody<R>
where
    R: Body,
    R::Error: Into<BoxError>,
{
    type Output = Collected;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Collected> {
        let mut this = self.project();
        let end = loop {
            match this.body.as_mut().poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    // Trailers say nothing here.
                    if let Ok(mut data) = frame.into_data() {
                        let room = this.bounds.bytes.saturating_sub(this.bytes.len());
                        let too_long = data.remaining() > room;
                        let taken = data.remaining().min(room);
                        this.bytes.extend_from_slice(&data.copy_to_bytes(taken));
                        if too_long {
                            break End::TooLong(this.bounds.bytes);
                        }
                    }
                    // A body that is always ready would not let the timer speak.
                    if this.until.is_some_and(|until| Instant::now() >= until) {
                        break End::Slow(this.bounds.time);
                    }
                }
                Poll::Ready(Some(Err(error))) => break End::Broken(error.into()),
                Poll::Ready(None) => break End::Whole,
                Poll::Pending => {
                    if this.sleep.is_none() {
                        *this.sleep = this.until.map(|until| Box::pin(sleep_until(until)));
                    }
                    if let Some(sleep) = this.sleep {
                        if sleep.as_mut().poll(cx).is_ready() {
                            break End::Slow(this.bounds.time);
                        }
                    }
                    return Poll::Pending;
                }
            }
        };
        Poll::Ready(Collected {
            bytes: std::mem::take(this.bytes).freeze(),
            end,
        })
    }
}
