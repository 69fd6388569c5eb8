//! The four layers in their recommended order, as one.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tower::{BoxError, Layer, Service};

mod keyed;

use self::keyed::Keyed;
use crate::{
    auth::{AuthService, KeyHandle, PlotonAuth},
    idempotency::PlotonIdempotency,
    limit::{PlotonRateLimit, RateLimitHandle, RateLimitService},
    origin::Origin,
    plan::Plan,
    retry::{PlotonRetry, RetryBody, RetryHandle},
    tasks::{self, PlotonTaskLimit, TaskLimitService},
    timeout::Timeout,
};

/// All four layers in their recommended order, and a timeout for each attempt, as one layer.
///
/// From the outside in: [`PlotonIdempotency`], so that a key stays the same for all attempts; [`PlotonRetry`];
/// [`PlotonRateLimit`], so that each attempt pays for itself; [`PlotonAuth`], so that a request that waited is sent with
/// the key in force; a timeout of 30 s until the answer's head.
///
/// # Errors
///
/// As those of the layers: a [`BoxError`] to downcast. An attempt that took too long counts as
/// ambiguous, and is repeated as such.
///
/// # Bounds
///
/// Those of [`PlotonRetry`](PlotonRetry#bounds), the strictest of the layers. Services and futures, of all layers, are
/// `Send`, `Sync` and `Unpin` where what is inside them is.
///
/// # Example
///
/// ```
/// use http::{Request, Response};
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
/// use tower_ploton::{ApiKey, Plan, PlotonStack};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), tower::BoxError> {
/// let key = ApiKey::parse("pk_test_4f9d0c2b7a6e1583")?;
/// let service = ServiceBuilder::new()
///     .layer(PlotonStack::new(key, Plan::Production))
///     .service(service_fn(async |request: Request<String>| {
///         assert!(request.headers().contains_key("authorization"));
///         assert!(request.headers().contains_key("idempotency-key"));
///         Response::builder().status(201).body(String::new())
///     }));
///
/// let request = Request::post("https://api.ploton.ai/v1/tasks").body("{}".to_owned())?;
/// assert_eq!(service.oneshot(request).await?.status(), 201);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "a layer does nothing until a service is made with it"]
pub struct PlotonStack {
    idempotency: PlotonIdempotency,
    retry: PlotonRetry,
    rate_limit: PlotonRateLimit,
    auth: PlotonAuth,
    tasks: Option<PlotonTaskLimit>,
    attempt_timeout: Duration,
    plan: Plan,
    /// `Some` where the layers' own origins do not count.
    origin: Option<Origin>,
}

impl PlotonStack {
    /// The four layers with their defaults. `auth` is an [`ApiKey`](crate::ApiKey), or an auth layer whose keys come from
    /// [somewhere else](PlotonAuth::from_source).
    pub fn new(auth: impl Into<PlotonAuth>, plan: Plan) -> Self {
        Self {
            idempotency: PlotonIdempotency::new(),
            retry: PlotonRetry::new().plan(plan),
            rate_limit: PlotonRateLimit::new(plan),
            auth: auth.into(),
            tasks: None,
            attempt_timeout: Duration::from_secs(30),
            plan,
            origin: None,
        }
    }

    /// The origin that gets the key and is limited, in the place of `https://api.ploton.ai` and of what the layers
    /// themselves name.
    pub fn origin(mut self, origin: Origin) -> Self {
        self.origin = Some(origin);
        self
    }

    /// How long an attempt may take until the head of its answer. Default: 30 s.
    pub fn attempt_timeout(mut self, timeout: Duration) -> Self {
        self.attempt_timeout = timeout;
        self
    }

    /// Another retry layer in the place of the default one. Where it names no [quota](PlotonRetry::quota), it gets one that
    /// fits the plan and is this stack's alone.
    pub fn retry(mut self, retry: PlotonRetry) -> Self {
        self.retry = retry.plan_by_default(self.plan);
        self
    }

    /// Another rate limit in the place of the plan's, for example one that is shared with another stack.
    pub fn rate_limit(mut self, rate_limit: PlotonRateLimit) -> Self {
        self.rate_limit = rate_limit;
        self
    }

    /// Another auth layer in the place of the one for the key.
    pub fn auth(mut self, auth: PlotonAuth) -> Self {
        self.auth = auth;
        self
    }

    /// Another idempotency layer in the place of the default one.
    pub fn idempotency(mut self, idempotency: PlotonIdempotency) -> Self {
        self.idempotency = idempotency;
        self
    }

    /// Sets another key, and shows the one in force.
    #[must_use]
    pub fn key_handle(&self) -> KeyHandle {
        self.auth.key_handle()
    }

    /// A limit on the tasks that run at once, outermost: a request waits for its slot before anything else. Default: none.
    ///
    /// # Example
    ///
    /// ```
    /// use tower_ploton::{ApiKey, Plan, PlotonStack, PlotonTaskLimit};
    ///
    /// # fn main() -> Result<(), tower_ploton::InvalidApiKey> {
    /// let key = ApiKey::parse("pk_test_4f9d0c2b7a6e1583")?;
    /// let limit = PlotonTaskLimit::new(Plan::Production);
    /// let handle = limit.handle();
    /// let stack = PlotonStack::new(key, Plan::Production).tasks(limit);
    /// assert_eq!(handle.snapshot().capacity, 100);
    /// # Ok(())
    /// # }
    /// ```
    pub fn tasks(mut self, limit: PlotonTaskLimit) -> Self {
        self.tasks = Some(limit);
        self
    }

    /// Shows what is left of the retries' quota.
    #[must_use]
    pub fn retry_handle(&self) -> RetryHandle {
        self.retry.handle()
    }

    /// Shows what the limiter does.
    #[must_use]
    pub fn rate_limit_handle(&self) -> RateLimitHandle {
        self.rate_limit.handle()
    }
}

impl<S> Layer<S> for PlotonStack {
    type Service = StackService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        let timed = Timeout::new(inner, self.attempt_timeout);
        let tasks = self.tasks.clone();
        let tasks = match &self.origin {
            None => tasks,
            Some(origin) => tasks.map(|limit| limit.origin(origin.clone())),
        };
        let limited = match self.origin.clone() {
            None => self.rate_limit.layer(self.auth.layer(timed)),
            Some(origin) => {
                let auth = self.auth.clone().origin(origin.clone());
                let rate_limit = self.rate_limit.clone().origin(origin);
                rate_limit.layer(auth.layer(timed))
            }
        };
        let keyed = Keyed::new(self.retry.layer(limited), self.idempotency.clone());
        StackService {
            inner: TaskLimitService::new(keyed, tasks),
        }
    }
}

/// The service that [`PlotonStack`] makes.
#[derive(Clone, Debug)]
pub struct StackService<S> {
    inner: TaskLimitService<Keyed<Limited<S>>>,
}

/// What an attempt goes through.
type Limited<S> = RateLimitService<AuthService<Timeout<S>>>;

impl<S, B, R> Service<Request<B>> for StackService<S>
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
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        ResponseFuture {
            response: self.inner.call(request),
        }
    }
}

pin_project! {
    /// The future of [`StackService`]; dropping it cancels the request.
    #[derive(Debug)]
    pub struct ResponseFuture<S, B, R>
    where
        S: Service<Request<B>, Response = Response<R>>,
        S: Clone,
        S::Error: Into<BoxError>,
        B: RetryBody,
        R: Body,
    {
        #[pin]
        response: tasks::ResponseFuture<Keyed<Limited<S>>, B>,
    }
}

impl<S, B, R> Future for ResponseFuture<S, B, R>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    S::Error: Into<BoxError>,
    B: RetryBody,
    R: Body,
{
    type Output = Result<Response<R>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().response.poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future;

    use tokio::time::Instant;
    use tower::{ServiceExt, service_fn};

    use super::*;
    use crate::{
        key::ApiKey,
        logical::{Attempts, Deadline},
        retry::DeadlinePassed,
    };

    /// Calls `stack`, whose server never answers, and then does `meanwhile`. How long it took until the deadline was said to
    /// have passed, and how often the request was sent.
    async fn late(
        stack: PlotonStack,
        deadline: Option<Deadline>,
        meanwhile: impl FnOnce(&PlotonStack),
    ) -> (Duration, u32) {
        let mut service = stack.layer(service_fn(|_: Request<String>| {
            future::pending::<Result<Response<String>, BoxError>>()
        }));
        let mut request = Request::post("https://api.ploton.ai/v1/tasks")
            .body(String::new())
            .unwrap();
        if let Some(deadline) = deadline {
            request.extensions_mut().insert(deadline);
        }
        let start = Instant::now();
        service.ready().await.unwrap();
        meanwhile(&stack);
        let call = tokio::time::timeout(Duration::from_secs(3_600), service.call(request));
        let error = call.await.expect("a deadline").unwrap_err();
        let passed = error.downcast::<DeadlinePassed>().expect("a deadline");
        (
            Instant::now().duration_since(start),
            Attempts::made(passed.attempts()),
        )
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_holds_whatever_the_attempts_timeout() {
        let key = || ApiKey::parse("pk_test_4f9d0c2b7a6e1583").unwrap();
        let stack = || PlotonStack::new(key(), Plan::Production);
        let secs = Duration::from_secs;
        let timer = Duration::from_millis(2);

        // Before the attempt's timeout, and between that of the first and that of the second.
        let soon = Deadline(Instant::now() + secs(20));
        let (took, made) = late(stack(), Some(soon), |_| {}).await;
        assert!(took >= secs(20) && took <= secs(20) + timer, "{took:?}");
        assert_eq!(made, 1);
        let start = Instant::now();
        let second = Deadline(start + secs(40));
        let (took, made) = late(stack(), Some(second), |_| {}).await;
        assert!(took >= secs(40) && took <= secs(40) + timer, "{took:?}");
        assert_eq!(made, 2);

        // While the first attempt waits for its token, and has no timeout yet; and after it waited for long.
        for pause in [secs(140), secs(600)] {
            let (took, made) = late(stack(), None, |stack| {
                let until = Instant::now() + pause;
                stack.rate_limit_handle().pause_until(until);
            })
            .await;
            assert!(took >= secs(150) && took <= secs(150) + timer, "{took:?}");
            assert_eq!(made, 1);
        }
    }

    /// Sends one request to `origin` through `stack`; whether it got a key.
    async fn gets_the_key(stack: &PlotonStack, origin: &str) -> bool {
        let service = stack.layer(service_fn(async |request: Request<String>| {
            let has_key = request.headers().contains_key("authorization");
            Ok::<_, BoxError>(Response::new(has_key.to_string()))
        }));
        let request = Request::get(format!("{origin}/v1")).body(String::new());
        let response = service.oneshot(request.unwrap()).await.unwrap();
        response.body() == "true"
    }

    #[tokio::test(start_paused = true)]
    async fn the_stacks_origin_is_that_of_all_its_layers_in_whatever_order_they_are_set() {
        let key = || ApiKey::parse("pk_test_4f9d0c2b7a6e1583").unwrap();
        let plan = Plan::Production;
        let local = "http://127.0.0.1:8080";
        let origin = || Origin::parse(local).unwrap();
        let stack = || PlotonStack::new(key(), plan);
        let limit = || PlotonRateLimit::new(plan);
        let auth = || PlotonAuth::new(key());
        for stack in [
            stack().origin(origin()).rate_limit(limit()).auth(auth()),
            stack().rate_limit(limit()).auth(auth()).origin(origin()),
        ] {
            assert!(gets_the_key(&stack, local).await);
            assert_eq!(stack.rate_limit_handle().snapshot().remaining, 999);
            assert!(!gets_the_key(&stack, "https://api.ploton.ai").await);
            assert_eq!(stack.rate_limit_handle().snapshot().remaining, 999);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_stacks_origin_is_that_of_its_task_limit_too() {
        let origin = Origin::parse("http://127.0.0.1:8080").unwrap();
        let limit = PlotonTaskLimit::new(Plan::Production);
        let handle = limit.handle();
        let stack = PlotonStack::new(
            ApiKey::parse("pk_test_4f9d0c2b7a6e1583").unwrap(),
            Plan::Production,
        );
        let stack = stack.origin(origin).tasks(limit);
        let service = stack.layer(service_fn(async |_: Request<String>| {
            Ok::<_, BoxError>(Response::new(String::new()))
        }));
        for (origin, running) in [("https://api.ploton.ai", 0), ("http://127.0.0.1:8080", 1)] {
            let request = Request::post(format!("{origin}/v1/tasks")).body(String::new());
            service.clone().oneshot(request.unwrap()).await.unwrap();
            assert_eq!(handle.snapshot().running, running, "{origin}");
        }
    }
}
