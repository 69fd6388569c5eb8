//! The idempotency and the retry layer as one service, for the stack: a key is looked for once, kept once, and the time read
//! once.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower::{BoxError, Service};

use crate::{
    idempotency::PlotonIdempotency,
    logical::Attempts,
    retry::{self, RetryBody, RetryService},
};

/// Does what an [`IdempotencyService`](crate::idempotency::IdempotencyService) around a [`RetryService`] does.
#[derive(Clone, Debug)]
pub(super) struct Keyed<S> {
    inner: RetryService<S>,
    layer: PlotonIdempotency,
}

impl<S> Keyed<S> {
    pub(super) const fn new(inner: RetryService<S>, layer: PlotonIdempotency) -> Self {
        Self { inner, layer }
    }
}

impl<S, B, R> Service<Request<B>> for Keyed<S>
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

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let now = Instant::now();
        let has_key = self.layer.give_key(&mut request, now).is_some();
        ResponseFuture {
            response: self.inner.call_at(now, request, has_key),
            has_key,
        }
    }
}

pin_project! {
    pub(super) struct ResponseFuture<S, B, R>
    where
        S: Service<Request<B>>,
    {
        #[pin]
        response: retry::ResponseFuture<S, B, R>,
        // Whether the idempotency layer gave the request a key, or knows the caller's.
        has_key: bool,
    }
}

impl<S, B, R> Future for ResponseFuture<S, B, R>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: Into<BoxError>,
    R: Body,
{
    type Output = Result<Response<R>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut polled = this.response.poll(cx);
        if let Poll::Ready(Ok(response)) = &mut polled {
            if *this.has_key && !response.status().is_success() {
                tell_key(response);
            }
        }
        polled
    }
}

/// Puts the key beside the story that it is told in.
fn tell_key<R>(response: &mut Response<R>) {
    let extensions = response.extensions_mut();
    let key = extensions
        .get()
        .and_then(Attempts::idempotency_key)
        .cloned();
    if let Some(key) = key {
        extensions.insert(key);
    }
}
