//! The same jobs done by what is there today: tower-http's auth and header layers, tower's retry and timeout, governor.
#![allow(dead_code, reason = "no bench needs all of it")]

use std::{
    future::Future,
    num::NonZeroU32,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use http::{HeaderName, HeaderValue, Request, Response};
use tokio::time::Sleep;
use tower::{
    BoxError, Layer, Service, ServiceBuilder,
    retry::{
        Policy, RetryLayer,
        backoff::{Backoff, ExponentialBackoff, ExponentialBackoffMaker, MakeBackoff},
        budget::{Budget, TpsBudget},
    },
    timeout::TimeoutLayer,
    util::rng::HasherRng,
};
use tower_http::{auth::AddAuthorizationLayer, set_header::SetRequestHeaderLayer};

/// In the order of our own stack, around an inner service `S`.
pub(crate) fn layers<S, B, R>(
    key: &str,
) -> impl Layer<
    S,
    Service: Service<Request<B>, Response = Response<R>, Error = BoxError, Future: Send>
                 + Clone
                 + Send
                 + 'static,
>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    B: Clone + Send + 'static,
    R: Send + 'static,
{
    let name = HeaderName::from_static("idempotency-key");
    ServiceBuilder::new()
        .layer(SetRequestHeaderLayer::if_not_present(
            name,
            |_: &Request<B>| HeaderValue::try_from(uuid::Uuid::new_v4().to_string()).ok(),
        ))
        .layer(RetryLayer::new(Again::new()))
        .layer(GovernorLayer::new())
        .layer(AddAuthorizationLayer::bearer(key).as_sensitive(true))
        .layer(TimeoutLayer::new(Duration::from_secs(30)))
        .into_inner()
}

/// A policy as tower's documentation builds one: clones the request, backs off, keeps to a budget.
#[derive(Clone)]
pub(crate) struct Again {
    left: u32,
    backoff: ExponentialBackoff,
    budget: Arc<TpsBudget>,
}

impl Again {
    pub(crate) fn new() -> Self {
        let (least, most) = (Duration::from_millis(100), Duration::from_secs(20));
        let mut backoff = ExponentialBackoffMaker::new(least, most, 0.99, HasherRng::default())
            .expect("a range of delays");
        Self {
            left: 3,
            backoff: backoff.make_backoff(),
            budget: Arc::new(TpsBudget::default()),
        }
    }
}

impl<B: Clone, R> Policy<Request<B>, Response<R>, BoxError> for Again {
    type Future = Sleep;

    fn retry(
        &mut self,
        _: &mut Request<B>,
        result: &mut Result<Response<R>, BoxError>,
    ) -> Option<Sleep> {
        let done = |status: u16| !matches!(status, 408 | 429 | 500 | 502 | 503 | 504);
        if result
            .as_ref()
            .is_ok_and(|answer| done(answer.status().as_u16()))
        {
            self.budget.deposit();
            return None;
        }
        if self.left == 0 || !self.budget.withdraw() {
            return None;
        }
        self.left -= 1;
        Some(self.backoff.next_backoff())
    }

    fn clone_request(&mut self, request: &Request<B>) -> Option<Request<B>> {
        Some(request.clone())
    }
}

/// Waits for a cell of governor's.
#[derive(Clone)]
struct GovernorLayer {
    limiter: Arc<DefaultDirectRateLimiter>,
}

impl GovernorLayer {
    fn new() -> Self {
        let never_waits = Quota::per_second(NonZeroU32::new(1_000_000_000).expect("not 0"));
        Self {
            limiter: Arc::new(RateLimiter::direct(never_waits)),
        }
    }
}

impl<S> Layer<S> for GovernorLayer {
    type Service = Governed<S>;

    fn layer(&self, inner: S) -> Self::Service {
        let limiter = self.limiter.clone();
        Governed { inner, limiter }
    }
}

#[derive(Clone)]
struct Governed<S> {
    inner: S,
    limiter: Arc<DefaultDirectRateLimiter>,
}

impl<S, B> Service<Request<B>> for Governed<S>
where
    S: Service<Request<B>, Error: Send, Future: Send> + Clone + Send + 'static,
    B: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let clone = self.inner.clone();
        let mut ready = std::mem::replace(&mut self.inner, clone);
        let limiter = self.limiter.clone();
        Box::pin(async move {
            limiter.until_ready().await;
            ready.call(request).await
        })
    }
}
