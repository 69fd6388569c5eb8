//! Thousands of tasks through every fault, on real sockets: each is created once, or reported as failed and created at
//! most once.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by a panic"
)]

mod support;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body_util::Full;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::{sync::Semaphore, task::JoinSet};
use tower::{
    BoxError, Service, ServiceBuilder, ServiceExt, timeout::error::Elapsed, util::BoxCloneService,
};
use tower_ploton::{
    Attempts, Origin, PlotonAuth, PlotonIdempotency, PlotonRetry,
    mock::{FakePloton, Fault},
    retry::AttemptsFailed,
};

use support::{create, key};

const TASKS: usize = 2_000;
/// Requests on their way at once: the most connections that a pool has a use for.
const AT_ONCE: usize = 32;
/// Longer than the server needs by far, and shorter than it hangs.
const ATTEMPT: Duration = Duration::from_millis(500);

/// A fake that lets attempts suffer each kind of fault, `share` of them in all.
fn troubled(share: f64) -> FakePloton {
    let mut hint = HeaderMap::new();
    hint.insert("retry-after-ms", 20.into());
    let status = |code: u16| Fault::Status(StatusCode::from_u16(code).unwrap());
    let faults = [
        status(408),
        status(500),
        status(502),
        status(503),
        status(504),
        Fault::Respond(StatusCode::TOO_MANY_REQUESTS, hint),
        Fault::CutBefore,
        Fault::CutAfter,
        Fault::TruncatedBody,
        Fault::Delay(Duration::from_millis(20)),
        Fault::Delay(ATTEMPT * 2),
        Fault::Hang,
    ];
    // Rates are drawn one after the other, until one hits: small ones add up.
    let rate = share / faults.len() as f64;
    let troubled = FakePloton::new().seed(11);
    faults
        .into_iter()
        .fold(troubled, |fake, fault| fake.fault_rate(fault, rate))
}

/// What became of the tasks.
#[derive(Debug, Default)]
struct Report {
    /// By prompt, the id that the caller was told; `None` where the caller was told that it failed.
    told: HashMap<String, Option<String>>,
    connections: u64,
    /// Attempts that the client gave up, each of which takes its HTTP/1 connection with it: those that hang, and on a machine
    /// that stalls those whose answer came too late.
    given_up: u64,
}

impl Report {
    fn failed(&self) -> usize {
        self.told.values().filter(|id| id.is_none()).count()
    }
}

async fn submit_all(fake: &FakePloton, http2: bool, retry: PlotonRetry) -> Report {
    let given_up = Arc::<AtomicU64>::default();
    let count = given_up.clone();
    let server = fake.listen().await.unwrap();
    let client: Client<HttpConnector, Full<Bytes>> = Client::builder(TokioExecutor::new())
        .http2_only(http2)
        .build_http();
    let service = ServiceBuilder::new()
        .layer(PlotonIdempotency::new())
        .layer(retry)
        .layer(PlotonAuth::new(key()).origin(Origin::parse(&server.url()).unwrap()))
        .map_err(move |error: BoxError| {
            count.fetch_add(error.is::<Elapsed>().into(), Ordering::Relaxed);
            error
        })
        .timeout(ATTEMPT)
        .service(client);
    let service = BoxCloneService::new(service);
    let at_once = Arc::new(Semaphore::new(AT_ONCE));
    let mut calls = JoinSet::new();
    for n in 0..TASKS {
        let (service, at_once) = (service.clone(), at_once.clone());
        let prompt = format!("task {n}");
        let request = create(&server.url(), &prompt);
        calls.spawn(async move {
            let _turn = at_once.acquire().await.unwrap();
            (prompt, outcome_of(service, request).await)
        });
    }
    Report {
        told: calls.join_all().await.into_iter().collect(),
        connections: server.connections(),
        given_up: given_up.load(Ordering::Relaxed),
    }
}

/// The id of the task; `None` where the caller was told that it failed.
async fn outcome_of<S, R>(service: S, request: http::Request<Full<Bytes>>) -> Option<String>
where
    S: Service<http::Request<Full<Bytes>>, Response = http::Response<R>, Error = BoxError>,
    R: http_body::Body,
    R::Error: std::fmt::Debug,
{
    match service.oneshot(request).await {
        Ok(response) if response.status() == StatusCode::CREATED => {
            // The head says that it was created; a body that is cut off later tells no id.
            let body = http_body_util::BodyExt::collect(response.into_body()).await;
            let Ok(body) = body else {
                return Some("cut off".to_owned());
            };
            let task: serde_json::Value = serde_json::from_slice(&body.to_bytes()).unwrap();
            Some(task["id"].as_str().unwrap().to_owned())
        }
        Ok(response) => {
            let story = response.extensions().get::<Attempts>().expect("a story");
            assert!(story.made() > 0 && story.idempotency_key().is_some());
            None
        }
        Err(error) => {
            if let Some(failed) = error.downcast_ref::<AttemptsFailed>() {
                let story = failed.attempts();
                assert!(story.made() > 1 && story.idempotency_key().is_some());
            } else {
                // The quota was used up at its first failure, which is handed back as it is.
                assert!(error.is::<hyper_util::client::legacy::Error>() || error.is::<Elapsed>());
            }
            None
        }
    }
}

/// Each task as often as the caller was told: created once where it was told so, at most once where it failed.
fn assert_once_each(fake: &FakePloton, report: &Report) {
    assert_eq!(report.told.len(), TASKS);
    let mut created: HashMap<String, Vec<String>> = HashMap::new();
    for task in fake.tasks() {
        created.entry(task.prompt).or_default().push(task.id);
    }
    for (prompt, told) in &report.told {
        let ids = created.get(prompt).map_or(&[][..], Vec::as_slice);
        match told {
            Some(id) if id == "cut off" => assert_eq!(ids.len(), 1, "{prompt}"),
            Some(id) => assert_eq!(ids, std::slice::from_ref(id), "{prompt}"),
            None => assert!(ids.len() <= 1, "{prompt}: {ids:?}"),
        }
    }
    assert_eq!(fake.counts().duplicated, 0);
}

async fn each_task_is_created_once(http2: bool) {
    let fake = troubled(0.2);
    // Each cut of an HTTP/2 connection fails all that is on it: more than the usual quota and attempts are for.
    let retry = PlotonRetry::new()
        .attempts(100)
        .base_delay(Duration::from_millis(5))
        .max_delay(Duration::from_millis(50))
        .quota(u32::MAX);
    let report = submit_all(&fake, http2, retry).await;
    assert_once_each(&fake, &report);
    let counts = fake.counts();
    assert!(counts.replayed > 0, "answers were lost, and made good");
    assert_eq!(report.failed(), 0);
    let pool = if http2 { 1 } else { AT_ONCE as u64 };
    let allowed = pool + counts.cut + report.given_up;
    assert!(
        report.connections <= allowed,
        "{} connections, {allowed} allowed",
        report.connections
    );
}

#[tokio::test]
async fn each_task_is_created_once_http1() {
    each_task_is_created_once(false).await;
}

#[tokio::test]
async fn each_task_is_created_once_http2() {
    each_task_is_created_once(true).await;
}

/// More than half of the attempts fail, with a quota and few attempts: many are given up, none is created twice.
#[tokio::test]
async fn what_is_given_up_is_created_at_most_once() {
    for http2 in [false, true] {
        let fake = troubled(1.1);
        let retry = PlotonRetry::new()
            .attempts(3)
            .base_delay(Duration::from_millis(1));
        let report = submit_all(&fake, http2, retry).await;
        assert_once_each(&fake, &report);
        assert!(report.failed() > 0);
    }
}
