//! The key is in nothing that is logged, printed or told, at any level, by this crate or by those under it; and in nothing
//! that another server than Ploton's receives.
//!
//! What every thread logs goes into one text, and each test searches what is new in it when it is done. So a leak may fail
//! another test than the one that leaked; the message shows what is around it.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by a panic"
)]

mod capture;
mod echo;
mod needles;
mod servers;
mod strangers;
mod typed;
mod types;

use std::{error::Error, num::NonZeroU32, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header::AUTHORIZATION};
use http_body_util::{BodyExt, Full};
use tower::{BoxError, Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_ploton::{
    ApiKey, Attempts, IdempotencyKey, Origin, Plan, PlotonAuth, PlotonIdempotency, PlotonRateLimit,
    PlotonReplay, PlotonRetry, PlotonStack,
    mock::{FakePloton, Fault},
    retry::ReplayBody,
};

use capture::{note, note_error, searched};
use needles::KEY;
use servers::{Recorder, client};

pub(crate) fn key() -> ApiKey {
    ApiKey::parse(KEY).unwrap()
}

/// An auth layer for each way to get the key. A new source of keys belongs here: every test goes through all of them.
pub(crate) fn auths() -> Vec<PlotonAuth> {
    vec![PlotonAuth::new(key())]
}

pub(crate) fn origin(url: &str) -> Origin {
    Origin::parse(url).unwrap()
}

/// So many requests a minute that nothing waits for long in real time.
pub(crate) fn plan() -> Plan {
    Plan::Enterprise {
        requests_per_minute: NonZeroU32::new(600_000).unwrap(),
        concurrent_tasks: NonZeroU32::new(1_000).unwrap(),
    }
}

pub(crate) fn create(url: &str, prompt: &str) -> Request<Full<Bytes>> {
    let body = serde_json::json!({ "prompt": prompt }).to_string();
    Request::post(format!("{url}/v1/tasks"))
        .header("content-type", "application/json")
        .body(body.into())
        .unwrap()
}

pub(crate) fn get(uri: &str) -> Request<Full<Bytes>> {
    Request::get(uri).body(Full::default()).unwrap()
}

/// Sends `request`, and notes how everything about that prints itself.
pub(crate) async fn send<S, R>(service: &S, request: Request<Full<Bytes>>) -> Option<StatusCode>
where
    S: Service<Request<Full<Bytes>>, Response = Response<R>> + Clone + std::fmt::Debug,
    S::Error: Into<BoxError>,
    S::Future: std::fmt::Debug,
    R: http_body::Body,
    R::Error: Into<BoxError>,
{
    let mut service = service.clone();
    note(format_args!("{service:?} {service:#?}"));
    match service.ready().await {
        Ok(_) => {}
        Err(error) => {
            note_error(&*error.into());
            return None;
        }
    }
    let mut call = std::pin::pin!(service.call(request));
    let first = std::future::poll_fn(|cx| std::task::Poll::Ready(call.as_mut().poll(cx))).await;
    note(format_args!("{call:?} {call:#?}"));
    let result = match first {
        std::task::Poll::Ready(result) => result,
        std::task::Poll::Pending => call.await,
    };
    note(format_args!("{service:?} {service:#?}"));
    match result {
        Ok(response) => {
            let story = response.extensions();
            note(format_args!(
                "{:?} {:?} {:?}",
                response.status(),
                story.get::<Attempts>(),
                story.get::<IdempotencyKey>()
            ));
            let status = response.status();
            if let Err(error) = response.into_body().collect().await {
                note_error(&*error.into());
            }
            Some(status)
        }
        Err(error) => {
            note_error(&*error.into());
            None
        }
    }
}

fn emptied(_: ReplayBody<Full<Bytes>>) -> Full<Bytes> {
    Full::default()
}

fn troubles() -> Vec<Fault> {
    let status = |code: u16| Fault::Status(StatusCode::from_u16(code).unwrap());
    let mut hint = HeaderMap::new();
    hint.insert("retry-after-ms", 5.into());
    vec![
        Fault::CutBefore,
        Fault::CutAfter,
        Fault::TruncatedBody,
        Fault::Hang,
        Fault::Respond(StatusCode::TOO_MANY_REQUESTS, hint),
        status(401),
        status(403),
        status(409),
        status(422),
        status(500),
        status(503),
        Fault::Delay(Duration::from_millis(5)),
    ]
}

async fn each_stack_in_trouble(http2: bool) {
    capture::start();
    for auth in auths() {
        stack_in_trouble(auth, http2).await;
    }
    let text = searched();
    for target in ["tower_ploton", "hyper_util"] {
        assert!(text.contains(&format!("tracing {target}")), "{target}");
    }
    assert!(!http2 || text.contains("tracing h2::"), "h2");
}

/// The whole stack through every trouble, and through one that does not end.
async fn stack_in_trouble(auth: PlotonAuth, http2: bool) {
    let fake = FakePloton::new().accept_key(KEY);
    let server = fake.listen().await.unwrap();
    let retry = PlotonRetry::new()
        .attempts(3)
        .base_delay(Duration::from_millis(1));
    let stack = PlotonStack::new(key(), plan())
        .auth(auth)
        .origin(origin(&server.url()))
        .retry(retry)
        .attempt_timeout(Duration::from_secs(2));
    note(format_args!("{stack:?} {stack:#?}"));
    let service = stack.layer(client(http2));
    for (n, trouble) in troubles().into_iter().enumerate() {
        fake.fail_next(trouble);
        send(&service, create(&server.url(), &format!("task {n}"))).await;
    }
    for trouble in [Fault::CutBefore, Fault::Status(StatusCode::BAD_GATEWAY)] {
        (0..3).for_each(|_| fake.fail_next(trouble.clone()));
        send(&service, create(&server.url(), "never")).await;
    }
    send(&service, create(&server.url(), &"x".repeat(10_001))).await;
    assert!(fake.attempts().iter().any(|attempt| attempt.authorized));
    fake.revoke_key(KEY);
    let refused = send(&service, create(&server.url(), "late")).await;
    assert_eq!(refused, Some(StatusCode::UNAUTHORIZED));
    note(format_args!("{fake:?} {server:?} {:?}", fake.attempts()));
}

#[tokio::test]
async fn the_stack_in_trouble_shows_no_key_http1() {
    each_stack_in_trouble(false).await;
}

#[tokio::test]
async fn the_stack_in_trouble_shows_no_key_http2() {
    each_stack_in_trouble(true).await;
}

/// Each layer alone: those that add no key carry one that the caller set.
#[tokio::test]
async fn each_layer_alone_shows_no_key() {
    capture::start();
    for http2 in [false, true] {
        let fake = FakePloton::new().accept_key(KEY);
        let server = fake.listen().await.unwrap();
        let own = |prompt: &str| {
            let mut request = create(&server.url(), prompt);
            // Not marked sensitive, as callers are.
            let value = HeaderValue::try_from(format!("Bearer {KEY}")).unwrap();
            request.headers_mut().insert(AUTHORIZATION, value);
            request
        };
        let client = client(http2);
        for (n, trouble) in troubles().into_iter().enumerate() {
            if trouble == Fault::Hang {
                continue;
            }
            let again = || fake.fail_next(trouble.clone());
            again();
            let idempotency = PlotonIdempotency::new().layer(client.clone());
            send(&idempotency, own(&format!("a {n}"))).await;
            again();
            let retry = PlotonRetry::new().base_delay(Duration::from_millis(1));
            send(&retry.layer(client.clone()), own(&format!("b {n}"))).await;
            again();
            let limit = PlotonRateLimit::new(plan()).origin(origin(&server.url()));
            send(&limit.layer(client.clone()), own(&format!("c {n}"))).await;
            again();
            for auth in auths() {
                let service = auth.origin(origin(&server.url())).layer(client.clone());
                send(&service, create(&server.url(), &format!("d {n}"))).await;
            }
            again();
            let replay = ServiceBuilder::new()
                .layer(PlotonReplay::new())
                .layer(PlotonRetry::new().base_delay(Duration::from_millis(1)))
                .layer(PlotonReplay::map(emptied as fn(_) -> _))
                .service(client.clone());
            send(&replay, own(&format!("e {n}"))).await;
        }
        assert!(fake.attempts().iter().all(|attempt| attempt.authorized));
    }
    searched();
}

#[tokio::test]
async fn a_key_behind_tls_is_in_no_log_of_the_layers_under_us() {
    capture::start();
    for http2 in [false, true] {
        let fake = FakePloton::new().accept_key(KEY);
        let (url, _serving) = servers::with_tls(fake.clone(), http2).await;
        let stack = PlotonStack::new(key(), plan()).origin(origin(&url));
        let service = stack.layer(servers::https_client());
        let created = send(&service, create(&url, "one")).await;
        assert_eq!(created, Some(StatusCode::CREATED));
        assert!(fake.attempts()[0].authorized);
        let plain = url.replace("https:", "http:");
        assert_eq!(send(&service, create(&plain, "by plain HTTP")).await, None);
        assert_eq!(fake.counts().attempts, 1);
    }
    // A server that speaks no TLS.
    let plain = Recorder::silent().await;
    let url = plain.url.replace("http:", "https:");
    let stack = PlotonStack::new(key(), plan()).origin(origin(&url));
    let service = stack.layer(servers::https_client());
    assert_eq!(send(&service, create(&url, "one")).await, None);
    needles::search(&plain.received(), "what a server without TLS received");
    assert!(searched().contains("log rustls::"), "rustls");
}

/// Whoever panics with a request in hand says it in the panic's message.
#[tokio::test]
async fn a_panic_with_a_request_in_hand_shows_no_key() {
    capture::start();
    let network = service_fn(async |request: Request<Full<Bytes>>| {
        assert!(request.headers().contains_key(AUTHORIZATION));
        if request.method() == "POST" {
            panic!("{}: {request:?} {:#?}", capture::PLANNED, request.headers());
        }
        Ok::<Response<Full<Bytes>>, BoxError>(Response::default())
    });
    let service = PlotonStack::new(key(), plan()).layer(network);
    let call = service.oneshot(create("https://api.ploton.ai", "one"));
    let panicked = tokio::spawn(call).await.unwrap_err();
    note(format_args!("{panicked} {panicked:?}"));
    let text = searched();
    assert!(text.contains("planned panic"), "the message was noted");
    assert!(text.contains("Sensitive"), "the request was in it");
}

/// Texts that are almost a key, or hold one where none belongs.
#[test]
fn no_error_repeats_what_it_was_given() {
    capture::start();
    let bad_keys = [
        KEY.replace("pk_test_", "sk_test_"),
        KEY.replace("pk_test_", ""),
        format!(" {KEY}"),
        format!("{KEY}\n"),
        format!("{KEY} {KEY}"),
        format!("Bearer {KEY}"),
        format!("{KEY}\u{e9}"),
        KEY.repeat(20),
    ];
    for text in &bad_keys {
        note_error(&ApiKey::parse(text).unwrap_err());
        note_error(&text.parse::<ApiKey>().unwrap_err());
    }
    for text in [
        KEY.to_owned(),
        format!("https://{KEY}@api.ploton.ai"),
        format!("https://api.ploton.ai/?key={KEY}"),
        format!("http://{KEY}"),
    ] {
        note_error(&Origin::parse(&text).unwrap_err());
    }
    for text in [format!("{KEY} {KEY}"), KEY.repeat(20)] {
        note_error(&IdempotencyKey::parse(&text).unwrap_err());
    }
    let text = searched();
    assert!(text.contains("an API key begins with"), "errors were noted");
}

/// The search is only as good as what is kept: a leak through each of the ways in would be seen.
#[test]
fn what_is_logged_is_kept() {
    capture::start();
    let cause = std::io::Error::other("a cause of its own");
    let error: Box<dyn Error> = Box::new(std::io::Error::other(cause));
    let span = tracing::trace_span!("span", first = "in a span", later = tracing::field::Empty);
    span.record("later", "recorded later");
    tracing::trace!(error = &*error, debug = ?["in an event"], "its message");
    log::trace!("in a log");
    let _ = std::thread::spawn(|| panic!("{} noted", capture::PLANNED)).join();
    let text = searched();
    for kept in [
        "in a span",
        "recorded later",
        "a cause of its own",
        "in an event",
        "its message",
        "in a log",
        "planned panic noted",
    ] {
        assert!(text.contains(kept), "{kept}");
    }
}
