//! Sends a request again when that is safe and worth it.

use std::{
    mem,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response};
use http_body::Body;
use tokio::time::Instant;
use tower::{BoxError, Layer, Service};

mod backoff;
mod classify;
mod discarded;
mod error;
mod future;
mod kept;
mod replay;
#[cfg(test)]
mod tests;

use self::{backoff::Backoff, future::Progress, kept::Kept};
pub use self::{
    error::{AttemptsFailed, DeadlinePassed},
    future::ResponseFuture,
    replay::RetryBody,
};
use crate::{
    headers::date::Wall,
    idempotency_key::IdempotencyKey,
    logical::{Deadline, LogicalRequest, MaxAttempts},
};

/// Tries again when it is safe and worth it: no earlier than `Retry-After`, with jitter, within a deadline.
///
/// | outcome | examples | tried again |
/// |---|---|---|
/// | not sent | connect error, refused stream, connection closed before the request left | any method |
/// | refused | 429 | any method |
/// | ambiguous | 408, 500, 502, 503, 504, timeout, reset, incomplete response | idempotent methods, and any request with an `Idempotency-Key` |
/// | final | every other status, a TLS or URI error, a 5xx with `Idempotent-Replayed: true` | never |
///
/// A POST without a key is therefore never repeated where it may have been processed:
/// [`PlotonIdempotency`](crate::PlotonIdempotency), outside this layer or inside it, gives it one.
///
/// The next attempt waits for `Retry-After` ([RFC 9110, 10.2.3](https://www.rfc-editor.org/rfc/rfc9110#section-10.2.3)) and
/// up to a fifth more, else for a random time below a bound that doubles. When attempts are exhausted, the server asks for
/// more than [`max_hint`](Self::max_hint), or the deadline leaves no room for the delay, the caller gets the last answer
/// at once, body intact, with the story of its [`Attempts`](crate::Attempts) in its extensions. A first answer that is 2xx
/// carries nothing.
///
/// The deadline starts with `call`: a wait in `poll_ready` before the first attempt is not counted, every later wait is;
/// with a `buffer` between this layer and a rate limit, the wait for a token is counted.
///
/// [`Deadline`] and [`MaxAttempts`] in a request's extensions take the place of the
/// layer's own. The layer needs a tokio runtime with time enabled.
///
/// # Errors
///
/// The service's error is a [`BoxError`]. After one attempt it is the inner service's own; after more it is
/// [`AttemptsFailed`], with the last one as its source. [`DeadlinePassed`] says that the deadline came first.
///
/// # Example
///
/// ```
/// use std::convert::Infallible;
/// use http::{Request, Response, StatusCode};
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
/// use tower_ploton::{Attempts, PlotonRetry};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), tower::BoxError> {
/// let service = ServiceBuilder::new()
///     .layer(PlotonRetry::new().attempts(3))
///     .service(service_fn(async |_: Request<String>| {
///         Response::builder().status(StatusCode::SERVICE_UNAVAILABLE).body(String::new())
///     }));
///
/// let request = Request::get("https://api.ploton.ai/v1/tasks").body(String::new())?;
/// let response = service.oneshot(request).await?;
/// assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
/// assert_eq!(response.extensions().get::<Attempts>().unwrap().made(), 3);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "a layer does nothing until a service is made with it"]
pub struct PlotonRetry {
    attempts: u32,
    deadline: Duration,
    backoff: Backoff,
    key_in_span: bool,
    wall: Wall,
}

impl PlotonRetry {
    /// 4 attempts within 150 s.
    pub fn new() -> Self {
        Self {
            attempts: 4,
            // A window is a minute: waiting out one, and what is tried before and after, must be possible.
            deadline: Duration::from_secs(150),
            backoff: Backoff::default(),
            key_in_span: true,
            wall: Wall::anchored(),
        }
    }

    /// How often a request is sent at the most, the first time included; 0 counts as 1. Default: 4.
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts;
        self
    }

    /// The time from the call within which an answer must have come, all attempts and delays included. Default: 150 s.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// The longest `Retry-After` that is waited for; an answer that asks for more is handed back at once. Default: 120 s.
    pub fn max_hint(mut self, longest: Duration) -> Self {
        self.backoff.max_hint = longest;
        self
    }

    /// The bound of the first delay where the server named none; it doubles with each retry. After a 429 it is at least
    /// 1 s. Default: 100 ms.
    pub fn base_delay(mut self, base: Duration) -> Self {
        self.backoff.base = base;
        self
    }

    /// The longest delay where the server named none. Default: 20 s.
    pub fn max_delay(mut self, longest: Duration) -> Self {
        self.backoff.cap = longest;
        self
    }

    /// Whether the idempotency key is a field of the request's tracing span, as `ploton.idempotency_key`; by default it
    /// is. [`PlotonIdempotency`](crate::PlotonIdempotency) inside this layer has a
    /// [switch](crate::PlotonIdempotency::key_in_span) of its own.
    pub fn key_in_span(mut self, recorded: bool) -> Self {
        self.key_in_span = recorded;
        self
    }

    fn attempts_of<B>(&self, request: &Request<B>) -> u32 {
        let own = request.extensions().get::<MaxAttempts>();
        own.map_or(self.attempts, |most| most.0.get()).max(1)
    }

    /// The deadline of a request that is called at `now`; `None` where it is beyond every clock.
    fn deadline_of<B>(&self, request: &Request<B>, now: Instant) -> Option<Instant> {
        match request.extensions().get::<Deadline>() {
            Some(own) => Some(own.0),
            None => now.checked_add(self.deadline),
        }
    }
}

impl Default for PlotonRetry {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> Layer<S> for PlotonRetry {
    type Service = RetryService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        RetryService {
            inner,
            layer: self.clone(),
        }
    }
}

/// The service that [`PlotonRetry`] makes.
#[derive(Clone, Debug)]
pub struct RetryService<S> {
    inner: S,
    layer: PlotonRetry,
}

impl<S, B, R> Service<Request<B>> for RetryService<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    S::Error: Into<BoxError>,
    B: RetryBody,
    R: Body,
{
    type Response = Response<R>;
    type Error = BoxError;
    type Future = ResponseFuture<S, B, R>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let now = Instant::now();
        let most = self.layer.attempts_of(&request);
        let deadline = self.layer.deadline_of(&request, now);
        let idempotent = classify::is_idempotent(request.method());
        if most > 1 && !idempotent && !IdempotencyKey::is_in(request.headers()) {
            // An idempotency layer inside this one then mints one key, not one per attempt, and says so here.
            let extensions = request.extensions_mut();
            extensions.get_or_insert_with(LogicalRequest::default);
        }
        let kept = Kept::of(&request, most);
        let span = future::span(&request, self.layer.key_in_span);
        let not_ready = self.inner.clone();
        let mut ready = mem::replace(&mut self.inner, not_ready);
        let progress = Progress::new(kept, self.layer.clone(), now, deadline, span);
        let first = progress.send(now, || ready.call(request));
        ResponseFuture::new(first, ready, progress)
    }
}
