//! Whatever the server or the caller sends: an answer or a typed error, no panic and no hang.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by a panic"
)]

mod support;

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode};
use http_body_util::Full;
use tower::{Layer, ServiceExt};
use tower_ploton::{
    ApiKey, Origin, Plan, PlotonRetry, PlotonStack,
    mock::{FakePloton, Fault},
};

use support::key;

fn get(uri: &str) -> Request<Full<Bytes>> {
    Request::get(uri).body(Full::default()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn garbage_in_the_headers_of_an_answer_is_ignored() {
    let values: [&[u8]; 14] = [
        b"",
        b"0",
        b"-1",
        b"+5",
        b"\xff\xfe",
        b"1e400",
        b"NaN",
        b"inf",
        b"18446744073709551616",
        b"5, 6",
        b"a, b;c=\"d",
        b"Zun, 32 Nov 1994 08:49:37 GMT",
        b"Sun, 06 Nov 1994 08:49:37 GMT",
        &[b'9'; 4_000],
    ];
    let names = [
        "retry-after",
        "x-ratelimit-limit",
        "x-ratelimit-remaining",
        "x-ratelimit-reset",
        "date",
        "idempotent-replayed",
    ];
    for status in [200, 404, 429, 500, 503] {
        for value in values {
            let value = HeaderValue::from_bytes(value).unwrap();
            let mut headers = HeaderMap::new();
            for name in names {
                headers.insert(HeaderName::from_static(name), value.clone());
                headers.append(HeaderName::from_static(name), value.clone());
                let fake = FakePloton::new();
                fake.fail_next(Fault::Respond(
                    StatusCode::from_u16(status).unwrap(),
                    headers.clone(),
                ));
                headers.remove(name);
                headers.insert(HeaderName::from_static(name), value.clone());
                fake.fail_next(Fault::Respond(
                    StatusCode::from_u16(status).unwrap(),
                    headers.clone(),
                ));
                let service = PlotonStack::new(key(), Plan::Production).layer(fake);
                let call = service.oneshot(get("https://api.ploton.ai/v1/tasks"));
                // Two refusals without a hint pause for a window each.
                let response = tokio::time::timeout(Duration::from_secs(150), call).await;
                let expected = if status == 404 { 404 } else { 200 };
                assert_eq!(
                    response.unwrap().unwrap().status(),
                    expected,
                    "{status} {name} {value:?}"
                );
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_huge_hint_hands_the_answer_back_at_once() {
    for seconds in [
        "121",
        "31536000",
        "18446744073709551615",
        "Fri, 31 Dec 9999 23:59:59 GMT",
    ] {
        let fake = FakePloton::new();
        let mut headers = HeaderMap::new();
        headers.insert("retry-after", seconds.parse().unwrap());
        fake.fail_next(Fault::Respond(StatusCode::TOO_MANY_REQUESTS, headers));
        let stack = PlotonStack::new(key(), Plan::Production).retry(PlotonRetry::new());
        let call = stack
            .layer(fake)
            .oneshot(get("https://api.ploton.ai/v1/tasks"));
        let response = tokio::time::timeout(Duration::from_secs(1), call)
            .await
            .unwrap();
        assert_eq!(response.unwrap().status(), StatusCode::TOO_MANY_REQUESTS);
        let paused = stack.rate_limit_handle().snapshot().paused_until.unwrap();
        let hour = tokio::time::Instant::now() + Duration::from_secs(3_606);
        assert!(paused <= hour, "the next request is not stopped for ever");
    }
}

#[tokio::test(start_paused = true)]
async fn a_uri_that_names_no_host_gets_no_key() {
    let fake = FakePloton::new();
    let service = PlotonStack::new(key(), Plan::Production).layer(fake.clone());
    for uri in ["/v1/tasks", "*", "api.ploton.ai:443"] {
        let response = service.clone().oneshot(get(uri)).await.unwrap();
        assert!(response.status().is_client_error(), "{uri}");
    }
    assert!(fake.attempts().iter().all(|attempt| !attempt.authorized));
}

#[test]
fn bad_keys_and_origins_are_typed_errors() {
    for text in [
        "",
        "pk_test_",
        "sk_live_1",
        "pk_test_a\nb",
        "pk_test_\u{e9}",
        "pk_live_a b",
    ] {
        let error: tower_ploton::InvalidApiKey = ApiKey::parse(text).unwrap_err();
        assert!(!error.to_string().is_empty());
    }
    for text in [
        "",
        "http://api.ploton.ai",
        "https://a/b",
        "https://",
        "https://a:65536",
        "\u{e9}",
    ] {
        let error: tower_ploton::InvalidOrigin = Origin::parse(text).unwrap_err();
        assert!(!error.to_string().is_empty());
    }
}
