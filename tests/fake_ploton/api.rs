//! Tasks, errors, idempotency keys, records.

use std::{num::NonZeroU32, time::Duration};

use http::{HeaderValue, Method, StatusCode, header::CONTENT_TYPE};
use serde_json::json;
use tokio::time;
use tower_ploton::mock::{FakePloton, Fault, RateLimitModel, TaskStatus};

use crate::{MINUTE, create, error, get, keyed, request, send, support};

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

/// It was revoked at once.
#[tokio::test(start_paused = true)]
async fn a_grace_without_end_revokes_no_key() {
    let fake = FakePloton::new();
    fake.revoke_key_after(support::KEY, Duration::MAX);
    let response = send(&fake, create("x")).await;
    assert_eq!(response.status(), StatusCode::CREATED);
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

#[tokio::test(start_paused = true)]
async fn what_is_no_endpoint_is_not_found() {
    let fake = FakePloton::new();
    for (method, path) in [
        (Method::GET, "/tasks"),
        (Method::GET, "/v1/users"),
        (Method::DELETE, "/v1/tasks/task_000001"),
        (Method::POST, "/v1/tasks/"),
    ] {
        let refused = error(&fake, request(method, path, "")).await;
        assert_eq!(refused, (404, "invalid_request".into()), "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_content_type_other_than_json_is_refused() {
    let fake = FakePloton::new();
    for (kind, status) in [
        ("application/json; charset=utf-8", 201),
        ("application/x-www-form-urlencoded", 400),
    ] {
        let mut request = create("x");
        let kind = HeaderValue::from_static(kind);
        request.headers_mut().insert(CONTENT_TYPE, kind);
        assert_eq!(send(&fake, request).await.status(), status);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_not_stored_under_its_key() {
    let fake = FakePloton::new().concurrent_tasks(NonZeroU32::MIN);
    send(&fake, create("one")).await;
    assert_eq!(send(&fake, keyed("two", "k")).await.status(), 429);
    assert!(fake.fail(&fake.tasks()[0].id));
    assert_eq!(send(&fake, keyed("two", "k")).await.status(), 201);
    assert_eq!(fake.tasks()[0].status, TaskStatus::Failed);
    assert_eq!(fake.tasks()[1].idempotency_key.as_deref(), Some("k"));
}

#[tokio::test(start_paused = true)]
async fn two_keys_or_an_unreadable_one_are_refused() {
    let fake = FakePloton::new();
    let mut two = keyed("one", "a");
    let other = HeaderValue::from_static("b");
    two.headers_mut().append("idempotency-key", other);
    assert_eq!(error(&fake, two).await, (400, "invalid_request".into()));

    let mut unreadable = keyed("one", "a");
    let value = HeaderValue::from_bytes(b"\xff").unwrap();
    unreadable.headers_mut().insert("idempotency-key", value);
    assert_eq!(error(&fake, unreadable).await.0, 400);
}

#[tokio::test(start_paused = true)]
async fn attempts_tell_which_credential_they_had_without_showing_it() {
    let fake = FakePloton::new();
    let with = |value: Option<&'static str>| {
        let mut request = create("x");
        request.headers_mut().clear();
        if let Some(value) = value {
            let value = HeaderValue::from_static(value);
            request.headers_mut().insert("authorization", value);
        }
        request
    };
    let (a, b) = (Some("Bearer pk_test_a"), Some("Bearer pk_test_b"));
    for value in [a, b, None, a] {
        send(&fake, with(value)).await;
    }
    let attempts = fake.attempts();
    let credentials: Vec<_> = attempts.iter().map(|attempt| attempt.credential).collect();
    assert_eq!(credentials, [Some(0), Some(1), None, Some(0)]);
    assert!(!attempts[2].authorized);
}
