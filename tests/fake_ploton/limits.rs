//! Requests a minute, and running tasks.

use std::{
    num::NonZeroU32,
    time::{Duration, SystemTime},
};

use http::{Method, StatusCode};
use tokio::time;
use tower_ploton::{
    Plan,
    mock::{FakePloton, RateHeaders, RateLimitModel},
};

use crate::{MINUTE, create, error, request, send};

/// How many of `n` requests at once are allowed.
async fn allowed(fake: &FakePloton, n: usize) -> usize {
    let mut allowed = 0;
    for _ in 0..n {
        let response = send(fake, request(Method::GET, "/v1/tasks", "")).await;
        allowed += usize::from(response.status() == StatusCode::OK);
    }
    allowed
}

#[tokio::test(start_paused = true)]
async fn the_three_models_differ_in_what_they_allow_later() {
    let ten = NonZeroU32::new(10).unwrap();
    let models = [
        (RateLimitModel::fixed_window(ten, MINUTE), [10, 10]),
        (RateLimitModel::sliding_log(ten, MINUTE), [0, 10]),
        (RateLimitModel::token_bucket(ten, ten, MINUTE), [5, 5]),
    ];
    for (model, later) in models {
        let fake = FakePloton::new().rate_limit(model);
        time::advance(MINUTE / 2).await;
        assert_eq!(allowed(&fake, 15).await, 10, "{model:?}");
        for expected in later {
            time::advance(MINUTE / 2).await;
            assert_eq!(allowed(&fake, 15).await, expected.min(10), "{model:?}");
            if expected == 10 {
                break;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn rate_headers_come_always_on_refusal_or_never() {
    let one = NonZeroU32::new(1).unwrap();
    for (when, on_success, on_refusal) in [
        (RateHeaders::Always, true, true),
        (RateHeaders::OnRefusal, false, true),
        (RateHeaders::Never, false, false),
    ] {
        let fake = FakePloton::new()
            .rate_limit(RateLimitModel::fixed_window(one, MINUTE))
            .rate_headers(when);
        for expected in [on_success, on_refusal] {
            let response = send(&fake, request(Method::GET, "/v1/tasks", "")).await;
            let headers = response.headers();
            for name in [
                "x-ratelimit-limit",
                "x-ratelimit-remaining",
                "x-ratelimit-reset",
            ] {
                assert_eq!(headers.contains_key(name), expected, "{when:?} {name}");
            }
            let refused = response.status() == StatusCode::TOO_MANY_REQUESTS;
            assert_eq!(
                headers.get("retry-after").is_some_and(|s| s == "60"),
                refused
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_plan_limits_running_tasks_too() {
    let fake = FakePloton::new()
        .plan(Plan::Prototyping)
        .task_duration(MINUTE);
    for _ in 0..10 {
        assert_eq!(send(&fake, create("x")).await.status(), StatusCode::CREATED);
    }
    assert_eq!(
        error(&fake, create("x")).await,
        (429, "rate_limit_exceeded".into())
    );
    assert!(fake.finish(&fake.tasks()[3].id));
    assert!(!fake.finish(&fake.tasks()[3].id));
    assert_eq!(send(&fake, create("x")).await.status(), StatusCode::CREATED);
    time::advance(MINUTE).await;
    assert_eq!(send(&fake, create("x")).await.status(), StatusCode::CREATED);
}

#[tokio::test(start_paused = true)]
async fn the_rate_headers_tell_each_model_by_the_servers_clock() {
    const NOON: u64 = 1_718_452_800;
    let two = NonZeroU32::new(2).unwrap();
    // After 10.5 s: two are allowed, one is refused. The clock shows the half second, Reset does not.
    for (model, resets, retry_after) in [
        (RateLimitModel::fixed_window(two, MINUTE), [60, 60, 60], 50),
        (RateLimitModel::sliding_log(two, MINUTE), [71, 71, 71], 60),
        (
            RateLimitModel::token_bucket(two, two, MINUTE),
            [41, 71, 71],
            30,
        ),
    ] {
        let clock = SystemTime::UNIX_EPOCH + Duration::from_millis(NOON * 1_000 + 500);
        let fake = FakePloton::new().rate_limit(model).clock(clock);
        time::advance(Duration::from_millis(10_500)).await;
        for (reset, remaining) in resets.into_iter().zip(["1", "0", "0"]) {
            let response = send(&fake, request(Method::GET, "/v1/tasks", "")).await;
            let headers = response.headers();
            assert_eq!(headers["x-ratelimit-limit"], "2");
            assert_eq!(headers["x-ratelimit-remaining"], remaining, "{model:?}");
            let reset = (NOON + reset).to_string();
            assert_eq!(headers["x-ratelimit-reset"], reset, "{model:?}");
            assert_eq!(headers["date"], "Sat, 15 Jun 2024 12:00:11 GMT");
            if response.status() == StatusCode::TOO_MANY_REQUESTS {
                assert_eq!(headers["retry-after"], retry_after.to_string());
            }
        }
        assert_eq!(fake.counts().refused, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_task_too_many_is_refused_as_the_test_wants() {
    let fake = FakePloton::new()
        .concurrent_tasks(NonZeroU32::MIN)
        .refuse_tasks_with(StatusCode::CONFLICT);
    send(&fake, create("one")).await;
    assert_eq!(send(&fake, create("two")).await.status(), 409);

    let fake = fake.refuse_tasks_with(StatusCode::TOO_MANY_REQUESTS);
    let refused = send(&fake, create("two")).await;
    assert_eq!(refused.headers()["retry-after"], "1");
    let fake = fake.concurrent_tasks(None);
    assert_eq!(send(&fake, create("two")).await.status(), 201);
}
