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
mod store;
mod traces;

use tower_ploton_sdks::{KEY, create, key};

/// The part of the key that is secret.
const SECRET: &str = "4f9d0c2b7a6e1583";
const PLOTON: &str = "https://api.ploton.ai";
