//! The fake Ploton does what the API page says, and what a test asks of it.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by a panic"
)]

mod support;

use std::{io, num::NonZeroU32, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::{Value, json};
use tokio::time;
use tower::ServiceExt;
use tower_ploton::{
    Plan,
    mock::{FakeBody, FakePloton, Fault, Outcome, RateHeaders, RateLimitModel, TaskStatus},
};

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

#[tokio::test(start_paused = true)]
async fn a_task_is_created_shown_listed_and_cancelled() {
    let fake = FakePloton::new();
    let response = send(&fake, create("one")).await;
    assert_eq!(response.status(), StatusCode::CREATED);
    let task = support::json(response).await;
    let id = task["id"].as_str().unwrap();
    assert!(id.starts_with("task_"));
    assert_eq!(task["status"], "running");
    assert!(task["created_at"].as_str().unwrap().ends_with('Z'));
    assert_eq!(
        get(&fake, &format!("/v1/tasks/{id}")).await,
        (StatusCode::OK, task.clone())
    );
    let page = json!({ "data": [task], "has_more": false });
    assert_eq!(get(&fake, "/v1/tasks").await, (StatusCode::OK, page));

    let cancel = || request(Method::POST, &format!("/v1/tasks/{id}/cancel"), "");
    assert_eq!(send(&fake, cancel()).await.status(), StatusCode::OK);
    assert_eq!(fake.tasks()[0].status, TaskStatus::Cancelled);
    assert_eq!(
        error(&fake, cancel()).await,
        (409, "task_already_complete".into())
    );
}

#[tokio::test(start_paused = true)]
async fn a_list_comes_in_pages() {
    let fake = FakePloton::new();
    for n in 0..45 {
        send(&fake, create(&format!("task {n}"))).await;
    }
    for (query, len, more) in [
        ("", 20, true),
        ("?limit=100", 45, false),
        ("?limit=25&offset=20", 25, false),
        ("?offset=45", 0, false),
    ] {
        let (_, page) = get(&fake, &format!("/v1/tasks{query}")).await;
        assert_eq!(page["data"].as_array().unwrap().len(), len, "{query}");
        assert_eq!(page["has_more"], more, "{query}");
    }
    let query = request(Method::GET, "/v1/tasks?limit=101", "");
    assert_eq!(error(&fake, query).await, (400, "invalid_request".into()));
}

#[tokio::test(start_paused = true)]
async fn every_error_of_the_page_can_be_had() {
    let fake = FakePloton::new()
        .accept_key(support::KEY)
        .rate_limit(RateLimitModel::fixed_window(
            NonZeroU32::new(4).unwrap(),
            MINUTE,
        ));
    let with_key = |value: &'static str| {
        let mut request = create("x");
        request
            .headers_mut()
            .insert("authorization", HeaderValue::from_static(value));
        request
    };
    let mut without = create("x");
    without.headers_mut().clear();
    assert_eq!(error(&fake, without).await, (401, "missing_api_key".into()));
    for value in [
        "Bearer pk_test_unknown",
        "Bearer sk_1",
        "Basic pk_test_4f9d0c2b7a6e1583",
        "pk_test_4f9d0c2b7a6e1583",
    ] {
        assert_eq!(
            error(&fake, with_key(value)).await,
            (401, "invalid_api_key".into()),
            "{value}"
        );
    }
    let no_json = request(Method::POST, "/v1/tasks", "{");
    assert_eq!(error(&fake, no_json).await, (400, "invalid_request".into()));
    let no_prompt = request(Method::POST, "/v1/tasks", "{}");
    assert_eq!(
        error(&fake, no_prompt).await,
        (400, "invalid_request".into())
    );
    let unknown = request(Method::GET, "/v1/tasks/task_999999", "");
    assert_eq!(error(&fake, unknown).await, (404, "task_not_found".into()));
    let long = create(&"\u{e9}".repeat(10_001));
    assert_eq!(error(&fake, long).await, (422, "prompt_too_long".into()));
    assert_eq!(
        error(&fake, create("x")).await,
        (429, "rate_limit_exceeded".into())
    );
    fake.fail_next(Fault::Status(StatusCode::INTERNAL_SERVER_ERROR));
    assert_eq!(
        error(&fake, create("x")).await,
        (500, "internal_error".into())
    );
    fake.revoke_key(support::KEY);
    assert_eq!(
        error(&fake, create("x")).await,
        (401, "invalid_api_key".into())
    );
    assert_eq!(fake.counts().created, 0);
}

#[tokio::test(start_paused = true)]
async fn plain_http_is_rejected_and_a_body_is_read_within_bounds() {
    let fake = FakePloton::new();
    let mut clear = create("x");
    *clear.uri_mut() = "http://api.ploton.ai/v1/tasks".parse().unwrap();
    assert_eq!(error(&fake, clear).await.0, 400);
    let huge = request(Method::POST, "/v1/tasks", &" ".repeat(2 * 1024 * 1024));
    assert_eq!(error(&fake, huge).await.0, 400);
}

#[tokio::test(start_paused = true)]
async fn a_used_key_gets_the_original_answer_for_24_hours() {
    let fake = FakePloton::new();
    let first = send(&fake, keyed("one", "k")).await;
    assert!(!first.headers().contains_key("idempotent-replayed"));
    let first = support::json(first).await;
    time::advance(Duration::from_secs(24 * 60 * 60 - 1)).await;
    let again = send(&fake, keyed("one", "k")).await;
    assert_eq!(again.status(), StatusCode::CREATED);
    assert_eq!(again.headers()["idempotent-replayed"], "true");
    assert_eq!(support::json(again).await, first);
    assert_eq!(error(&fake, keyed("two", "k")).await.0, 422);
    assert_eq!((fake.counts().created, fake.counts().replayed), (1, 1));

    let mut other = keyed("one", "k");
    other.headers_mut().insert(
        "authorization",
        HeaderValue::from_static("Bearer pk_live_other"),
    );
    send(&fake, other).await;
    assert_eq!(fake.counts().created, 2, "a key belongs to its caller");

    time::advance(Duration::from_secs(1)).await;
    send(&fake, keyed("one", "k")).await;
    assert_eq!(fake.counts().created, 3, "the server forgets");
    assert_eq!(fake.counts().duplicated, 2);
}

#[tokio::test(start_paused = true)]
async fn a_stored_500_is_replayed_where_that_is_asked_for() {
    for replay in [false, true] {
        let fake = FakePloton::new().replay_errors(replay);
        fake.fail_next(Fault::Status(StatusCode::INTERNAL_SERVER_ERROR));
        send(&fake, keyed("one", "k")).await;
        let again = send(&fake, keyed("one", "k")).await;
        assert_eq!(again.status().is_server_error(), replay);
        assert_eq!(again.headers().contains_key("idempotent-replayed"), replay);
    }
}

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
async fn every_fault_in_memory() {
    let fake = FakePloton::new().latency(Duration::from_secs(1));
    let start = time::Instant::now();
    send(&fake, create("latency")).await;
    assert_eq!((time::Instant::now() - start).as_secs(), 1);
    fake.fail_next(Fault::Delay(Duration::from_secs(5)));
    send(&fake, create("delay")).await;
    assert_eq!((time::Instant::now() - start).as_secs(), 7);

    for fault in [Fault::CutBefore, Fault::CutAfter] {
        fake.fail_next(fault);
        let error = fake.clone().oneshot(create("cut")).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
    fake.fail_next(Fault::TruncatedBody);
    let truncated = send(&fake, create("truncated")).await.into_body();
    assert_eq!(
        truncated.collect().await.unwrap_err().kind(),
        io::ErrorKind::UnexpectedEof
    );

    fake.fail_next(Fault::RateLimited {
        retry_after: Some(Duration::from_millis(11_500)),
    });
    assert_eq!(
        send(&fake, create("x")).await.headers()["retry-after"],
        "12"
    );

    let strange = HeaderValue::from_bytes(b"\xff").unwrap();
    let headers = HeaderMap::from_iter([(http::header::RETRY_AFTER, strange.clone())]);
    fake.fail_next(Fault::Respond(StatusCode::OK, headers));
    assert_eq!(
        send(&fake, create("x")).await.headers()["retry-after"],
        strange
    );

    fake.fail_next(Fault::Hang);
    time::timeout(10 * MINUTE, fake.clone().oneshot(create("x")))
        .await
        .unwrap_err();

    let outcomes: Vec<_> = fake
        .attempts()
        .iter()
        .map(|attempt| attempt.outcome)
        .collect();
    let answered = |status: u16| Outcome::Answered(StatusCode::from_u16(status).unwrap());
    let expected = [
        answered(201),
        answered(201),
        Outcome::CutBefore,
        Outcome::CutAfter,
        Outcome::Truncated,
        answered(429),
        answered(200),
        Outcome::Unanswered,
    ];
    assert_eq!(outcomes, expected);
    let prompts: Vec<_> = fake.tasks().into_iter().map(|task| task.prompt).collect();
    assert_eq!(prompts, ["latency", "delay", "cut", "truncated"]);
}

#[tokio::test(start_paused = true)]
async fn one_seed_gives_one_sequence_near_its_rates() {
    let mut sequences = Vec::new();
    for seed in [1, 1, 2] {
        let fake = FakePloton::new()
            .seed(seed)
            .fault_rate(Fault::CutBefore, 0.2);
        for _ in 0..1_000 {
            let _ = fake.clone().oneshot(create("x")).await;
        }
        let cut = fake.counts().cut;
        assert!((150..250).contains(&cut), "{cut}");
        let outcomes: Vec<_> = fake
            .attempts()
            .iter()
            .map(|attempt| attempt.outcome)
            .collect();
        sequences.push(outcomes);
    }
    assert_eq!(sequences[0], sequences[1]);
    assert_ne!(sequences[0], sequences[2]);
}

#[tokio::test]
async fn a_cut_on_a_socket_is_a_cut_and_the_work_is_done_or_not() {
    for http2 in [false, true] {
        let fake = FakePloton::new();
        let server = fake.listen().await.unwrap();
        let client = Client::builder(TokioExecutor::new())
            .http2_only(http2)
            .build_http();
        let request = |prompt: &str| {
            let mut request = create(prompt);
            *request.uri_mut() = format!("{}/v1/tasks", server.url()).parse().unwrap();
            request
        };
        for (n, fault) in [Fault::CutBefore, Fault::CutAfter].into_iter().enumerate() {
            fake.fail_next(fault);
            client.request(request("cut")).await.unwrap_err();
            assert_eq!(fake.counts().created, n as u64);
        }
        fake.fail_next(Fault::TruncatedBody);
        let response = client.request(request("truncated")).await.unwrap();
        assert_eq!(response.status(), StatusCode::CREATED);
        response.into_body().collect().await.unwrap_err();
        let response = client.request(request("whole")).await.unwrap();
        support::json(response).await;
        assert_eq!(fake.counts().created, 3);
        assert_eq!(server.connections(), 4, "each cut closed its connection");
    }
}

#[tokio::test]
async fn a_server_that_is_dropped_closes_its_port() {
    let server = FakePloton::new().listen().await.unwrap();
    let addr = server.addr();
    tokio::net::TcpStream::connect(addr).await.unwrap();
    drop(server);
    while tokio::net::TcpStream::connect(addr).await.is_ok() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn no_record_holds_a_key() {
    let fake = FakePloton::new().accept_key(support::KEY);
    send(&fake, keyed("one", "k")).await;
    let shown = format!(
        "{fake:?} {:?} {:?} {:?}",
        fake.attempts(),
        fake.tasks(),
        fake.counts()
    );
    assert!(!shown.contains(support::KEY), "{shown}");
}
