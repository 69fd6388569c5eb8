//! What a server does that knows idempotency keys.

use std::{
    collections::HashMap,
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, response::Parts};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, StreamBody};
use tower::{BoxError, Service};

use crate::Answer;

/// Makes any service a server that does what comes with an `Idempotency-Key` once, and gives the stored answer (body and
/// trailers too) to whoever comes with the key again. For servers that are not Ploton. Clones share the answers.
#[derive(Clone)]
pub struct Once<S> {
    inner: S,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    done: u32,
    answers: HashMap<String, Stored>,
}

#[derive(Clone)]
struct Stored {
    head: Parts,
    body: Bytes,
    trailers: Option<HeaderMap>,
}

impl<S> Once<S> {
    /// Nothing is done yet.
    pub fn new(inner: S) -> Self {
        Self {
            inner,
            state: Arc::default(),
        }
    }

    /// How often the service inside was called.
    #[must_use]
    pub fn done(&self) -> u32 {
        lock(&self.state).done
    }
}

impl<S> fmt::Debug for Once<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Once").finish_non_exhaustive()
    }
}

impl<S, B, R> Service<Request<B>> for Once<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    R: Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    type Response = Response<Answer>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Answer>, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let key = request.headers().get("idempotency-key");
        let key = key.map(|key| String::from_utf8_lossy(key.as_bytes()).into_owned());
        let stored = key
            .as_ref()
            .and_then(|key| lock(&self.state).answers.get(key).cloned());
        if let Some(stored) = stored {
            return Box::pin(async move {
                let _ = request.into_body().collect().await;
                Ok(stored.into_response())
            });
        }
        lock(&self.state).done += 1;
        let response = self.inner.call(request);
        let state = self.state.clone();
        Box::pin(async move {
            let (head, body) = response.await.map_err(Into::into)?.into_parts();
            let body = body.collect().await.map_err(Into::into)?;
            let stored = Stored {
                head,
                trailers: body.trailers().cloned(),
                body: body.to_bytes(),
            };
            if let Some(key) = key {
                lock(&state).answers.insert(key, stored.clone());
            }
            Ok(stored.into_response())
        })
    }
}

impl Stored {
    fn into_response(self) -> Response<Answer> {
        let data = (!self.body.is_empty()).then(|| Frame::data(self.body));
        let frames = data
            .into_iter()
            .chain(self.trailers.map(Frame::trailers))
            .map(Ok::<_, BoxError>);
        let body = StreamBody::new(tokio_stream::iter(frames));
        Response::from_parts(self.head, body.boxed_unsync())
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
