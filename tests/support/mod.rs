//! What the tests share.
#![allow(dead_code, reason = "each test uses a part of it")]

pub(crate) mod log;

use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tower::Service;
use tower_ploton::ApiKey;

pub(crate) const KEY: &str = "pk_test_4f9d0c2b7a6e1583";

pub(crate) fn key() -> ApiKey {
    ApiKey::parse(KEY).unwrap()
}

/// A POST that creates a task named `prompt` at `url`.
pub(crate) fn create(url: &str, prompt: &str) -> Request<Full<Bytes>> {
    let body = serde_json::json!({ "prompt": prompt }).to_string();
    Request::post(format!("{url}/v1/tasks"))
        .header("content-type", "application/json")
        .body(body.into())
        .unwrap()
}

/// The JSON of an answer.
pub(crate) async fn json<B>(response: Response<B>) -> serde_json::Value
where
    B: http_body::Body,
    B::Error: std::fmt::Debug,
{
    let body = response.into_body().collect().await.unwrap().to_bytes();
    serde_json::from_slice(&body).unwrap()
}

/// A service that fails the test when it is called without its own `poll_ready`.
#[derive(Debug)]
pub(crate) struct Probe<S> {
    inner: S,
    ready: bool,
}

impl<S> Probe<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self {
            inner,
            ready: false,
        }
    }
}

/// A clone was never asked whether it is ready.
impl<S: Clone> Clone for Probe<S> {
    fn clone(&self) -> Self {
        Self::new(self.inner.clone())
    }
}

impl<S: Service<R>, R> Service<R> for Probe<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        let poll = self.inner.poll_ready(cx);
        self.ready = matches!(poll, Poll::Ready(Ok(())));
        poll
    }

    fn call(&mut self, request: R) -> S::Future {
        assert!(self.ready, "called without its own poll_ready");
        self.ready = false;
        self.inner.call(request)
    }
}
