//! The tests of this member plug the layers into other people's clients; what they share is here: a loopback server that
//! fails as it is told, and counts what reaches it.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by a panic"
)]

mod faults;
mod once;
mod server;
mod slow;
mod tls;

use std::{num::NonZeroU32, sync::LazyLock};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use tower_ploton::{ApiKey, Origin, Plan, PlotonStack, mock::FakePloton};
use tracing::{
    Dispatch, Subscriber,
    subscriber::{DefaultGuard, NoSubscriber},
};

pub use self::{
    faults::{Answer, Fault, Faults, Faulty, Seen},
    once::Once,
    server::Server,
    slow::{DEADLINE, FREE, LATER, SOON, TIMEOUT, slowly, timed},
    tls::Tls,
};

/// The API key of the tests.
pub const KEY: &str = "pk_test_4f9d0c2b7a6e1583";

/// [`KEY`], parsed.
#[must_use]
pub fn key() -> ApiKey {
    ApiKey::parse(KEY).unwrap()
}

/// So many requests a minute that nothing waits for long in real time.
#[must_use]
pub fn plan() -> Plan {
    Plan::Enterprise {
        requests_per_minute: NonZeroU32::new(600_000).unwrap(),
        concurrent_tasks: NonZeroU32::new(1_000).unwrap(),
    }
}

/// The stack, for the origin of `server`.
pub fn stack(server: &Server) -> PlotonStack {
    PlotonStack::new(key(), plan()).origin(server.origin())
}

/// The origin at `url`.
#[must_use]
pub fn origin(url: &str) -> Origin {
    Origin::parse(url).unwrap()
}

/// A POST that creates a task named `prompt` at the server of `url`.
#[must_use]
pub fn create(url: &str, prompt: &str) -> Request<Full<Bytes>> {
    Request::post(format!("{url}/v1/tasks"))
        .header("content-type", "application/json")
        .body(task(prompt).into())
        .unwrap()
}

/// The body of a request that creates a task named `prompt`.
#[must_use]
pub fn task(prompt: &str) -> String {
    serde_json::json!({ "prompt": prompt }).to_string()
}

/// The JSON of an answer.
pub async fn json<B>(response: Response<B>) -> serde_json::Value
where
    B: Body,
    B::Error: std::fmt::Debug,
{
    let body = response.into_body().collect().await.unwrap().to_bytes();
    serde_json::from_slice(&body).unwrap()
}

/// The faults that each client goes through, one after the other, with one request.
#[must_use]
pub fn every_fault() -> Vec<Fault> {
    vec![
        Fault::RateLimited { retry_after: 1 },
        Fault::Status(500),
        Fault::CutAfter,
    ]
}

/// Asserts that one request, which creates a task, went through [`every_fault`]: four attempts with one idempotency key and
/// [`KEY`], not before `Retry-After` was over, and one task.
pub fn assert_created_once(server: &Server, fake: &FakePloton) {
    server.assert_one_request(4);
    let seen = server.seen();
    assert!(seen.iter().all(|seen| seen.authorization == bearer()));
    let counts = fake.counts();
    assert_eq!((counts.created, counts.duplicated), (1, 0));
    assert_eq!(
        counts.replayed, 1,
        "the stored answer made good for the cut"
    );
}

/// Asserts that one request, which went through [`every_fault`], found a connection to use again. On a slow machine the next
/// attempt may come before the last one's connection is back, and after the cut there is a new one in any case.
pub fn assert_reused(server: &Server) {
    let connections = server.connections();
    assert!((2..=3).contains(&connections), "{connections} for four");
}

/// Lets `subscriber` hear this thread until the guard is dropped, whatever runs on others.
pub fn subscribe(subscriber: impl Subscriber + Send + Sync + 'static) -> DefaultGuard {
    // While there is just one, tracing asks only the thread that comes to a span first whether anybody hears it, and keeps a
    // no for all threads.
    static ANOTHER: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(NoSubscriber::default()));
    LazyLock::force(&ANOTHER);
    tracing::subscriber::set_default(subscriber)
}

/// What `Authorization` says with [`KEY`].
#[must_use]
pub fn bearer() -> Option<String> {
    Some(format!("Bearer {KEY}"))
}

/// The page's code, compiled.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/observability.md")]
mod observability {}
