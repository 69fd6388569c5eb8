//! What the layers log: enough for whoever is on call, and no secret.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by a panic"
)]

mod support;

use std::{future, time::Duration};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header::AUTHORIZATION};
use http_body_util::Full;
use tower::{BoxError, Layer, ServiceBuilder, ServiceExt, service_fn};
use tower_ploton::{
    ApiKey, Plan, PlotonAuth, PlotonIdempotency, PlotonRetry, PlotonStack,
    mock::{FakePloton, Fault},
};
use tracing::Instrument;

use support::{KEY, create, key, log::Log};

/// In the line of a span that ended.
const CLOSED: &str = " close ";
const PLOTON: &str = "https://api.ploton.ai";

fn troubled() -> FakePloton {
    let fake = FakePloton::new();
    fake.fail_next(Fault::CutAfter);
    fake.fail_next(Fault::RateLimited {
        retry_after: Some(Duration::from_secs(2)),
    });
    fake
}

#[tokio::test(start_paused = true)]
async fn no_log_line_and_no_debug_output_holds_the_key() {
    let (log, _guard) = Log::capture();
    let fake = troubled();
    let stack = PlotonStack::new(key(), Plan::Production);
    let service = stack.layer(fake.clone());
    let mut shown = format!("{stack:?} {service:?} {fake:?}");
    let response = service
        .clone()
        .oneshot(create(PLOTON, "one"))
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::CREATED);
    for _ in 0..4 {
        fake.fail_next(Fault::CutBefore);
    }
    let error = service.oneshot(create(PLOTON, "two")).await.unwrap_err();
    let mut cause: Option<&dyn std::error::Error> = Some(&*error);
    while let Some(error) = cause {
        shown += &format!("{error} {error:?}");
        cause = error.source();
    }
    shown += &format!("{:?} {:?} {}", fake.attempts(), fake.tasks(), log.text());
    assert!(shown.contains("sending the request again"), "{shown}");
    assert!(shown.contains("a 429 pauses all requests"), "{shown}");
    let secret = KEY.strip_prefix("pk_test_").unwrap();
    assert!(!shown.contains(secret), "{shown}");
    assert!(!shown.contains(AUTHORIZATION.as_str()), "{shown}");
}

/// What a retry logs, with the idempotency layer outside and inside the retry layer.
async fn logged(key_in_span: bool, outside: bool) -> (String, String) {
    let (log, _guard) = Log::capture();
    let fake = troubled();
    let idempotency = PlotonIdempotency::new().key_in_span(key_in_span);
    let retry = PlotonRetry::new().key_in_span(key_in_span);
    let auth = PlotonAuth::new(key());
    let mut request = create(PLOTON, "one");
    *request.uri_mut() = format!("{PLOTON}/v1/tasks?token=hunter2").parse().unwrap();
    let network = ServiceBuilder::new()
        .map_err(BoxError::from)
        .layer(auth)
        .service(fake.clone());
    let response = if outside {
        idempotency
            .layer(retry.layer(network))
            .oneshot(request)
            .await
    } else {
        retry
            .layer(idempotency.layer(network))
            .oneshot(request)
            .await
    };
    assert_eq!(response.unwrap().status(), StatusCode::CREATED);
    assert!(!log.text().contains("hunter2"), "a query may hold anything");
    let key = fake.attempts()[0].idempotency_key.clone().unwrap();
    let retries = log
        .text()
        .lines()
        .filter(|line| !line.contains(CLOSED))
        .collect::<Vec<_>>()
        .join("\n");
    (retries, key)
}

#[tokio::test(start_paused = true)]
async fn every_retry_names_the_idempotency_key_unless_that_is_turned_off() {
    for outside in [true, false] {
        let (log, key) = logged(true, outside).await;
        assert_eq!(log.lines().count(), 2, "{log}");
        assert!(log.lines().all(|line| line.contains(&key)), "{log}");
        let (log, key) = logged(false, outside).await;
        assert_eq!(log.lines().count(), 2, "{log}");
        assert!(!log.contains(&key), "{log}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_retry_is_one_line_that_says_which_request_which_attempt_how_long_and_why() {
    let (log, _) = logged(true, true).await;
    let lines: Vec<_> = log.lines().collect();
    for line in &lines {
        assert!(line.contains("INFO"), "{line}");
        assert!(line.contains("http.request.method=\"POST\""), "{line}");
        assert!(line.contains("server.address=\"api.ploton.ai\""), "{line}");
        assert!(line.contains("url.path=\"/v1/tasks\""), "{line}");
        assert!(line.contains("delay_ms="), "{line}");
    }
    assert!(
        lines[0].contains("error.type=\"connection_reset\""),
        "{log}"
    );
    assert!(lines[0].contains("http.request.resend_count=1"), "{log}");
    assert!(lines[0].contains("delay_from=\"backoff\""), "{log}");
    assert!(lines[1].contains("http.response.status_code=429"), "{log}");
    assert!(lines[1].contains("http.request.resend_count=2"), "{log}");
    assert!(lines[1].contains("delay_from=\"retry-after\""), "{log}");
}

#[tokio::test(start_paused = true)]
async fn without_a_retry_layer_the_key_goes_into_the_callers_span() {
    let (log, _guard) = Log::capture();
    let fake = FakePloton::new();
    let span = tracing::info_span!("job", ploton.idempotency_key = tracing::field::Empty);
    let service = PlotonIdempotency::new().layer(fake.clone());
    let call = span.in_scope(|| service.oneshot(create(PLOTON, "one")));
    call.instrument(span.clone()).await.unwrap();
    span.in_scope(|| tracing::info!("done"));
    let key = fake.attempts()[0].idempotency_key.clone().unwrap();
    assert!(log.text().contains(&key), "{}", log.text());
}

/// The fields of the span of a request that suffers `faults`, when it ended.
async fn ended(faults: &[Fault]) -> String {
    let (log, _guard) = Log::capture();
    let fake = FakePloton::new();
    faults
        .iter()
        .cloned()
        .for_each(|fault| fake.fail_next(fault));
    let service = PlotonStack::new(key(), Plan::Production).layer(fake);
    let _ = service.oneshot(create(PLOTON, "one")).await;
    let text = log.text();
    let of_request = |line: &&str| line.contains(CLOSED) && !line.contains(":attempt{");
    let line = text.lines().find(of_request);
    line.expect(&text).to_owned()
}

/// The error of an attempt stayed on the span of a request that ended well.
#[tokio::test(start_paused = true)]
async fn a_span_says_how_the_request_ended_not_how_an_attempt_did() {
    let well = ended(&[Fault::CutAfter]).await;
    assert!(well.contains("http.response.status_code=201"), "{well}");
    assert!(well.contains("http.request.resend_count=1"), "{well}");
    assert!(!well.contains("error.type"), "{well}");

    let badly = ended(&[
        Fault::CutBefore,
        Fault::CutBefore,
        Fault::CutBefore,
        Fault::CutBefore,
    ])
    .await;
    assert!(badly.contains("error.type=\"connection_reset\""), "{badly}");
    assert!(badly.contains("http.request.resend_count=3"), "{badly}");
    assert!(!badly.contains("http.response.status_code"), "{badly}");
}

/// The lines about a request that is not sent again.
async fn given_up(retry: PlotonRetry, fault: Fault) -> Vec<String> {
    let (log, _guard) = Log::capture();
    let fake = FakePloton::new().fault_rate(fault, 1.0);
    let service = ServiceBuilder::new()
        .layer(PlotonIdempotency::new())
        .layer(retry)
        .service(fake);
    let _ = service.oneshot(create(PLOTON, "one")).await;
    let text = log.text();
    let lines = text.lines().filter(|line| line.contains("not sending"));
    lines.map(str::to_owned).collect()
}

#[tokio::test(start_paused = true)]
async fn giving_up_is_one_line_that_says_why() {
    let failed = || Fault::Status(StatusCode::BAD_GATEWAY);
    let refused = |seconds| Fault::RateLimited {
        retry_after: Some(Duration::from_secs(seconds)),
    };
    let soon = || PlotonRetry::new().deadline(Duration::from_secs(9));
    for (retry, fault, reason) in [
        (PlotonRetry::new(), failed(), "attempts"),
        (PlotonRetry::new().quota(20), failed(), "quota"),
        (PlotonRetry::new(), refused(500), "hint"),
        (soon(), refused(10), "deadline"),
    ] {
        let lines = given_up(retry, fault).await;
        let [line] = &lines[..] else {
            panic!("{reason}: {lines:?}");
        };
        assert!(line.contains("WARN"), "{line}");
        assert!(line.contains(&format!("reason=\"{reason}\"")), "{line}");
        assert!(line.contains("attempts="), "{line}");
        assert!(line.contains("http.response.status_code="), "{line}");
        assert!(line.contains("ploton.idempotency_key=\"req_"), "{line}");
    }
    let final_answer = Fault::Status(StatusCode::UNPROCESSABLE_ENTITY);
    let lines = given_up(PlotonRetry::new(), final_answer).await;
    assert!(lines.is_empty(), "nobody thought of sending it again");
}

#[tokio::test(start_paused = true)]
async fn a_retry_with_a_new_key_says_so() {
    let (log, _guard) = Log::capture();
    let auth = PlotonAuth::new(key());
    let handle = auth.key_handle();
    let next = ApiKey::parse("pk_test_another4another4").unwrap();
    // Refuses the first key, which has just been replaced.
    let server = service_fn(move |request: Request<Full<Bytes>>| {
        let is_old = request.headers()[AUTHORIZATION]
            .to_str()
            .unwrap()
            .ends_with(KEY);
        let replaced = handle.set(next.clone());
        let status = if is_old { 401 } else { 201 };
        let answer = Response::builder()
            .status(status)
            .body(Full::<Bytes>::default());
        future::ready(replaced.map(|()| answer.unwrap()))
    });
    let service = PlotonRetry::new().layer(auth.layer(server));
    let response = service.oneshot(create(PLOTON, "one")).await.unwrap();
    assert_eq!(response.status(), StatusCode::CREATED);
    let log = log.text();
    let line = log
        .lines()
        .find(|line| line.contains("sending the request again"));
    assert!(
        line.unwrap().contains("delay_ms=0 delay_from=\"new key\""),
        "{log}"
    );
}
