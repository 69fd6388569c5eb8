//! The work that is the same for all: a request, a service that answers it at once, and one way to measure.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    hint::black_box,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{
    HeaderValue, Request, Response,
    header::{ACCEPT, CONTENT_TYPE, USER_AGENT},
};
use http_body_util::Full;
use tokio::{runtime::Runtime, time::Instant};
use tower::Service;

use crate::support::allocations::{self, Allocations};

pub(crate) const KEY: &str = "pk_test_4f9d0c2b7a6e1583";
pub(crate) const BATCH: usize = 128;

pub(crate) type Body = Full<Bytes>;

/// A POST as a client library makes it.
pub(crate) fn request() -> Request<Body> {
    let body = format!("{:60}", r#"{"prompt":"Summarise the last 10 orders."}"#);
    Request::post("https://api.ploton.ai/v1/tasks")
        .header(CONTENT_TYPE, "application/json")
        .header(ACCEPT, "application/json")
        .header(USER_AGENT, HeaderValue::from_static("bench/1.0"))
        .body(Full::from(body.into_bytes()))
        .expect("a request")
}

#[derive(Clone, Copy)]
pub(crate) enum Answers {
    Plain,
    /// With the three headers that Ploton sends.
    WithRateHeaders,
}

/// Ready at any time, and answers at once.
#[derive(Clone)]
pub(crate) struct Inner {
    answers: Answers,
}

impl Inner {
    pub(crate) const fn new(answers: Answers) -> Self {
        Self { answers }
    }
}

impl Service<Request<Body>> for Inner {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        black_box(&request);
        let mut response = Response::new(Body::default());
        if let Answers::WithRateHeaders = self.answers {
            let headers = response.headers_mut();
            for (name, value) in [
                ("x-ratelimit-limit", "4294967295"),
                ("x-ratelimit-remaining", "4294967294"),
                ("x-ratelimit-reset", "1718459532"),
            ] {
                headers.insert(name, HeaderValue::from_static(value));
            }
        }
        ready(Ok(response))
    }
}

/// A client as a user has it, of whatever type.
pub(crate) trait Client {
    /// Sends all of `requests`, one after the other.
    fn send(&mut self, runtime: &Runtime, requests: Vec<Request<Body>>);
}

impl<S> Client for S
where
    S: Service<Request<Body>, Response = Response<Body>>,
{
    fn send(&mut self, runtime: &Runtime, requests: Vec<Request<Body>>) {
        runtime.block_on(async {
            for request in requests {
                let ready = std::future::poll_fn(|cx| self.poll_ready(cx)).await;
                assert!(ready.is_ok(), "ready at any time");
                let answer = self.call(request).await;
                assert!(answer.is_ok_and(|answer| answer.status() == 200));
            }
        });
    }
}

/// Nanoseconds a request, of so few that another process rarely gets its turn meanwhile. Neither is the request made in that
/// time, nor is its memory fresh.
pub(crate) fn nanos(runtime: &Runtime, client: &mut dyn Client) -> f64 {
    client.send(runtime, batch());
    let requests = batch();
    let start = Instant::now();
    client.send(runtime, requests);
    let took = Instant::now().duration_since(start);
    took.as_secs_f64() * 1e9 / BATCH as f64
}

/// What one request takes, when many were sent before it. The median of several: what is kept of each request is
/// given more room from time to time.
pub(crate) fn allocations(runtime: &Runtime, client: &mut dyn Client) -> Allocations {
    for _ in 0..10 {
        client.send(runtime, batch());
    }
    let mut several = [(); 9].map(|()| {
        let requests = vec![request()];
        allocations::of(|| client.send(runtime, requests))
    });
    several.sort_by_key(|taken| taken.bytes);
    several[4]
}

/// As many requests as stay in the cache.
pub(crate) fn batch() -> Vec<Request<Body>> {
    (0..BATCH).map(|_| request()).collect()
}
