//! The fake Ploton does what the API page says, and what a test asks of it.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by a panic"
)]

#[path = "../support/mod.rs"]
mod support;

mod api;
mod faults;
mod limits;
mod sockets;

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};
use tower::ServiceExt;
use tower_ploton::mock::{FakeBody, FakePloton};

const MINUTE: Duration = Duration::from_secs(60);

fn request(method: Method, path: &str, body: &str) -> Request<Full<Bytes>> {
    Request::builder()
        .method(method)
        .uri(format!("https://api.ploton.ai{path}"))
        .header("authorization", format!("Bearer {}", support::KEY))
        .body(body.to_owned().into())
        .unwrap()
}

fn create(prompt: &str) -> Request<Full<Bytes>> {
    request(
        Method::POST,
        "/v1/tasks",
        &json!({ "prompt": prompt }).to_string(),
    )
}

fn keyed(prompt: &str, key: &'static str) -> Request<Full<Bytes>> {
    let mut request = create(prompt);
    request
        .headers_mut()
        .insert("idempotency-key", HeaderValue::from_static(key));
    request
}

async fn send(fake: &FakePloton, request: Request<Full<Bytes>>) -> Response<FakeBody> {
    fake.clone().oneshot(request).await.unwrap()
}

async fn get(fake: &FakePloton, path: &str) -> (StatusCode, Value) {
    let response = send(fake, request(Method::GET, path, "")).await;
    (response.status(), support::json(response).await)
}

/// The status and the error code of the answer.
async fn error(fake: &FakePloton, request: Request<Full<Bytes>>) -> (u16, String) {
    let response = send(fake, request).await;
    let status = response.status().as_u16();
    let body = support::json(response).await;
    assert!(body["error"]["message"].is_string());
    (status, body["error"]["code"].as_str().unwrap().to_owned())
}
