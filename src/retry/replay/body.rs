//! A body that keeps what it has yielded, to yield it again.

use std::{
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, Waker, ready},
};

use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::{Buf, Bytes};
use tower::BoxError;

use super::{DEFAULT_MAX_KEPT, ReplayError, RetryBody};

/// Makes any body one that can be sent again, without waiting for it and without copying it.
///
/// The first attempt streams the body through; its chunks are kept by reference meanwhile, and its trailers. The next
/// attempt ([`try_clone`](RetryBody::try_clone)) yields what was kept and then goes on with the rest of the body, wherever
/// the one before it stopped.
///
/// A body has one reader at a time. What is still being sent when another attempt is made of it ends in a [`ReplayError`],
/// so that its server never takes it for the whole.
///
/// Where more comes than is [kept](Self::with_max_kept), everything kept is let go: the attempt that reads goes on, and there is
/// no other. Nor is there after an error of the body. A clone that was there already ends in a [`ReplayError`] then,
/// before its first frame.
///
/// The body inside need be neither `Unpin` nor `Sync`: this one is always `Unpin`, and `Send` and `Sync` where the other is
/// `Send`.
///
/// # Example
///
/// ```
/// use bytes::Bytes;
/// use http_body_util::{BodyExt, Full};
/// use tower_ploton::retry::{ReplayBody, RetryBody};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let first = ReplayBody::new(Full::<Bytes>::from("{}").boxed_unsync());
/// let second = first.try_clone().expect("it is short");
///
/// assert_eq!(first.collect().await?.to_bytes(), "{}");
/// assert_eq!(second.collect().await?.to_bytes(), "{}");
/// # Ok(())
/// # }
/// ```
pub struct ReplayBody<B> {
    shared: Arc<Mutex<Shared<B>>>,
    place: Place,
}

/// How far one attempt is.
#[derive(Default)]
struct Place {
    /// The turn it was given with its first poll; 0 before it.
    turn: u64,
    /// The chunks that it yielded, the empty ones not counted.
    chunks: usize,
    /// The bytes in them.
    bytes: u64,
    /// After the end, or an error.
    done: bool,
}

/// What all attempts share.
struct Shared<B> {
    rest: Rest<B>,
    /// Whose turn it is to read: 0 before the first poll, and nobody's between two attempts.
    turn: u64,
    /// `Some` where the one whose turn it is may wait.
    waker: Option<Waker>,
    /// The chunks so far, none of them empty; `None` where they were too many.
    kept: Option<Vec<Bytes>>,
    kept_bytes: usize,
    max_kept: usize,
    /// `Some` after them.
    trailers: Option<HeaderMap>,
    /// `Some` where the body stated it from the start.
    length: Option<u64>,
}

/// What has not been read of the body yet.
enum Rest<B> {
    Unread(Pin<Box<B>>),
    Nothing,
    Failed(ReplayError),
}

impl<B: Body> ReplayBody<B> {
    /// Keeps up to 64 KiB of `body`.
    pub fn new(body: B) -> Self {
        Self::with_max_kept(body, DEFAULT_MAX_KEPT)
    }

    /// Keeps up to `bytes` of `body`.
    pub fn with_max_kept(body: B, bytes: usize) -> Self {
        let size = body.size_hint();
        let may_fit = usize::try_from(size.lower()).is_ok_and(|least| least <= bytes);
        let shared = Shared {
            rest: Rest::Unread(Box::pin(body)),
            turn: 0,
            waker: None,
            kept: may_fit.then(Vec::new),
            kept_bytes: 0,
            max_kept: bytes,
            trailers: None,
            length: size.exact(),
        };
        Self {
            shared: Arc::new(Mutex::new(shared)),
            place: Place::default(),
        }
    }
}

/// What stands for no body, as a layer needs it that makes a POST a GET.
impl<B: Body + Default> Default for ReplayBody<B> {
    fn default() -> Self {
        Self::new(B::default())
    }
}

impl<B> RetryBody for ReplayBody<B> {
    /// The body from its beginning; the attempt that reads it, if there is one, gets no more of it. `None` once the body
    /// failed, or was longer than what is kept.
    fn try_clone(&self) -> Option<Self> {
        let mut shared = lock(&self.shared);
        if shared.kept.is_none() || matches!(shared.rest, Rest::Failed(_)) {
            return None;
        }
        let stopped = shared.stop();
        drop(shared);
        if let Some(waker) = stopped {
            waker.wake();
        }
        Some(Self {
            shared: self.shared.clone(),
            place: Place::default(),
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
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ReplayError>>> {
        let Self { shared, place } = self.get_mut();
        if place.done {
            return Poll::Ready(None);
        }
        // Held while the body inside is polled: nobody else reads it, and waits for this but where one attempt takes over
        // from another.
        let mut shared = lock(shared);
        let stopped = shared.begin(place);
        let poll = shared.poll_frame(place, cx);
        drop(shared);
        if let Some(waker) = stopped {
            waker.wake();
        }
        let frame = ready!(poll);
        place.step(frame.as_ref());
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.place.done || lock(&self.shared).is_at_end(&self.place)
    }

    fn size_hint(&self) -> SizeHint {
        if self.place.done {
            return SizeHint::with_exact(0);
        }
        lock(&self.shared).size_hint(&self.place)
    }
}

impl<B> fmt::Debug for ReplayBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplayBody")
            .field("turn", &self.place.turn)
            .field("bytes", &self.place.bytes)
            .finish_non_exhaustive()
    }
}

impl Place {
    /// Goes on past `frame`.
    fn step(&mut self, frame: Option<&Result<Frame<Bytes>, ReplayError>>) {
        let Some(Ok(frame)) = frame else {
            self.done = true;
            return;
        };
        self.done = frame.is_trailers(); // they come last
        if let Some(data) = frame.data_ref() {
            self.chunks += usize::from(!data.is_empty());
            self.bytes = self.bytes.saturating_add(data.len() as u64); // fits: a length is at most 64 bits
        }
    }
}

impl<B> Shared<B> {
    /// Gives an attempt its turn with its first poll; the waker is that of the one whose turn it was.
    fn begin(&mut self, place: &mut Place) -> Option<Waker> {
        if place.turn > 0 || self.is_lost_to(place) {
            return None;
        }
        self.turn += 1;
        place.turn = self.turn;
        self.waker.take()
    }

    /// Ends the turn of the attempt that reads. It might go on for as long as the delay before the next one, and read more
    /// than is kept.
    fn stop(&mut self) -> Option<Waker> {
        self.turn += 1;
        self.waker.take()
    }

    /// Whether an attempt can't have the whole body any more.
    fn is_lost_to(&self, place: &Place) -> bool {
        let failed = matches!(self.rest, Rest::Failed(_));
        failed
            || match place.turn {
                0 => self.turn > 0 && self.kept.is_none(),
                turn => turn != self.turn,
            }
    }

    /// Why it can't.
    fn refusal(&self, place: &Place) -> ReplayError {
        match &self.rest {
            Rest::Failed(error) => error.clone(),
            _ if place.turn == 0 => ReplayError::over_cap(self.max_kept),
            _ => ReplayError::taken_over(),
        }
    }

    fn kept_after(&self, place: &Place) -> &[Bytes] {
        let kept = self.kept.as_ref();
        kept.and_then(|kept| kept.get(place.chunks..))
            .unwrap_or_default()
    }

    /// Remembers whom to wake when its turn ends.
    fn wait(&mut self, cx: &Context<'_>) {
        match &mut self.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            None => self.waker = Some(cx.waker().clone()),
        }
    }

    fn keep(&mut self, data: &Bytes) {
        if data.is_empty() {
            return; // else a body of such would fill the list
        }
        let bytes = self.kept_bytes.saturating_add(data.len());
        match &mut self.kept {
            Some(kept) if bytes <= self.max_kept => {
                kept.push(data.clone());
                self.kept_bytes = bytes;
            }
            kept => *kept = None,
        }
    }
}

impl<B> Shared<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    fn poll_frame(
        &mut self,
        place: &Place,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ReplayError>>> {
        if self.is_lost_to(place) {
            return Poll::Ready(Some(Err(self.refusal(place))));
        }
        if let Some(chunk) = self.kept_after(place).first() {
            return Poll::Ready(Some(Ok(Frame::data(chunk.clone()))));
        }
        let Rest::Unread(body) = &mut self.rest else {
            let trailers = self.trailers.clone();
            return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
        };
        let Poll::Ready(frame) = body.as_mut().poll_frame(cx) else {
            self.wait(cx);
            return Poll::Pending;
        };
        Poll::Ready(self.read(frame))
    }

    /// Keeps what the body inside yielded.
    fn read(
        &mut self,
        frame: Option<Result<Frame<B::Data>, B::Error>>,
    ) -> Option<Result<Frame<Bytes>, ReplayError>> {
        match frame {
            Some(Ok(frame)) => {
                let frame = frame.map_data(|mut data| data.copy_to_bytes(data.remaining()));
                if let Some(data) = frame.data_ref() {
                    self.keep(data);
                }
                if let Some(trailers) = frame.trailers_ref() {
                    self.trailers = Some(trailers.clone());
                    self.rest = Rest::Nothing;
                }
                Some(Ok(frame))
            }
            Some(Err(error)) => {
                let error = ReplayError::failed(error);
                self.rest = Rest::Failed(error.clone());
                Some(Err(error))
            }
            None => {
                self.rest = Rest::Nothing;
                None
            }
        }
    }

    fn is_at_end(&self, place: &Place) -> bool {
        let past_kept = !self.is_lost_to(place) && self.kept_after(place).is_empty();
        past_kept
            && match &self.rest {
                Rest::Unread(body) => body.is_end_stream(),
                Rest::Nothing => self.trailers.is_none(),
                Rest::Failed(_) => false,
            }
    }

    fn size_hint(&self, place: &Place) -> SizeHint {
        if self.is_lost_to(place) {
            return SizeHint::default();
        }
        // An attempt promises what the first one did, even where the body then broke the promise.
        if let Some(length) = self.length {
            return SizeHint::with_exact(length.saturating_sub(place.bytes));
        }
        let kept = self
            .kept_after(place)
            .iter()
            .map(|chunk| chunk.len() as u64)
            .sum(); // fits: it is in memory
        let mut hint = SizeHint::new();
        match &self.rest {
            Rest::Unread(body) => {
                let rest = body.size_hint();
                hint.set_lower(rest.lower().saturating_add(kept));
                if let Some(upper) = rest.upper().and_then(|upper| upper.checked_add(kept)) {
                    hint.set_upper(upper);
                }
            }
            // With an exact length HTTP/1.1 has no trailers.
            Rest::Nothing if self.trailers.is_some() => hint.set_lower(kept),
            Rest::Nothing | Rest::Failed(_) => hint.set_exact(kept),
        }
        hint
    }
}

/// Only the body inside can have panicked under the lock; then it is not polled again.
fn lock<B>(shared: &Mutex<Shared<B>>) -> MutexGuard<'_, Shared<B>> {
    shared.lock().unwrap_or_else(|poisoned| {
        let mut shared = poisoned.into_inner();
        if matches!(shared.rest, Rest::Unread(_)) {
            shared.rest = Rest::Failed(ReplayError::panicked());
        }
        shared
    })
}
