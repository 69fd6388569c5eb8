//! Sends a request again when that is safe and worth it.

use std::{
    mem,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderMap, HeaderName, Request, Response};
use http_body::Body;
use tokio::time::Instant;
use tower::{BoxError, Layer, Service};

mod backoff;
mod classify;
mod cloning;
mod discarded;
mod error;
mod future;
mod kept;
mod outcome;
mod progress;
mod quota;
mod replay;
#[cfg(test)]
mod tests;

use self::{
    backoff::Backoff,
    kept::{CloneBody, Kept},
    outcome::Rules,
    progress::Progress,
    quota::Quota,
};
pub use self::{
    cloning::{CloningRetry, CloningRetryService},
    error::{AttemptsFailed, DeadlinePassed},
    future::ResponseFuture,
    outcome::{AttemptEnd, Outcome},
    replay::RetryBody,
};
use crate::{
    headers::date::Wall,
    idempotency_key::IdempotencyKey,
    logical::{Deadline, LogicalRequest, MaxAttempts},
    plan::Plan,
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
/// An outage is not made worse: each retry pays into a quota that all services of one layer share, 14 after an ambiguous
/// outcome or a failed connection, 5 after a 429. A retry that succeeds gets its price back, a request that succeeds at once
/// brings 1. When too little is left, the caller gets the last answer or error at once, without a sleep.
///
/// The deadline starts with `call`: a wait in `poll_ready` before the first attempt is not counted, every later wait is;
/// with a `buffer` between this layer and a rate limit, the wait for a token is counted.
///
/// [`Deadline`] and [`MaxAttempts`] in a request's extensions take the place of the
/// layer's own. No request with a key is sent later than 23 hours after its first attempt: servers know a key for 24. The
/// layer needs a tokio runtime with time enabled.
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
    settings: Arc<Settings>,
}

#[derive(Clone, Debug)]
struct Settings {
    attempts: u32,
    deadline: Duration,
    backoff: Backoff,
    rules: Rules,
    quota: Arc<Quota>,
    /// Whether the user chose the quota.
    own_quota: bool,
    key_in_span: bool,
    wall: Wall,
}

impl PlotonRetry {
    /// 4 attempts within 150 s.
    pub fn new() -> Self {
        Self {
            settings: Arc::new(Settings {
                attempts: 4,
                // A window is a minute: waiting out one, and what is tried before and after, must be possible.
                deadline: Duration::from_secs(150),
                backoff: Backoff::default(),
                rules: Rules::default(),
                quota: Arc::new(Quota::new(quota::DEFAULT_CAPACITY)),
                own_quota: false,
                key_in_span: true,
                wall: Wall::anchored(),
            }),
        }
    }

    fn with(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(Arc::make_mut(&mut self.settings));
        self
    }

    /// How often a request is sent at the most, the first time included; 0 counts as 1. Default: 4.
    pub fn attempts(self, attempts: u32) -> Self {
        self.with(|settings| settings.attempts = attempts)
    }

    /// The time from the call within which an answer must have come, all attempts and delays included. Default: 150 s.
    pub fn deadline(self, deadline: Duration) -> Self {
        self.with(|settings| settings.deadline = deadline)
    }

    /// The longest wait asked for by the server that is waited for; an answer that asks for more is handed back at once.
    /// Default: 120 s.
    pub fn max_hint(self, longest: Duration) -> Self {
        self.with(|settings| settings.backoff.max_hint = longest)
    }

    /// The bound of the first delay where the server named none; it doubles with each retry. After a 429 it is at least
    /// 1 s. Default: 100 ms.
    pub fn base_delay(self, base: Duration) -> Self {
        self.with(|settings| settings.backoff.base = base)
    }

    /// The longest delay where the server named none. Default: 20 s.
    pub fn max_delay(self, longest: Duration) -> Self {
        self.with(|settings| settings.backoff.cap = longest)
    }

    /// Waits exactly as long as the server asks for, or as the bound says where it names no wait. Without jitter, clients
    /// that failed together come back together: this is for tests. Default: with jitter.
    pub fn without_jitter(self) -> Self {
        self.with(|settings| settings.backoff.jitter = false)
    }

    /// The capacity of the quota that all retries of this layer's services share: 35 retries after ambiguous outcomes use
    /// up 500. With 0 nothing is sent again; [`u32::MAX`] is as good as no quota. Clones made before keep the quota that
    /// they had. Default: 500, in a [`PlotonStack`](crate::PlotonStack) what fits its [plan](Self::plan).
    pub fn quota(self, capacity: u32) -> Self {
        self.with_quota(Quota::new(capacity))
    }

    /// A [quota](Self::quota) that fits `plan`: twice its requests a minute, at least 200 and at most 500.
    pub fn plan(self, plan: Plan) -> Self {
        self.with_quota(Quota::for_plan(plan))
    }

    fn with_quota(self, quota: Quota) -> Self {
        self.with(|settings| {
            settings.quota = Arc::new(quota);
            settings.own_quota = true;
        })
    }

    /// [`plan`](Self::plan), where the user named no quota.
    pub(crate) fn plan_by_default(self, plan: Plan) -> Self {
        if self.settings.own_quota {
            return self;
        }
        self.with(|settings| settings.quota = Arc::new(Quota::for_plan(plan)))
    }

    /// Takes the end of an attempt for what `classify` says, which is shown what the layer itself takes it for.
    ///
    /// `classify` can make anything final, and final answers worth another attempt. It can't make an attempt that may have
    /// been processed one that was not: [`Outcome::NotSent`] and [`Outcome::Refused`] are believed of 4xx answers and of
    /// errors before anything was sent, else they count as [`Outcome::Ambiguous`]. A POST without a key is therefore still
    /// sent once where it may have been processed, unless [`repeat_without_key`](Self::repeat_without_key) says otherwise.
    ///
    /// ```
    /// use tower_ploton::{PlotonRetry, retry::{AttemptEnd, Outcome}};
    ///
    /// // A gateway's own code for "the origin timed out", and a 503 that means "closed for good".
    /// let retry = PlotonRetry::new().classify_with(|end: &AttemptEnd<'_>| match end.status() {
    ///     Some(status) if status.as_u16() == 524 => Outcome::Ambiguous,
    ///     Some(status) if status.as_u16() == 503 => Outcome::Final,
    ///     _ => end.outcome(),
    /// });
    /// # drop(retry);
    /// ```
    pub fn classify_with(
        self,
        classify: impl Fn(&AttemptEnd<'_>) -> Outcome + Send + Sync + 'static,
    ) -> Self {
        self.with(|settings| settings.rules.hook = Some(Arc::new(classify)))
    }

    /// Tells by an answer's headers that a 409 means "a request with this idempotency key is in progress": it is then asked
    /// again, with the same key, for that request's answer. By default a 409 is a conflict, and final.
    pub fn in_progress_when(
        self,
        is_in_progress: impl Fn(&HeaderMap) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.with(|settings| settings.rules.in_progress = Some(Arc::new(is_in_progress)))
    }

    /// The header that says `true` on an answer that was stored for an idempotency key. A 5xx with it is final: asking
    /// again would fetch the same. Default: `Idempotent-Replayed`.
    pub fn stored_answer_header(self, name: HeaderName) -> Self {
        self.with(|settings| settings.rules.stored_answer = name)
    }

    /// Whether a request that is neither idempotent nor has a key is sent again although it may have been processed, and so
    /// may be processed twice. Default: `false`.
    pub fn repeat_without_key(self, repeated: bool) -> Self {
        self.with(|settings| settings.rules.repeat_without_key = repeated)
    }

    /// Whether the idempotency key is a field of the request's tracing span, as `ploton.idempotency_key`; by default it
    /// is. [`PlotonIdempotency`](crate::PlotonIdempotency) inside this layer has a
    /// [switch](crate::PlotonIdempotency::key_in_span) of its own.
    pub fn key_in_span(self, recorded: bool) -> Self {
        self.with(|settings| settings.key_in_span = recorded)
    }

    /// The layer for bodies that have a `try_clone` of their own, or need another one than
    /// [`RetryBody`]'s: `clone` makes another body with the same content, or `None` where there is none, and then the
    /// request is sent once.
    ///
    /// ```
    /// use http::{Request, Response};
    /// use tower::{ServiceBuilder, ServiceExt, service_fn};
    /// use tower_ploton::PlotonRetry;
    ///
    /// /// A body of another crate: not `Clone`.
    /// struct Foreign(Vec<u8>);
    ///
    /// impl Foreign {
    ///     fn try_clone(&self) -> Option<Self> {
    ///         Some(Self(self.0.clone()))
    ///     }
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower::BoxError> {
    /// let service = ServiceBuilder::new()
    ///     .layer(PlotonRetry::new().clone_body_with(Foreign::try_clone))
    ///     .service(service_fn(async |request: Request<Foreign>| {
    ///         assert_eq!(request.body().0, b"whole");
    ///         Response::builder().status(503).body(String::new())
    ///     }));
    /// let request = Request::put("https://api.ploton.ai/v1/tasks").body(Foreign(b"whole".to_vec()))?;
    /// assert_eq!(service.oneshot(request).await?.status(), 503);
    /// # Ok(())
    /// # }
    /// ```
    pub fn clone_body_with<B>(
        self,
        clone: impl Fn(&B) -> Option<B> + Send + Sync + 'static,
    ) -> CloningRetry<B> {
        CloningRetry::new(self, Arc::new(clone))
    }

    /// Shows the quota that the layer's services share; works before and after services were made.
    #[must_use]
    pub fn handle(&self) -> RetryHandle {
        RetryHandle {
            quota: self.settings.quota.clone(),
        }
    }

    /// Sends `request` by `inner`, which is ready.
    fn start<S, B, R>(
        &self,
        inner: &mut S,
        mut request: Request<B>,
        clone_body: CloneBody<B>,
    ) -> ResponseFuture<S, B, R>
    where
        S: Service<Request<B>, Response = Response<R>> + Clone,
    {
        let now = Instant::now();
        let most_attempts = self.settings.attempts_of(&request);
        let deadline = self.settings.deadline_of(&request, now);
        let repeatable =
            classify::is_idempotent(request.method()) || IdempotencyKey::is_in(request.headers());
        if most_attempts > 1 && !repeatable {
            // An idempotency layer inside this one then mints one key, not one per attempt, and says so here.
            LogicalRequest::get_or_insert(request.extensions_mut()).deadline = deadline;
        }
        let kept = Kept::of(&request, most_attempts > 1, clone_body);
        let span = progress::span(&request, self.settings.key_in_span);
        let settings = self.settings.clone();
        let mut progress = Progress::new(kept, settings, most_attempts, now, deadline, span);
        let not_ready = inner.clone();
        let mut ready = mem::replace(inner, not_ready);
        let first = progress.send_first(request, |request| ready.call(request));
        ResponseFuture::new(first, ready, progress)
    }
}

impl Settings {
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

/// Shows the quota of a [`PlotonRetry`].
#[derive(Clone, Debug)]
pub struct RetryHandle {
    quota: Arc<Quota>,
}

impl RetryHandle {
    /// What is left of the quota.
    #[must_use]
    pub fn quota_left(&self) -> u32 {
        self.quota.left()
    }

    /// The most that the quota holds.
    #[must_use]
    pub fn quota_capacity(&self) -> u32 {
        self.quota.capacity()
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
        let own = CloneBody::own();
        self.layer.start(&mut self.inner, request, own)
    }
}
