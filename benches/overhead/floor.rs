//! What no one can do without who wants the same: a copy to send again, a key, two headers and the time.

use std::task::{Context, Poll};

use http::{HeaderName, HeaderValue, Request, header::AUTHORIZATION};
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower::{Layer, Service};

use super::work::{Body, KEY};

/// One clone of the request, one random key, two headers, one look at the clock; and nothing else.
#[derive(Clone)]
pub(crate) struct FloorLayer {
    bearer: HeaderValue,
}

impl FloorLayer {
    pub(crate) fn new() -> Self {
        let bearer = format!("Bearer {KEY}");
        let bearer = bearer.try_into().expect("visible ASCII");
        Self { bearer }
    }
}

impl<S> Layer<S> for FloorLayer {
    type Service = Floor<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Floor {
            inner,
            bearer: self.bearer.clone(),
        }
    }
}

pub(crate) struct Floor<S> {
    inner: S,
    bearer: HeaderValue,
}

impl<S: Service<Request<Body>>> Service<Request<Body>> for Floor<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = Kept<S::Future, (Request<Body>, Instant)>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let key = format!("{:032x}", rand::random::<u128>());
        let key = HeaderValue::try_from(key).expect("visible ASCII");
        request.headers_mut().insert(IDEMPOTENCY_KEY, key);
        let kept = (request.clone(), Instant::now());
        let bearer = self.bearer.clone();
        request.headers_mut().insert(AUTHORIZATION, bearer);
        Kept {
            response: self.inner.call(request),
            kept,
        }
    }
}

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// A clone of the request alone.
pub(crate) struct CloneLayer;

impl<S> Layer<S> for CloneLayer {
    type Service = Cloned<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Cloned { inner }
    }
}

pub(crate) struct Cloned<S> {
    inner: S,
}

impl<S: Service<Request<Body>>> Service<Request<Body>> for Cloned<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = Kept<S::Future, Request<Body>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let kept = request.clone();
        Kept {
            response: self.inner.call(request),
            kept,
        }
    }
}

pin_project! {
    /// Holds what was kept until the answer came.
    pub(crate) struct Kept<F, T> {
        #[pin]
        response: F,
        kept: T,
    }
}

impl<F: Future, T> Future for Kept<F, T> {
    type Output = F::Output;

    fn poll(self: std::pin::Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        std::hint::black_box(&this.kept);
        this.response.poll(cx)
    }
}
