//! Sends a request again when that is safe and worth it.

use std::{
    mem,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use http_body::Body;
use tokio::time::Instant;
use tower::{BoxError, Layer, Service};

mod backoff;
mod classify;
mod cloning;
mod discarded;
mod error;
mod events;
mod future;
mod headers;
mod kept;
mod outcome;
mod progress;
mod quota;
mod replay;
mod settings;
mod spans;
#[cfg(test)]
mod tests;

#[cfg(feature = "reqwest")]
pub(crate) use self::replay::DEFAULT_MAX_KEPT;
pub use self::{
    cloning::{CloningRetry, CloningRetryService},
    error::{AttemptsFailed, DeadlinePassed, KeyExpired},
    future::ResponseFuture,
    outcome::{AttemptEnd, Outcome},
    quota::RetryHandle,
    replay::{
        MapReplay, MapReplayService, PlotonReplay, ReplayBody, ReplayError, ReplayService,
        RetryBody,
    },
};
use self::{
    events::Told,
    kept::{CloneBody, Kept},
    progress::{Call, Progress},
    settings::Settings,
};
use crate::{
    fate::Fate,
    idempotency_key::{IdempotencyKey, KEY_LIFE},
    logical::LogicalRequest,
};

/// Tries again when it is safe and worth it: no earlier than `Retry-After`, with jitter, within a deadline.
///
/// | outcome | examples | tried again |
/// |---|---|---|
/// | not sent | connect error, refused stream, connection closed before the request left, shed by tower's `load_shed` | any method |
/// | refused | 429 | any method |
/// | ambiguous | 408, 500, 502, 503, 504, timeout, reset, incomplete response | idempotent methods, and any request with an `Idempotency-Key` |
/// | unauthorized | 401, where [`PlotonAuth`](crate::PlotonAuth) inside this layer has another API key by now | any method, once and at once |
/// | final | every other status, a TLS or URI error, a 5xx with `Idempotent-Replayed: true` | never |
///
/// A POST without a key is therefore never repeated where it may have been processed:
/// [`PlotonIdempotency`](crate::PlotonIdempotency), outside this layer or inside it, gives it one.
///
/// The next attempt waits for as long as the server asks for and up to a fifth more (counted as 250 ms at least, 5 s at
/// most), else for a random time below a bound that doubles. The server asks in the first of these headers that says
/// anything: `retry-after-ms`; `Retry-After` ([RFC 9110, 10.2.3](https://www.rfc-editor.org/rfc/rfc9110#section-10.2.3)),
/// in seconds, with a fraction, as a date or an epoch; `RateLimit`, of any IETF draft; `X-RateLimit-Reset`, the last two
/// on a 429 or where nothing remains. Dates are read against the answer's own `Date`. Zero, past and unreadable values
/// say nothing, nor do those of a limit that are repeated; of several `Retry-After`, or several `retry-after-ms`, the
/// longest counts. When attempts are exhausted, the server asks for more than [`max_hint`](Self::max_hint), or the deadline
/// leaves no room for the delay, the caller gets the last answer at once, body intact, with the story of its
/// [`Attempts`](crate::Attempts) in its extensions. An answer that is 2xx carries nothing.
///
/// An outage is not made worse: each retry pays into a quota that all services of one layer share, 14 after an ambiguous
/// outcome or a failed connection, 5 after a 429. A retry that succeeds gets its price back, a request that succeeds at once
/// brings 1. When too little is left, the caller gets the last answer or error at once, without a sleep.
///
/// The deadline starts with `call`: a wait in `poll_ready` before the first attempt is not counted, every later wait is;
/// with a `buffer` between this layer and a rate limit, the wait for a token is counted.
///
/// [`Deadline`](crate::Deadline) and [`MaxAttempts`](crate::MaxAttempts) in a request's extensions take the place of the
/// layer's own. No request with a key is sent later than 23 hours after the
/// [key's first use](crate::IdempotencyKey#age), not even a first time: servers know a key for 24. The layer needs a tokio
/// runtime with time enabled.
///
/// # Errors
///
/// The service's error is a [`BoxError`]. After one attempt it is the inner service's own; after more it is
/// [`AttemptsFailed`], with the last one as its source. [`DeadlinePassed`] says that the deadline came first, [`KeyExpired`] that
/// the request was not sent at all, as its key is too old.
///
/// # Bounds
///
/// - The request's body is a [`RetryBody`], as every `Clone` one is: once sent, a body is gone. Others come in through
///   [`PlotonReplay`], or are cloned by [`clone_body_with`](Self::clone_body_with).
/// - The answer's body is a [`Body`]: what is left of an answer that is not handed back is read, so that its connection can
///   be used again.
/// - The inner service is `Clone`: one clone goes along with each request, to send it again. One that can't be cloned
///   comes in through tower's `buffer`.
/// - Its error is `Into<BoxError>`: what went wrong is told by an error's sources. Another is made one by `map_err` inside.
///
/// Nothing need be `Unpin` or `'static`; `Send` and `Sync` are what this layer's future is to be.
///
/// A layer inside that repeats requests by itself shows the end of its last attempt alone. Let requests have an idempotency
/// key there, or one that was cut and then found no connection is taken for one that never left.
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
    settings: Arc<Settings>,
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

    fn call(&mut self, request: Request<B>) -> Self::Future {
        self.call_at(Instant::now(), request, false)
    }
}

impl<S> RetryService<S> {
    /// Sends `request` at `now`. `has_key` where an idempotency layer was here already.
    pub(crate) fn call_at<B, R>(
        &mut self,
        now: Instant,
        request: Request<B>,
        has_key: bool,
    ) -> ResponseFuture<S, B, R>
    where
        S: Service<Request<B>, Response = Response<R>> + Clone,
        B: RetryBody,
    {
        let own = CloneBody::own();
        self.layer
            .start(&mut self.inner, now, request, has_key, own)
    }
}

impl PlotonRetry {
    /// Sends `request` at `now` by `inner`, which is ready.
    fn start<S, B, R>(
        &self,
        inner: &mut S,
        now: Instant,
        mut request: Request<B>,
        has_key: bool,
        clone_body: CloneBody<B>,
    ) -> ResponseFuture<S, B, R>
    where
        S: Service<Request<B>, Response = Response<R>> + Clone,
    {
        let most_attempts = self.settings.attempts_of(&request);
        let key_age = self.settings.key_age_of(&request, now);
        let deadline = self.settings.deadline_of(&request, key_age, now);
        let may_get_key = !has_key
            && !request.method().is_safe()
            && !IdempotencyKey::is_set_in(request.headers());
        if most_attempts > 1 && may_get_key {
            // An idempotency layer inside this one then mints one key, not one per attempt, and says so here.
            LogicalRequest::get_or_insert(request.extensions_mut()).deadline = deadline;
        }
        let kept = Kept::of(&request, most_attempts > 1, clone_body, key_age);
        let mut call = Call {
            settings: self.settings.clone(),
            most_attempts,
            started: now,
            deadline,
            pinned: LogicalRequest::of(request.extensions()).and_then(|logical| logical.pinned),
            told: Told::begins(&request, self.settings.key_in_span, now),
        };
        let fate = Fate::of(request.extensions());
        fate.inspect(|fate| fate.watch());
        // Only a key that is known has an age.
        if deadline.is_some_and(|deadline| deadline <= now) || key_age >= KEY_LIFE {
            // The inner service's readiness is given back: the clone has none.
            let not_ready = inner.clone();
            let ready = mem::replace(inner, not_ready);
            return ResponseFuture::too_late(ready, Progress::new(kept, call, 0));
        }
        fate.inspect(|fate| fate.sent());
        call.told.attempt_begins(&request, 0);
        let response = {
            let _entered = call.told.enter_attempt();
            inner.call(request)
        };
        ResponseFuture::sent(response, inner.clone(), Progress::new(kept, call, 1))
    }
}
