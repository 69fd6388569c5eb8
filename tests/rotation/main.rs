//! Keys that change while requests are on their way: on real sockets under load, and in every situation a request can be in.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by a panic"
)]

#[path = "../support/mod.rs"]
mod support;

mod held;
mod load;
mod unauthorized;

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tower::{BoxError, Service, ServiceBuilder};
use tower_ploton::{ApiKey, PlotonAuth, PlotonIdempotency, PlotonRetry, mock::FakePloton};

const PLOTON: &str = "https://api.ploton.ai";

fn name(n: usize) -> String {
    format!("pk_test_{n:016}")
}

fn key(n: usize) -> ApiKey {
    ApiKey::parse(&name(n)).unwrap()
}

const fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// The key of each attempt so far, by the order in which the server first saw it; the first attempts' are 0.
fn credentials(fake: &FakePloton) -> Vec<usize> {
    let attempts = fake.attempts();
    attempts
        .iter()
        .map(|attempt| attempt.credential.expect("a key"))
        .collect()
}

/// The four layers but the limiter, around a fake.
fn stack(
    retry: PlotonRetry,
    auth: PlotonAuth,
    fake: &FakePloton,
) -> impl Service<
    Request<Full<Bytes>>,
    Response = Response<impl http_body::Body<Data = Bytes, Error: std::fmt::Debug> + Send + use<>>,
    Error = BoxError,
    Future: Send,
> + Clone
+ Send
+ use<> {
    ServiceBuilder::new()
        .layer(PlotonIdempotency::new())
        .layer(retry)
        .layer(auth)
        .service(fake.clone())
}
