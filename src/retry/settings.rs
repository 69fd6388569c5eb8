//! What a retry layer can be told.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName, Request};
use tokio::time::Instant;

use super::{
    AttemptEnd, CloningRetry, Outcome, PlotonRetry, RetryHandle,
    backoff::Backoff,
    outcome::Rules,
    quota::{self, Quota},
};
use crate::{
    headers::date::Wall,
    idempotency_key::{IdempotencyKey, KEY_LIFE},
    logical::{Deadline, MaxAttempts},
    plan::Plan,
};

#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) attempts: u32,
    pub(super) deadline: Duration,
    pub(super) backoff: Backoff,
    pub(super) rules: Rules,
    pub(super) quota: Arc<Quota>,
    /// Whether the user chose the quota.
    pub(super) own_quota: bool,
    pub(super) key_in_span: bool,
    pub(super) wall: Wall,
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

    pub(super) fn with(mut self, change: impl FnOnce(&mut Settings)) -> Self {
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

    /// Whether the idempotency key, whoever made it, is a field of the request's tracing span, as `ploton.idempotency_key`;
    /// by default it is. [`PlotonIdempotency`](crate::PlotonIdempotency) inside this layer has a
    /// [switch](crate::PlotonIdempotency::key_in_span) of its own, for the spans of the attempts.
    pub fn key_in_span(self, recorded: bool) -> Self {
        self.with(|settings| settings.key_in_span = recorded)
    }

    /// The layer for bodies that have a `try_clone` of their own, or need another one than that of
    /// [`RetryBody`](super::RetryBody): `clone` makes another body with the same content, or `None` where there is none,
    /// and then the request is sent once.
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
}

impl Settings {
    pub(super) fn attempts_of<B>(&self, request: &Request<B>) -> u32 {
        let own = request.extensions().get::<MaxAttempts>();
        own.map_or(self.attempts, |most| most.0.get()).max(1)
    }

    /// How old the key of a request is that is called at `now`, as far as that is known.
    pub(super) fn key_age_of<B>(&self, request: &Request<B>, now: Instant) -> Duration {
        IdempotencyKey::meant_by(request.method(), request.headers(), request.extensions())
            .map_or(Duration::ZERO, |key| key.age(&self.wall, now))
    }

    /// The deadline of a request that is called at `now` with a key of that age; `None` where it is beyond every clock.
    pub(super) fn deadline_of<B>(
        &self,
        request: &Request<B>,
        key_age: Duration,
        now: Instant,
    ) -> Option<Instant> {
        let deadline = match request.extensions().get::<Deadline>() {
            Some(own) => Some(own.0),
            None => now.checked_add(self.deadline),
        };
        // With a key that was used before, a first attempt is a repetition too.
        let left = (!key_age.is_zero()).then(|| KEY_LIFE.saturating_sub(key_age));
        let death = left.and_then(|left| now.checked_add(left));
        deadline.into_iter().chain(death).min()
    }
}
