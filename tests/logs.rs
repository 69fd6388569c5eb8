//! What the layers log: enough for whoever is on call, and no secret.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by a panic"
)]

mod support;

use std::time::Duration;

use http::{StatusCode, header::AUTHORIZATION};
use tower::{BoxError, Layer, ServiceBuilder, ServiceExt};
use tower_ploton::{
    Plan, PlotonAuth, PlotonIdempotency, PlotonRetry, PlotonStack,
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
    let line = text.lines().find(|line| line.contains(CLOSED));
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
