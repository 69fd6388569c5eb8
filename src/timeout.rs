//! A timeout for each attempt, whose timer is made only where the answer is not there at once.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use http::Request;
use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep};
use tower::{BoxError, Service, timeout::error::Elapsed};

use crate::logical::Watch;

/// Like tower's `Timeout`, with its error. The time begins when the answer is first asked for and not there: up to then
/// nothing was sent by a service that is lazy, and no timer is needed by one that is quick.
#[derive(Clone, Debug)]
pub(crate) struct Timeout<S> {
    inner: S,
    timeout: Duration,
}

impl<S> Timeout<S> {
    pub(crate) const fn new(inner: S, timeout: Duration) -> Self {
        Self { inner, timeout }
    }
}

impl<S, B> Service<Request<B>> for Timeout<S>
where
    S: Service<Request<B>>,
    S::Error: Into<BoxError>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        ResponseFuture {
            response: self.inner.call(request),
            timer: None,
            timeout: self.timeout,
        }
    }
}

pin_project! {
    /// The future of [`Timeout`].
    #[derive(Debug)]
    pub(crate) struct ResponseFuture<F> {
        #[pin]
        response: F,
        // `Some` once the answer was not there; boxed, since every future around is larger by it.
        timer: Option<Pin<Box<Sleep>>>,
        timeout: Duration,
    }
}

impl<F, R, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<R, E>>,
    E: Into<BoxError>,
{
    type Output = Result<R, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(result) = this.response.poll(cx) {
            return Poll::Ready(result.map_err(Into::into));
        }
        let timeout = *this.timeout;
        let timer = this.timer.get_or_insert_with(|| Box::pin(sleep(timeout)));
        if timer.as_mut().poll(cx).is_pending() {
            Watch::ends_by(timer.deadline());
            return Poll::Pending;
        }
        Poll::Ready(Err(Elapsed::new().into()))
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, future};

    use tokio::time::Instant;
    use tower::{ServiceExt, service_fn};

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(30);

    /// What becomes of an answer that takes so long.
    async fn answer_after(delay: Duration) -> Result<(), BoxError> {
        let server = service_fn(move |_: Request<()>| async move {
            tokio::time::sleep(delay).await;
            Ok::<_, Infallible>(())
        });
        Timeout::new(server, TIMEOUT)
            .oneshot(Request::new(()))
            .await
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_has_until_the_timeout() {
        assert!(
            answer_after(TIMEOUT - Duration::from_millis(1))
                .await
                .is_ok()
        );
        let start = Instant::now();
        let late = answer_after(TIMEOUT + Duration::from_millis(1)).await;
        assert!(late.unwrap_err().is::<Elapsed>());
        let took = Instant::now().duration_since(start);
        assert!(took >= TIMEOUT && took <= TIMEOUT + Duration::from_millis(1));
    }

    #[tokio::test(start_paused = true)]
    async fn no_timeout_is_too_long() {
        let server = service_fn(|_: Request<()>| future::pending::<Result<(), Infallible>>());
        let call = Timeout::new(server, Duration::MAX).oneshot(Request::new(()));
        let waited = tokio::time::timeout(Duration::from_secs(3_600), call).await;
        assert!(waited.is_err());
    }

    #[test]
    fn an_answer_that_is_there_needs_no_timer() {
        let server = service_fn(|_: Request<()>| future::ready(Ok::<_, Infallible>(())));
        let mut service = Timeout::new(server, TIMEOUT);
        let mut call = std::pin::pin!(service.call(Request::new(())));
        // Outside of any runtime, where none could be made.
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(matches!(call.as_mut().poll(&mut cx), Poll::Ready(Ok(()))));
    }
}
