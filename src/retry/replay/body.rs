//! A body that is kept while it is sent.

use std::{
    error::Error,
    fmt, mem,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
};

use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::{Buf, Bytes};
use tower::BoxError;

use super::RetryBody;

/// Any body, made one that can be sent more than once: what is read of it is kept, up to a bound.
///
/// The first attempt streams the body through without waiting. Its chunks are kept by reference, its trailers too. An
/// attempt that follows sends what was kept and reads on where the one before it stopped; that one, should anybody still
/// read it, ends in an error, so that no two read on at once. The inner body need be neither `Unpin` nor `Sync`.
///
/// A body that turns out to be longer than the bound goes on and is not kept: its request is not sent again. Neither is one
/// whose body failed.
///
/// # Errors
///
/// The body's error is a [`ReplayError`].
pub struct ReplayBody<B> {
    shared: Arc<Mutex<Shared<B>>>,
    id: u64,
    /// How many of the kept parts were handed out.
    next: usize,
}

struct Shared<B> {
    inner: Pin<Box<B>>,
    kept: Vec<Part>,
    /// The bytes in `kept`.
    len: usize,
    max_len: usize,
    state: State,
    next_id: u64,
    /// The newest body that began to be read, or was made after another had begun: the only one that reads on.
    reader: Option<u64>,
    /// `Some` while the reader waits.
    waker: Option<Waker>,
}

/// What is kept of a frame.
#[derive(Clone)]
enum Part {
    Data(Bytes),
    Trailers(Box<HeaderMap>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// All of it that was read is kept.
    Kept,
    /// And it was read to its end.
    Ended,
    /// It is longer than the bound, and nothing is kept.
    TooLong,
    /// It ended in an error.
    Failed,
}

impl<B: Body> ReplayBody<B> {
    /// Keeps up to `max_len` bytes of `inner`.
    pub fn new(inner: B, max_len: usize) -> Self {
        let least = inner.size_hint().lower();
        let fits = usize::try_from(least).is_ok_and(|least| least <= max_len);
        Self {
            shared: Arc::new(Mutex::new(Shared {
                inner: Box::pin(inner),
                kept: Vec::new(),
                len: 0,
                max_len,
                state: if fits { State::Kept } else { State::TooLong },
                next_id: 1,
                reader: None,
                waker: None,
            })),
            id: 0,
            next: 0,
        }
    }
}

impl<B> ReplayBody<B> {
    fn lock(&self) -> MutexGuard<'_, Shared<B>> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B> RetryBody for ReplayBody<B> {
    /// The same body from its beginning. Where another is being read, this one takes its place at once.
    fn try_clone(&self) -> Option<Self> {
        let mut shared = self.lock();
        if matches!(shared.state, State::TooLong | State::Failed) {
            return None;
        }
        let id = shared.next_id;
        shared.next_id = id.saturating_add(1);
        let superseded = shared.reader.is_some().then(|| {
            shared.reader = Some(id);
            shared.waker.take()
        });
        drop(shared);
        superseded.flatten().into_iter().for_each(Waker::wake);
        Some(Self {
            shared: self.shared.clone(),
            id,
            next: 0,
        })
    }
}

impl<B> Body for ReplayBody<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = ReplayError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ReplayError>>> {
        let (id, next) = (self.id, self.next);
        let mut shared = self.lock();
        // Wakers are foreign code, and may come back for the lock.
        let superseded = match shared.begin(id, next) {
            Ok(superseded) => superseded,
            Err(error) => return Poll::Ready(Some(Err(error))),
        };
        let waiting = mem::take(&mut shared.waker);
        let part = match shared.kept.get(next) {
            Some(part) => Poll::Ready(Some(Ok(part.clone()))),
            None => shared.read_on(cx),
        };
        // What is not kept is not counted: an empty chunk, and what is too long.
        let next = next.saturating_add(1).min(shared.kept.len());
        drop(shared);
        drop(waiting);
        superseded.into_iter().for_each(Waker::wake);
        let part = ready!(part);
        self.next = next;
        Poll::Ready(part.map(|part| part.map(Part::into_frame)))
    }

    fn is_end_stream(&self) -> bool {
        let shared = self.lock();
        let all_kept = self.next >= shared.kept.len();
        all_kept && (shared.state == State::Ended || shared.inner.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let shared = self.lock();
        let kept = shared.kept.iter().skip(self.next).map(Part::len).sum();
        let mut hint = match shared.state {
            State::Ended => SizeHint::with_exact(0),
            _ => shared.inner.size_hint(),
        };
        // The upper bound first: it may not be below the lower one.
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper.saturating_add(kept));
        }
        hint.set_lower(hint.lower().saturating_add(kept));
        hint
    }
}

impl<B> Shared<B> {
    /// Makes `id` the reader, which has been handed `next` parts. The waker is that of the one whose place it takes.
    fn begin(&mut self, id: u64, next: usize) -> Result<Option<Waker>, ReplayError> {
        let superseded = match self.reader {
            Some(reader) if reader == id => return Ok(None),
            Some(reader) if reader > id => return Err(Kind::Superseded.into()),
            Some(_) => self.waker.take(),
            None => None,
        };
        let begun = self.reader.is_some();
        match self.state {
            State::Failed => return Err(Kind::Failed(None).into()),
            // What was read is gone.
            State::TooLong if begun || next > 0 => return Err(Kind::TooLong(self.max_len).into()),
            _ => {}
        }
        self.reader = Some(id);
        Ok(superseded)
    }

    fn keep(&mut self, part: &Part) {
        if self.state != State::Kept || part.is_empty() {
            return;
        }
        let len = usize::try_from(part.len()).unwrap_or(usize::MAX);
        self.len = self.len.saturating_add(len);
        // Trailers come last, and once.
        let goes_on = matches!(self.kept.last(), Some(Part::Trailers(_)));
        if self.len > self.max_len || goes_on {
            self.state = State::TooLong;
            self.kept = Vec::new();
        } else {
            self.kept.push(part.clone());
        }
    }
}

impl<B> Shared<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    /// The next part of the inner body, which is kept.
    fn read_on(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Part, ReplayError>>> {
        match self.state {
            State::Ended => return Poll::Ready(None),
            State::Failed => return Poll::Ready(Some(Err(Kind::Failed(None).into()))),
            State::Kept | State::TooLong => {}
        }
        let Poll::Ready(frame) = self.inner.as_mut().poll_frame(cx) else {
            self.waker = Some(cx.waker().clone());
            return Poll::Pending;
        };
        Poll::Ready(match frame {
            Some(Ok(frame)) => {
                let part = Part::of(frame);
                self.keep(&part);
                Some(Ok(part))
            }
            Some(Err(error)) => {
                self.state = State::Failed;
                self.kept = Vec::new();
                Some(Err(Kind::Failed(Some(error.into())).into()))
            }
            None => {
                if self.state == State::Kept {
                    self.state = State::Ended;
                }
                None
            }
        })
    }
}

impl Part {
    /// A frame is data or trailers; one of any other kind is taken for an empty chunk.
    fn of<D: Buf>(frame: Frame<D>) -> Self {
        match frame.into_data() {
            Ok(mut data) => Self::Data(data.copy_to_bytes(data.remaining())),
            Err(frame) => frame.into_trailers().map_or_else(
                |_| Self::Data(Bytes::new()),
                |trailers| Self::Trailers(Box::new(trailers)),
            ),
        }
    }

    fn is_empty(&self) -> bool {
        matches!(self, Self::Data(data) if data.is_empty())
    }

    fn len(&self) -> u64 {
        match self {
            Self::Data(data) => u64::try_from(data.len()).unwrap_or(u64::MAX),
            Self::Trailers(_) => 0,
        }
    }

    fn into_frame(self) -> Frame<Bytes> {
        match self {
            Self::Data(data) => Frame::data(data),
            Self::Trailers(trailers) => Frame::trailers(*trailers),
        }
    }
}

impl<B> fmt::Debug for ReplayBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shared = self.lock();
        f.debug_struct("ReplayBody")
            .field("kept_bytes", &shared.len)
            .field("state", &shared.state)
            .finish_non_exhaustive()
    }
}

/// A [`ReplayBody`] that can't be read on.
#[derive(Debug)]
pub struct ReplayError(Kind);

#[derive(Debug)]
enum Kind {
    /// With the inner body's error, where it is told for the first time.
    Failed(Option<BoxError>),
    TooLong(usize),
    Superseded,
}

impl ReplayError {
    /// Whether the inner body failed; the [`source`](Error::source) is its error, the first time.
    #[must_use]
    pub const fn is_inner(&self) -> bool {
        matches!(self.0, Kind::Failed(_))
    }
}

impl From<Kind> for ReplayError {
    fn from(kind: Kind) -> Self {
        Self(kind)
    }
}

impl fmt::Display for ReplayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Failed(_) => f.write_str("request body failed"),
            Kind::TooLong(bytes) => {
                write!(
                    f,
                    "request body is longer than the {bytes} bytes that are kept"
                )
            }
            Kind::Superseded => f.write_str("request body is read by a later attempt"),
        }
    }
}

impl Error for ReplayError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.0 {
            Kind::Failed(Some(source)) => Some(&**source),
            _ => None,
        }
    }
}
