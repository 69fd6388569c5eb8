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
use tokio::time::{Instant, timeout_at};
use tower::{Layer, Service, ServiceExt};
use tower_ploton::{
    Origin, Plan, PlotonRateLimit,
    mock::{FakePloton, RateHeaders, RateLimitModel},
};

use support::KEY;

const N: NonZeroU32 = NonZeroU32::new(20).unwrap();
const WINDOW: Duration = Duration::from_secs(2);
/// Three whole windows, wherever in a window the first request arrives.
const LONG_ENOUGH: Duration = Duration::from_secs(8);

/// How many requests are answered and how many of them are refused, when eight callers send all they may.
async fn saturated(model: RateLimitModel, headers: RateHeaders) -> (u32, u32) {
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
    let end = Instant::now() + LONG_ENOUGH;
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (mut service, url) = (service.clone(), format!("{}/v1/tasks", server.url()));
        callers.spawn(async move {
            let (mut answered, mut refused) = (0, 0);
            while let Ok(ready) = timeout_at(end, service.ready()).await {
                let request = Request::get(&url)
                    .header("authorization", format!("Bearer {KEY}"))
                    .body(Full::default())
                    .unwrap();
                let status = ready.unwrap().call(request).await.unwrap().status();
                answered += 1;
                match status {
                    StatusCode::OK => {}
                    StatusCode::TOO_MANY_REQUESTS => refused += 1,
                    status => panic!("{status}"),
                }
            }
            (answered, refused)
        });
    }
    let both = callers.join_all().await.into_iter();
    both.fold((0, 0), |sum, each| (sum.0 + each.0, sum.1 + each.1))
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
    for (model, headers, (answered, refused)) in runs.join_all().await {
        assert_eq!(refused, 0, "{model:?}, {headers:?}");
        // An even pace has room for 250 ms in each window of two seconds, and a machine may be busy.
        assert!(
            answered >= 3 * N.get(),
            "{model:?}, {headers:?}: {answered}"
        );
    }
}
