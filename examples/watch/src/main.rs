//! The layers under a load that meets a rate limit, an outage and a slow spell, and what whoever is on call sees of it.
//!
//! `cargo run --example watch -- --seconds 60 --port 9464` needs no key and no network: the fake Ploton is on a loopback port,
//! and so are the metrics, for a Prometheus or for curl.

use std::{env, process::ExitCode};

use tower::BoxError;
use tower_ploton_watch::{Options, run};

#[tokio::main]
async fn main() -> Result<ExitCode, BoxError> {
    let options = Options::parse(env::args().skip(1))?;
    Ok(if run(options).await? {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
