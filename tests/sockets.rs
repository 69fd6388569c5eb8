//! The stack on a real hyper client and real sockets, HTTP/1.1 and HTTP/2.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by a panic"
)]

mod support;

use std::{
    error::Error,
    future, io,
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tower::{Layer, ServiceExt, service_fn};
use tower_ploton::{
    Attempts, Origin, Plan, PlotonRetry, PlotonStack,
    mock::{FakePloton, FakeServer, Fault, Outcome},
    retry::AttemptsFailed,
    stack::StackService,
};

use support::{create, json, key};

type Stack = StackService<Client<HttpConnector, Full<Bytes>>>;

/// So many requests a minute that nothing waits for long in real time.
fn plan() -> Plan {
    Plan::Enterprise {
        requests_per_minute: NonZeroU32::new(600_000).unwrap(),
        concurrent_tasks: NonZeroU32::new(1_000).unwrap(),
    }
}

fn client(http2: bool) -> Client<HttpConnector, Full<Bytes>> {
    Client::builder(TokioExecutor::new())
        .http2_only(http2)
        .build_http()
}

async fn start(fake: &FakePloton, http2: bool) -> (FakeServer, Stack) {
    let server = fake.listen().await.unwrap();
    let stack = PlotonStack::new(key(), plan())
        .origin(Origin::parse(&server.url()).unwrap())
        // A cut ends all requests of an HTTP/2 connection: so many failures at once use up a quota, and any few attempts.
        .retry(
            PlotonRetry::new()
                .attempts(100)
                .base_delay(Duration::from_millis(5))
                .max_delay(Duration::from_millis(50))
                .quota(u32::MAX),
        );
    (server, stack.layer(client(http2)))
}

async fn many_tasks_through_every_fault(http2: bool) {
    let fake = FakePloton::new()
        .seed(3)
        .fault_rate(Fault::CutBefore, 0.05)
        .fault_rate(Fault::CutAfter, 0.10)
        .fault_rate(Fault::Status(StatusCode::INTERNAL_SERVER_ERROR), 0.10)
        .fault_rate(Fault::Status(StatusCode::BAD_GATEWAY), 0.05);
    let (server, stack) = start(&fake, http2).await;
    let mut calls = tokio::task::JoinSet::new();
    for n in 0..100 {
        let call = stack
            .clone()
            .oneshot(create(&server.url(), &format!("task {n}")));
        calls.spawn(async move {
            json(call.await.unwrap()).await["id"]
                .as_str()
                .unwrap()
                .to_owned()
        });
    }
    let mut ids = calls.join_all().await;
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 100);
    let counts = fake.counts();
    assert_eq!((counts.created, counts.duplicated), (100, 0));
    assert!(
        counts.replayed > 0,
        "a cut after the creation was made good by the stored answer"
    );
    assert!(fake.attempts().iter().all(|attempt| attempt.authorized));
}

#[tokio::test]
async fn many_tasks_through_every_fault_http1() {
    many_tasks_through_every_fault(false).await;
}

#[tokio::test]
async fn many_tasks_through_every_fault_http2() {
    many_tasks_through_every_fault(true).await;
}

async fn one_task_through(fault: Fault, http2: bool) -> Vec<Outcome> {
    let fake = FakePloton::new();
    let (server, stack) = start(&fake, http2).await;
    fake.fail_next(fault);
    let response = stack.oneshot(create(&server.url(), "one")).await.unwrap();
    assert_eq!(response.status(), StatusCode::CREATED);
    assert_eq!(json(response).await["id"], fake.tasks()[0].id);
    assert_eq!(fake.tasks().len(), 1);
    let attempts = fake.attempts();
    assert_eq!(attempts[0].idempotency_key, attempts[1].idempotency_key);
    assert!(attempts[0].idempotency_key.is_some());
    attempts.iter().map(|attempt| attempt.outcome).collect()
}

#[tokio::test]
async fn a_cut_before_or_after_the_creation_ends_in_one_task() {
    let created = Outcome::Answered(StatusCode::CREATED);
    for http2 in [false, true] {
        let outcomes = one_task_through(Fault::CutBefore, http2).await;
        assert_eq!(outcomes, [Outcome::CutBefore, created]);
        let outcomes = one_task_through(Fault::CutAfter, http2).await;
        assert_eq!(outcomes, [Outcome::CutAfter, created]);
    }
}

#[tokio::test]
async fn a_hung_attempt_is_given_up_and_repeated() {
    let fake = FakePloton::new();
    let server = fake.listen().await.unwrap();
    let stack = PlotonStack::new(key(), plan())
        .origin(Origin::parse(&server.url()).unwrap())
        .attempt_timeout(Duration::from_millis(200));
    fake.fail_next(Fault::Hang);
    let service = stack.layer(client(false));
    let response = service.oneshot(create(&server.url(), "one")).await.unwrap();
    assert_eq!(response.status(), StatusCode::CREATED);
    assert_eq!(fake.counts().attempts, 2);
    let limit = stack.rate_limit_handle().snapshot();
    assert_eq!((limit.in_flight, limit.waiting), (0, 0));
}

#[tokio::test]
async fn a_refused_connection_is_tried_again_even_without_a_key() {
    // It has its port, so that nobody else gets that, and does not listen.
    let server = TcpSocket::new_v4().unwrap();
    server.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("http://{}", server.local_addr().unwrap());
    let service = PlotonRetry::new().attempts(3).layer(client(false));
    let error = service.oneshot(create(&url, "one")).await.unwrap_err();
    let failed = error.downcast_ref::<AttemptsFailed>().expect("tried again");
    assert_eq!(failed.attempts().made(), 3);
    let source = failed.source().unwrap();
    assert!(
        source
            .downcast_ref::<hyper_util::client::legacy::Error>()
            .unwrap()
            .is_connect()
    );
}

/// How often a POST without a key was tried by a client whose connector fails with `kind`.
async fn attempts_on_connect_error(kind: io::ErrorKind) -> u32 {
    let connector = service_fn(move |_: Uri| {
        future::ready(Err::<TokioIo<TcpStream>, _>(io::Error::from(kind)))
    });
    let client = Client::builder(TokioExecutor::new()).build(connector);
    let service = PlotonRetry::new().attempts(2).layer(client);
    let request = create("https://api.ploton.ai", "one");
    let error = service.oneshot(request).await.unwrap_err();
    let failed = error.downcast_ref::<AttemptsFailed>();
    failed.map_or(1, |failed| failed.attempts().made())
}

#[tokio::test]
async fn a_tls_failure_is_final_and_every_other_connect_error_is_not() {
    use io::ErrorKind::{
        ConnectionRefused, HostUnreachable, InvalidData, InvalidInput, TimedOut, Unsupported,
    };
    for kind in [InvalidData, InvalidInput, Unsupported] {
        assert_eq!(attempts_on_connect_error(kind).await, 1, "{kind}");
    }
    for kind in [ConnectionRefused, HostUnreachable, TimedOut] {
        assert_eq!(attempts_on_connect_error(kind).await, 2, "{kind}");
    }
}

/// An HTTP/2 server that resets the first stream for `reason`, answers the others with 201, and counts them.
async fn resets_the_first_stream(reason: h2::Reason) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let streams = Arc::new(AtomicUsize::new(0));
    let count = streams.clone();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let mut connection = h2::server::handshake(socket).await.unwrap();
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                if count.fetch_add(1, Ordering::Relaxed) == 0 {
                    respond.send_reset(reason);
                } else {
                    let response = Response::builder().status(201).body(()).unwrap();
                    respond.send_response(response, true).unwrap();
                }
            }
        }
    });
    (url, streams)
}

#[tokio::test]
async fn a_refused_stream_was_not_sent_and_a_reset_one_may_have_been() {
    let (url, streams) = resets_the_first_stream(h2::Reason::REFUSED_STREAM).await;
    let service = PlotonRetry::new().layer(client(true));
    let response = service.oneshot(create(&url, "one")).await.unwrap();
    assert_eq!(response.status(), StatusCode::CREATED);
    assert_eq!(streams.load(Ordering::Relaxed), 2);

    let (url, streams) = resets_the_first_stream(h2::Reason::INTERNAL_ERROR).await;
    let service = PlotonRetry::new().layer(client(true));
    service.oneshot(create(&url, "one")).await.unwrap_err();
    assert_eq!(streams.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_cut_post_without_a_key_is_not_repeated() {
    for http2 in [false, true] {
        let fake = FakePloton::new();
        let server = fake.listen().await.unwrap();
        for fault in [Fault::CutBefore, Fault::CutAfter] {
            fake.fail_next(fault);
            let service = PlotonRetry::new().layer(client(http2));
            let mut request = create(&server.url(), "one");
            let value = format!("Bearer {}", support::KEY).parse().unwrap();
            request.headers_mut().insert("authorization", value);
            let error = service.oneshot(request).await.unwrap_err();
            assert!(error.is::<hyper_util::client::legacy::Error>(), "{error:?}");
        }
        assert_eq!(fake.counts().attempts, 2);
    }
}

#[tokio::test]
async fn what_went_wrong_carries_its_story() {
    let fake = FakePloton::new();
    let (server, stack) = start(&fake, false).await;
    let response = stack
        .clone()
        .oneshot(create(&server.url(), &"x".repeat(10_001)))
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::UNPROCESSABLE_ENTITY);
    let story = response.extensions().get::<Attempts>().unwrap();
    assert_eq!(story.made(), 1);
    let key = story.idempotency_key().unwrap().as_str().to_owned();
    assert_eq!(fake.attempts()[0].idempotency_key.as_ref(), Some(&key));
}

#[tokio::test]
async fn garbage_in_the_headers_of_the_server_is_no_panic() {
    let (server, stack, fake) = {
        let fake = FakePloton::new();
        let (server, stack) = start(&fake, false).await;
        (server, stack, fake)
    };
    let values: [&[u8]; 7] = [
        b"",
        b"-1",
        b"\xff\xfe",
        b"1e400",
        b"18446744073709551616",
        b"NaN",
        b"a, b;c=\"d",
    ];
    for status in [
        StatusCode::INTERNAL_SERVER_ERROR,
        StatusCode::OK,
        StatusCode::TOO_MANY_REQUESTS,
    ] {
        for value in values {
            let value = http::HeaderValue::from_bytes(value).unwrap();
            let names = [
                "retry-after",
                "x-ratelimit-limit",
                "x-ratelimit-remaining",
                "date",
                "idempotent-replayed",
            ];
            let mut headers: http::HeaderMap = names
                .map(|name| (http::HeaderName::from_static(name), value.clone()))
                .into_iter()
                .collect();
            // A short pause, so that the test is short.
            headers.insert("x-ratelimit-reset", "1".parse().unwrap());
            if status == StatusCode::TOO_MANY_REQUESTS && !value.is_empty() {
                continue;
            }
            fake.fail_next(Fault::Respond(status, headers));
            let get = Request::get(format!("{}/v1/tasks", server.url())).body(Full::default());
            let response = stack.clone().oneshot(get.unwrap()).await.unwrap();
            assert_eq!(response.status(), StatusCode::OK);
            response.into_body().collect().await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_uri_without_a_host_is_an_error_and_no_key_leaves() {
    let fake = FakePloton::new();
    let (_server, stack) = start(&fake, false).await;
    for uri in ["/v1/tasks", "*", "https:", "example"] {
        let Ok(request) = Request::get(uri).body(Full::default()) else {
            continue;
        };
        stack.clone().oneshot(request).await.unwrap_err();
    }
    assert_eq!(fake.counts().attempts, 0);
}
