//! A minute in which the server fails, at full load: it is not made worse, and ends when it ends.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by a panic"
)]

mod support;

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use tokio::{
    task::JoinSet,
    time::{self, Instant},
};
use tower::{BoxError, Layer, ServiceExt, service_fn};
use tower_ploton::{Plan, PlotonStack, mock::FakePloton};

use support::{create, key};

const PLOTON: &str = "https://api.ploton.ai";
const SECOND: Duration = Duration::from_secs(1);
const OUTAGE: std::ops::Range<Duration> = Duration::from_secs(60)..Duration::from_secs(120);
const END: Duration = Duration::from_secs(180);
const CALLERS: usize = 40;

/// How the server fails.
#[derive(Clone, Copy, Debug)]
enum Failure {
    Status(u16),
    Cut,
}

type Answer = Pin<Box<dyn Future<Output = Result<Response<String>, BoxError>> + Send>>;

/// A logical request.
struct Call {
    began: Duration,
    ended: Duration,
    created: bool,
}

/// As many callers as there are always have a request under way. What they saw, and when attempts arrived.
async fn minutes(plan: Plan, failure: Failure) -> (Vec<Call>, Vec<Duration>) {
    let start = Instant::now();
    let fake = FakePloton::new().latency(Duration::from_millis(20));
    let arrivals = Arc::new(Mutex::new(Vec::new()));
    let note = arrivals.clone();
    let server = service_fn(move |request: Request<Full<Bytes>>| {
        let (fake, note) = (fake.clone(), note.clone());
        let answer: Answer = Box::pin(async move {
            let now = Instant::now() - start;
            note.lock().unwrap().push(now);
            if !OUTAGE.contains(&now) {
                let response = fake.oneshot(request).await?;
                return Ok(response.map(|_| String::new()));
            }
            time::sleep(Duration::from_millis(20)).await;
            match failure {
                Failure::Status(status) => {
                    Ok(Response::builder().status(status).body(String::new())?)
                }
                Failure::Cut => Err("cut".into()),
            }
        });
        answer
    });
    let service = PlotonStack::new(key(), plan).layer(server);
    let number = Arc::new(AtomicUsize::new(0));
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let (service, number) = (service.clone(), number.clone());
        callers.spawn(async move {
            let mut calls = Vec::new();
            loop {
                let began = Instant::now() - start;
                if began >= END {
                    return calls;
                }
                let n = number.fetch_add(1, Ordering::Relaxed);
                let request = create(PLOTON, &format!("task {n}"));
                let call: Answer = Box::pin(service.clone().oneshot(request));
                let created = call
                    .await
                    .is_ok_and(|answer| answer.status() == StatusCode::CREATED);
                let ended = Instant::now() - start;
                calls.push(Call {
                    began,
                    ended,
                    created,
                });
            }
        });
    }
    let calls = callers.join_all().await.into_iter().flatten().collect();
    let arrivals = arrivals.lock().unwrap().clone();
    (calls, arrivals)
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_not_made_worse_and_is_over_when_it_is_over() {
    for plan in [Plan::Prototyping, Plan::Production] {
        for failure in [Failure::Status(503), Failure::Status(500), Failure::Cut] {
            let (calls, arrivals) = minutes(plan, failure).await;
            let during = |at: &Duration| OUTAGE.contains(at);
            let attempts = arrivals.iter().filter(|at| during(at)).count();
            let failed = calls.iter().filter(|call| during(&call.ended)).count();
            let ratio = attempts as f64 / failed as f64;
            assert!(
                ratio <= 1.2,
                "{plan:?}, {failure:?}: {attempts} attempts for {failed} requests"
            );

            // Back to normal: all that begins 10 s after its end is created at the first attempt, at the plan's pace.
            let normal = OUTAGE.end + SECOND * 10;
            let late = calls.iter().filter(|call| call.began >= normal);
            assert!(
                late.clone().all(|call| call.created),
                "{plan:?}, {failure:?}"
            );
            let rate = f64::from(plan.requests_per_minute().get()) / 60.0;
            let created = |from: Duration| {
                let within = from..from + SECOND * 40;
                let ended = calls
                    .iter()
                    .filter(|call| call.created && within.contains(&call.ended));
                ended.count() as f64 / 40.0
            };
            for from in [SECOND * 15, normal] {
                let created = created(from);
                assert!(
                    created >= rate * 0.95,
                    "{plan:?}, {failure:?}: {created} of {rate} a second from {from:?}"
                );
            }
        }
    }
}

/// Without a quota, each of the requests would be sent four times.
#[tokio::test(start_paused = true)]
async fn the_quota_is_what_holds() {
    let server = service_fn(async |_: Request<String>| {
        Ok::<_, BoxError>(Response::builder().status(500).body(String::new())?)
    });
    for (quota, attempts) in [(500, 100 + 35), (u32::MAX, 400)] {
        let layer = tower_ploton::PlotonRetry::new().quota(quota);
        let mut made = 0;
        for _ in 0..100 {
            let request = Request::get(PLOTON).body(String::new()).unwrap();
            let response = layer.layer(server).oneshot(request).await.unwrap();
            let story = response
                .extensions()
                .get::<tower_ploton::Attempts>()
                .unwrap();
            made += story.made();
        }
        assert_eq!(made, attempts);
    }
}
