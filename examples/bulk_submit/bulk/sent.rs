//! A layer of this program's own: it writes down what is sent, between the wait for a task slot and everything else.

use std::{
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Method, Request};
use tokio::sync::watch;
use tower::{BoxError, Layer, Service};

use super::journal::Journal;

/// Lets a request that creates a task pass when the journal has it, and none after the program was told to stop.
#[derive(Clone, Debug)]
pub(crate) struct WriteDown {
    pub(crate) journal: Arc<Journal>,
    pub(crate) stop: watch::Receiver<bool>,
}

impl<S> Layer<S> for WriteDown {
    type Service = WriteDownService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        WriteDownService {
            inner,
            layer: self.clone(),
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct WriteDownService<S> {
    inner: S,
    layer: WriteDown,
}

impl<S, B> Service<Request<B>> for WriteDownService<S>
where
    S: Service<Request<B>, Error = BoxError, Future: Send> + Clone + Send + 'static,
    B: Send + 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let not_ready = self.inner.clone();
        let mut ready = mem::replace(&mut self.inner, not_ready);
        let WriteDown { journal, stop } = self.layer.clone();
        Box::pin(async move {
            let creates =
                request.method() == Method::POST && request.uri().path().ends_with("/tasks");
            let key = request.headers().get("idempotency-key");
            if let Some(key) = key.filter(|_| creates) {
                if *stop.borrow() {
                    return Err(Stopped.into());
                }
                journal.before_sending(key.to_str()?).await?;
            }
            ready.call(request).await
        })
    }
}

/// The program was told to stop before the request was sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopped;

impl std::fmt::Display for Stopped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("stopped before it was sent")
    }
}

impl std::error::Error for Stopped {}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use http::Response;
    use tower::{ServiceExt, service_fn};

    use super::*;
    use crate::bulk::journal::Broken;

    fn create() -> Request<()> {
        let request = Request::post("/v1/tasks").header("idempotency-key", "k");
        request.body(()).unwrap()
    }

    /// The end of a request to a server that nothing may reach.
    async fn end_of(layer: &WriteDown, request: Request<()>) -> BoxError {
        let server = service_fn(async |_: Request<()>| -> Result<Response<()>, BoxError> {
            panic!("it was sent");
        });
        layer.layer(server).oneshot(request).await.unwrap_err()
    }

    #[tokio::test]
    async fn nothing_is_sent_that_is_not_in_the_journal_and_nothing_after_a_stop() {
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bulk_broken.jsonl");
        std::fs::write(&file, "").unwrap();
        let (stopper, stop) = watch::channel(false);
        let layer = WriteDown {
            journal: Arc::new(Journal::broken(&file)),
            stop,
        };
        let error = end_of(&layer, create()).await;
        assert!(error.is::<Broken>(), "{error}");
        stopper.send(true).unwrap();
        let error = end_of(&layer, create()).await;
        assert!(error.is::<Stopped>(), "{error}");
    }
}
