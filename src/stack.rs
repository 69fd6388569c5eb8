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

use crate::{
    auth::{AuthService, PlotonAuth},
    idempotency::{self, IdempotencyService, PlotonIdempotency},
    key::ApiKey,
    limit::{PlotonRateLimit, RateLimitHandle, RateLimitService},
    origin::Origin,
    plan::Plan,
    retry::{self, PlotonRetry, RetryBody, RetryHandle, RetryService},
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
    attempt_timeout: Duration,
    plan: Plan,
    /// `Some` where the layers' own origins do not count.
    origin: Option<Origin>,
}

impl PlotonStack {
    /// The four layers with their defaults.
    pub fn new(key: ApiKey, plan: Plan) -> Self {
        Self {
            idempotency: PlotonIdempotency::new(),
            retry: PlotonRetry::new().plan(plan),
            rate_limit: PlotonRateLimit::new(plan),
            auth: PlotonAuth::new(key),
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
        let limited = match self.origin.clone() {
            None => self.rate_limit.layer(self.auth.layer(timed)),
            Some(origin) => {
                let auth = self.auth.clone().origin(origin.clone());
                let rate_limit = self.rate_limit.clone().origin(origin);
                rate_limit.layer(auth.layer(timed))
            }
        };
        StackService {
            inner: self.idempotency.layer(self.retry.layer(limited)),
        }
    }
}

/// The service that [`PlotonStack`] makes.
#[derive(Clone, Debug)]
pub struct StackService<S> {
    inner: IdempotencyService<RetryService<Limited<S>>>,
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
    {
        #[pin]
        response: idempotency::ResponseFuture<retry::ResponseFuture<Limited<S>, B, R>>,
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
    use tower::{ServiceExt, service_fn};

    use super::*;

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
}
