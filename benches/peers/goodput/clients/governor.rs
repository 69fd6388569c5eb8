//! governor as a service, on tokio's clock.
//!
//! Its own `until_ready` sleeps on a timer of its own that knows no virtual time. Here is the same loop with tokio's sleep:
//! ask, wait as long as it says, ask again.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use governor::{
    Quota, RateLimiter,
    clock::Clock,
    middleware::NoOpMiddleware,
    state::{InMemoryState, NotKeyed},
};
use http::Request;
use tokio::time::{Instant, sleep};
use tower::Service;

#[derive(Clone, Debug)]
pub(crate) struct TokioClock {
    start: Instant,
}

impl Clock for TokioClock {
    type Instant = Duration;

    fn now(&self) -> Duration {
        Instant::now() - self.start
    }
}

type Limiter = RateLimiter<NotKeyed, InMemoryState, TokioClock, NoOpMiddleware<Duration>>;

/// Waits for governor's permission before each call.
#[derive(Clone, Debug)]
pub(crate) struct Governed<S> {
    inner: S,
    limiter: Arc<Limiter>,
    clock: TokioClock,
}

pub(crate) fn governed<S>(inner: S, quota: Quota) -> Governed<S> {
    let clock = TokioClock {
        start: Instant::now(),
    };
    Governed {
        inner,
        limiter: Arc::new(RateLimiter::direct_with_clock(quota, clock.clone())),
        clock,
    }
}

impl<S> Service<Request<()>> for Governed<S>
where
    S: Service<Request<()>> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<()>) -> Self::Future {
        let not_ready = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, not_ready);
        let (limiter, clock) = (self.limiter.clone(), self.clock.clone());
        Box::pin(async move {
            while let Err(not_until) = limiter.check() {
                sleep(not_until.wait_time_from(clock.now())).await;
            }
            inner.call(request).await
        })
    }
}
