//! The limiter in real time, on real sockets, against a server whose windows are short.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by a panic"
)]

mod support;

use std::{num::NonZeroU32, time::Duration};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tokio::time::{Instant, sleep_until};
use tower::{Layer, Service, ServiceExt};
use tower_ploton::{
    Origin, Plan, PlotonRateLimit,
    mock::{FakePloton, Outcome, RateHeaders, RateLimitModel},
};

use support::KEY;

const N: NonZeroU32 = NonZeroU32::new(20).unwrap();
const WINDOW: Duration = Duration::from_secs(2);
/// Three whole windows, wherever in a window the first request arrives.
const LONG_ENOUGH: Duration = Duration::from_secs(8);
/// An even pace has room for 250 ms in each window of two seconds.
const ENOUGH: usize = 3 * N.get() as usize;
/// How much later than at once so many are answered in so long: a busy machine may stop a process for a while.
const PATIENCE: Duration = Duration::from_secs(40);

/// Lets eight callers send all they may until enough are answered, and returns how many are refused.
async fn saturated(model: RateLimitModel, headers: RateHeaders) -> u64 {
    let fake = FakePloton::new()
        .accept_key(KEY)
        .rate_limit(model)
        .rate_headers(headers);
    let server = fake.listen().await.unwrap();
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let plan = Plan::Enterprise {
        requests_per_minute: N,
        concurrent_tasks: N,
    };
    let service = PlotonRateLimit::new(plan)
        .window(WINDOW)
        .origin(Origin::parse(&server.url()).unwrap())
        .layer(client);
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (mut service, url) = (service.clone(), format!("{}/v1/tasks", server.url()));
        callers.spawn(async move {
            loop {
                let request = Request::get(&url)
                    .header("authorization", format!("Bearer {KEY}"))
                    .body(Full::default())
                    .unwrap();
                let ready = service.ready().await.unwrap();
                ready.call(request).await.unwrap();
            }
        });
    }
    let mut end = Instant::now() + LONG_ENOUGH;
    let latest = end + PATIENCE;
    let mut best = 0;
    while best < ENOUGH {
        assert!(end <= latest, "{model:?}, {headers:?}: {best}");
        sleep_until(end).await;
        let attempts = fake.attempts().into_iter();
        let answered = attempts.filter(|attempt| {
            (end - LONG_ENOUGH..end).contains(&attempt.at)
                && attempt.outcome == Outcome::Answered(StatusCode::OK)
        });
        best = best.max(answered.count());
        end = Instant::now() + Duration::from_millis(200);
    }
    fake.counts().refused
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_server_with_twenty_requests_in_two_seconds_refuses_one() {
    let mut runs = tokio::task::JoinSet::new();
    for model in [
        RateLimitModel::fixed_window(N, WINDOW),
        RateLimitModel::sliding_log(N, WINDOW),
        RateLimitModel::token_bucket(N, N, WINDOW),
    ] {
        for headers in [RateHeaders::Always, RateHeaders::Never] {
            runs.spawn(async move { (model, headers, saturated(model, headers).await) });
        }
    }
    for (model, headers, refused) in runs.join_all().await {
        assert_eq!(refused, 0, "{model:?}, {headers:?}");
    }
}
