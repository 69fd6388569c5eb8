//! What tools see of the layers: traces by OpenTelemetry, metrics by Prometheus, and a dashboard over these.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by a panic"
)]

mod dashboard;
mod metrics;
mod recording;
mod scrape;
mod traces;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tower_ploton::ApiKey;

const KEY: &str = "pk_test_4f9d0c2b7a6e1583";
/// The part of the key that is secret.
const SECRET: &str = "4f9d0c2b7a6e1583";
const PLOTON: &str = "https://api.ploton.ai";

fn key() -> ApiKey {
    ApiKey::parse(KEY).unwrap()
}

/// A POST that creates a task named `prompt` at `url`.
fn create(url: &str, prompt: &str) -> Request<Full<Bytes>> {
    let body = serde_json::json!({ "prompt": prompt }).to_string();
    Request::post(format!("{url}/v1/tasks"))
        .header("content-type", "application/json")
        .body(body.into())
        .unwrap()
}
