use tower::{BoxError, Layer, ServiceExt, service_fn};

use super::*;
use crate::{
    ApiKey, Attempts, Origin, Plan, PlotonIdempotency, PlotonRetry, PlotonStack,
    api::{ApiError, ErrorCode, PlotonErrors},
    mock::{FakePloton, Fault},
};

async fn read(status: u16, body: Scripted) -> ApiError {
    ApiError::from_response(answer(status, body)).await
}

fn json(code: &str) -> Scripted {
    Scripted::whole(format!(
        r#"{{"error":{{"code":"{code}","message":"why"}}}}"#
    ))
}

#[tokio::test]
async fn the_codes_are_those_of_the_api_page_with_what_to_do() {
    let table = [
        ("invalid_api_key", 401, false, "use a new API key"),
        ("missing_api_key", 401, false, "add an API key"),
        ("invalid_request", 400, false, "mend the request"),
        ("task_not_found", 404, false, "check the task's id"),
        (
            "task_already_complete",
            409,
            false,
            "do nothing: the task has finished",
        ),
        (
            "rate_limit_exceeded",
            429,
            true,
            "wait as long as Ploton asks, then try again",
        ),
        (
            "prompt_too_long",
            422,
            false,
            "shorten the prompt, or split it",
        ),
        (
            "internal_error",
            500,
            true,
            "try again, with growing delays",
        ),
    ];
    for (code, status, retryable, advice) in table {
        let error = read(status, json(code)).await;
        assert_eq!(error.code().unwrap().as_str(), code);
        assert!(!matches!(error.code(), Some(ErrorCode::Other(_))));
        assert_eq!(error.status(), status);
        assert_eq!(error.is_retryable(), retryable, "{code}");
        assert_eq!(error.what_to_do(), advice);
        assert_eq!(error.to_string(), format!("{status} {code}: why"));
        assert_eq!(error.excerpt(), None);
    }
}

#[tokio::test]
async fn an_unknown_code_and_unknown_fields_are_no_failure() {
    let body = r#"{"error":{"code":"on_holiday","message":"back soon","docs":[1]},"trace":{}}"#;
    let error = read(403, Scripted::whole(body)).await;
    assert_eq!(error.code(), Some(&ErrorCode::Other("on_holiday".into())));
    assert_eq!(error.message(), "back soon");
    assert_eq!(error.what_to_do(), "use a key that has the permission");

    let error = read(400, Scripted::whole(r#"{"error":{"message":"no code"}}"#)).await;
    assert_eq!((error.code(), error.message()), (None, "no code"));
    let error = read(
        400,
        Scripted::whole(r#"{"error":{"code":"invalid_request","message":7}}"#),
    );
    assert_eq!(error.await.code(), Some(&ErrorCode::InvalidRequest));
}

#[tokio::test]
async fn a_body_that_is_not_the_apis_error_is_told_with_an_excerpt() {
    let html = "<html>\n<h1>502 Bad Gateway</h1>";
    let table = [
        ("", "502: the body is empty"),
        (
            html,
            r#"502: the body is not JSON: "<html>\n<h1>502 Bad Gateway</h1>""#,
        ),
        (
            r#"{"error":{"co"#,
            r#"502: the body is cut off: "{"error":{"co""#,
        ),
        (
            "[]",
            r#"502: the body is JSON, but not the API's error: "[]""#,
        ),
        (
            r#"{"error":"no"}"#,
            r#"502: the body is JSON, but not the API's error: "{"error":"no"}""#,
        ),
        (
            r#"{"error":{"code":7}}"#,
            r#"502: the body is JSON, but not the API's error: "{"error":{"code":7}}""#,
        ),
        (
            "null",
            r#"502: the body is JSON, but not the API's error: "null""#,
        ),
    ];
    for (body, expected) in table {
        let error = read(502, Scripted::whole(body)).await;
        assert_eq!(error.to_string(), expected);
        assert_eq!(error.code(), None);
        assert!(error.is_retryable());
    }
    let deep = "[".repeat(100_000);
    assert_eq!(
        read(500, Scripted::whole(&deep)).await.message(),
        "the body has more than 65536 bytes"
    );
    let error = read(500, Scripted::whole(&deep[..60_000])).await;
    assert!(error.excerpt().unwrap().chars().count() <= 201);
}

#[tokio::test(start_paused = true)]
async fn a_body_is_read_within_64_kib_and_5_s() {
    let start = tokio::time::Instant::now();
    let error = read(500, Scripted::new([Step::Endless("spam".into())])).await;
    assert_eq!(error.message(), "the body has more than 65536 bytes");
    assert_eq!((tokio::time::Instant::now() - start), Duration::ZERO);

    let whole = format!(
        r#"{{"error":{{"code":"internal_error","message":"m"}}}}{}"#,
        " ".repeat(65_000)
    );
    let error = read(500, Scripted::whole(&whole)).await;
    assert_eq!(error.code(), Some(&ErrorCode::InternalError));

    let slow = [
        Step::Data("{".into()),
        Step::Wait(Duration::from_secs(3600)),
    ];
    let error = read(503, Scripted::new(slow)).await;
    assert_eq!(
        error.to_string(),
        r#"503: the body did not end within 5 s: "{""#
    );
    assert_eq!(
        (tokio::time::Instant::now() - start),
        Duration::from_secs(5)
    );

    // One byte at a time is no way around it.
    let drip = (0..100).flat_map(|_| [Step::Wait(Duration::from_secs(1)), Step::Data(" ".into())]);
    let error = read(503, Scripted::new(drip.collect::<VecDeque<_>>())).await;
    assert_eq!(error.message(), "the body did not end within 5 s");
    assert_eq!(
        (tokio::time::Instant::now() - start),
        Duration::from_secs(10)
    );
}

#[tokio::test]
async fn a_broken_body_is_told_unless_all_of_the_error_came() {
    let broken = [Step::Data(r#"{"error":"#.into()), Step::Break];
    let error = read(500, Scripted::new(broken)).await;
    assert_eq!(error.to_string(), r#"500: the body broke off: "{"error":""#);

    let whole = r#"{"error":{"code":"internal_error","message":"m"}}"#;
    let late = [Step::Data(whole.into()), Step::Trailers, Step::Break];
    let error = read(500, Scripted::new(late)).await;
    assert_eq!(error.code(), Some(&ErrorCode::InternalError));
}

#[tokio::test]
async fn what_the_headers_say_is_in_the_error() {
    let mut response = answer(429, json("rate_limit_exceeded"));
    response
        .headers_mut()
        .insert("retry-after", "12".parse().unwrap());
    response
        .headers_mut()
        .insert("x-request-id", "req_7".parse().unwrap());
    let error = ApiError::from_response(response).await;
    assert_eq!(error.retry_after(), Some(Duration::from_secs(12)));
    assert_eq!(error.request_id(), Some("req_7"));
    assert_eq!(
        error.to_string(),
        "429 rate_limit_exceeded: why (request id req_7, retry after 12 s)"
    );
    assert_eq!(error.attempts().map(Attempts::made), None);

    let mut response = answer(500, json("internal_error"));
    response.headers_mut().insert(
        "request-id",
        http::HeaderValue::from_bytes(b"\x80\xff").unwrap(),
    );
    let error = ApiError::from_response(response).await;
    assert_eq!(error.request_id(), Some("\u{fffd}\u{fffd}"));
}

#[tokio::test]
async fn a_key_in_an_error_is_not_shown() {
    let key = "pk_live_hunter2hunter2";
    let body = format!(r#"{{"error":{{"code":"{key}","message":"key {key} is revoked"}}}}"#);
    let mut response = answer(401, Scripted::whole(body));
    response
        .headers_mut()
        .insert("x-request-id", key.parse().unwrap());
    let error = ApiError::from_response(response).await;
    let all = format!("{error} {error:?} {}", error.message());
    assert!(!all.contains("hunter2"), "{all}");
    let error = read(
        502,
        Scripted::whole(format!("<pre>Authorization: Bearer {key}</pre>")),
    )
    .await;
    let all = format!("{error} {error:?} {:?}", error.excerpt());
    assert!(
        !all.contains("hunter2") && all.contains("pk_live_…"),
        "{all}"
    );
}

fn post(body: &'static str) -> Request<Full<Bytes>> {
    let request = Request::post("https://api.ploton.ai/v1/tasks");
    request.body(Full::from(body)).unwrap()
}

fn get(uri: &str) -> Request<Full<Bytes>> {
    Request::get(uri).body(Full::default()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_layer_makes_an_error_of_an_answer_with_the_story_of_its_request() {
    let fake = FakePloton::new();
    let key = ApiKey::parse("pk_test_4f9d0c2b7a6e1583").unwrap();
    let stack = PlotonStack::new(key, Plan::Production).retry(PlotonRetry::new().attempts(2));
    let service = PlotonErrors::new().layer(stack.layer(fake.clone()));
    for _ in 0..2 {
        fake.fail_next(Fault::RateLimited {
            retry_after: Some(Duration::from_secs(7)),
        });
    }
    let post = post(r#"{"prompt":"p"}"#);
    let error = service.oneshot(post).await.unwrap_err();
    let error = error.downcast::<ApiError>().unwrap();
    assert_eq!(error.code(), Some(&ErrorCode::RateLimitExceeded));
    assert_eq!(error.attempts().unwrap().made(), 2);
    assert_eq!(error.retry_after(), Some(Duration::from_secs(7)));
    let sent = fake.attempts()[0].idempotency_key.clone().unwrap();
    assert_eq!(error.idempotency_key().unwrap().as_str(), sent);
    assert_eq!(
        error.attempts().unwrap().idempotency_key(),
        error.idempotency_key()
    );
}

#[tokio::test]
async fn the_key_is_known_without_retry_too() {
    let fake = FakePloton::new();
    let service = PlotonErrors::new().layer(PlotonIdempotency::new().layer(fake.clone()));
    let post = post("{}");
    let error = service.oneshot(post).await.unwrap_err();
    let error: &ApiError = error.downcast_ref().unwrap();
    assert_eq!(error.code(), Some(&ErrorCode::MissingApiKey));
    let sent = fake.attempts()[0].idempotency_key.clone().unwrap();
    assert_eq!(error.idempotency_key().unwrap().as_str(), sent);
}

#[tokio::test]
async fn a_key_of_the_callers_own_is_known_without_any_layer() {
    let mut post = post("{}");
    post.headers_mut()
        .insert("idempotency-key", "mine".parse().unwrap());
    let error = PlotonErrors::new()
        .layer(FakePloton::new())
        .oneshot(post)
        .await;
    let error = error.unwrap_err().downcast::<ApiError>().unwrap();
    assert_eq!(
        error.idempotency_key().map(|key| key.as_str()),
        Some("mine")
    );
}

#[tokio::test]
async fn the_layer_leaves_other_answers_and_other_origins_as_they_are() {
    let local = Origin::parse("http://127.0.0.1:8080").unwrap();
    for (layer, uri, status, is_error) in [
        (
            PlotonErrors::new(),
            "https://api.ploton.ai/v1/tasks",
            200,
            false,
        ),
        (
            PlotonErrors::new(),
            "https://api.ploton.ai/v1/tasks",
            304,
            false,
        ),
        (
            PlotonErrors::new(),
            "https://api.ploton.ai/v1/tasks",
            404,
            true,
        ),
        (
            PlotonErrors::new(),
            "https://api.ploton.ai/v1/tasks",
            599,
            true,
        ),
        (PlotonErrors::new(), "/v1/tasks", 404, true),
        (
            PlotonErrors::new(),
            "https://evil.example/v1/tasks",
            404,
            false,
        ),
        (
            PlotonErrors::new().origin(local.clone()),
            "http://127.0.0.1:8080/x",
            404,
            true,
        ),
        (
            PlotonErrors::new().origin(local),
            "https://api.ploton.ai/v1/tasks",
            404,
            false,
        ),
    ] {
        let server = Server::new(move |_, _| answer(status, json("task_not_found")));
        let result = layer.layer(server).oneshot(get(uri)).await;
        match result {
            Ok(response) => {
                assert!(!is_error, "{uri} {status}");
                let body = response.into_body().collect().await.unwrap().to_bytes();
                assert!(body.starts_with(b"{"), "the body is untouched");
            }
            Err(error) => assert!(
                is_error && error.is::<ApiError>(),
                "{uri} {status}: {error}"
            ),
        }
    }
}

#[tokio::test]
async fn the_inner_services_error_passes_the_layer() {
    let service = service_fn(async |_: Request<Full<Bytes>>| {
        Err::<Response<Scripted>, BoxError>(io::Error::other("no way").into())
    });
    let error = PlotonErrors::new().layer(service).oneshot(get("/")).await;
    assert!(error.err().unwrap().is::<io::Error>());
}
