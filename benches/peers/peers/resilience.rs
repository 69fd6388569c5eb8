//! tower-resilience's retry and limiter, with tower-http's layers and tower's timeout for the rest.

use std::time::Duration;

use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use tower::{BoxError, Layer, Service, ServiceBuilder, timeout::TimeoutLayer};
use tower_http::{auth::AddAuthorizationLayer, set_header::SetRequestHeaderLayer};
use tower_resilience_ratelimiter::{RateLimiterLayer, RateLimiterServiceError};
use tower_resilience_retry::{RetryBudgetBuilder, RetryLayer};

use super::drive::KEY;

type Error = RateLimiterServiceError<BoxError>;

/// In the order of our own stack: a preset of 3 attempts with exponential backoff, a budget, and a limiter that never has to
/// wait.
pub(crate) fn layers<S, B, R>() -> impl Layer<
    S,
    Service: Service<Request<B>, Response = Response<R>, Error = Error, Future: Send>
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
    let again = |response: &Response<R>| {
        let status = response.status();
        status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error()
    };
    let budget = RetryBudgetBuilder::new().token_bucket().build();
    let retry = RetryLayer::<Request<B>, Response<R>, Error>::exponential_backoff()
        .retry_on_response(again)
        .budget(budget.expect("a budget"))
        .build();
    let limiter = RateLimiterLayer::per_second(1_000_000_000)
        .backpressure()
        .build()
        .expect("a limiter");
    ServiceBuilder::new()
        .layer(SetRequestHeaderLayer::if_not_present(
            HeaderName::from_static("idempotency-key"),
            |_: &Request<B>| HeaderValue::try_from(uuid::Uuid::new_v4().to_string()).ok(),
        ))
        .layer(retry)
        .layer(limiter)
        .layer(AddAuthorizationLayer::bearer(KEY).as_sensitive(true))
        .layer(TimeoutLayer::new(Duration::from_secs(30)))
        .into_inner()
}
