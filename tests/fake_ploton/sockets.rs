//! The fake Ploton on real sockets, over HTTP/1.1 and HTTP/2.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tower_ploton::mock::{FakePloton, FakeServer, Fault, Outcome};

use crate::{create, support};

type HttpClient = Client<HttpConnector, Full<Bytes>>;

fn client(http2: bool) -> HttpClient {
    Client::builder(TokioExecutor::new())
        .http2_only(http2)
        .build_http()
}

fn create_at(server: &FakeServer, prompt: &str) -> Request<Full<Bytes>> {
    let mut request = create(prompt);
    *request.uri_mut() = format!("{}/v1/tasks", server.url()).parse().unwrap();
    request
}

/// Waits until `count` attempts have arrived.
async fn arrived(fake: &FakePloton, count: u64) {
    while fake.counts().attempts < count {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_cut_is_a_cut_and_the_work_is_done_or_not() {
    for http2 in [false, true] {
        let fake = FakePloton::new();
        let server = fake.listen().await.unwrap();
        let client = client(http2);
        for (n, fault) in [Fault::CutBefore, Fault::CutAfter].into_iter().enumerate() {
            fake.fail_next(fault);
            let cut = client.request(create_at(&server, "cut")).await;
            cut.unwrap_err();
            assert_eq!(fake.counts().created, n as u64);
        }
        fake.fail_next(Fault::TruncatedBody);
        let truncated = client.request(create_at(&server, "truncated")).await;
        let body = truncated.unwrap().into_body();
        body.collect().await.unwrap_err();
        for _ in 0..2 {
            let whole = client.request(create_at(&server, "whole")).await;
            support::json(whole.unwrap()).await;
        }
        assert_eq!(fake.counts().created, 4);
        assert_eq!(server.connections(), 4, "each cut closed its connection");
    }
}

/// Two threads, since the body and its connection are separate tasks over HTTP/2.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_truncated_answer_the_head_and_half_of_the_body_arrive() {
    for http2 in [false, true] {
        let fake = FakePloton::new();
        let server = fake.listen().await.unwrap();
        for n in 1..=100 {
            fake.fail_next(Fault::TruncatedBody);
            // A client of its own each time: over HTTP/2 one tries a dead connection again before it sees that it is.
            let truncated = client(http2).request(create_at(&server, "truncated"));
            let response = truncated.await.unwrap();
            assert_eq!(response.status(), StatusCode::CREATED);
            let promised: usize = response.headers()["content-length"]
                .to_str()
                .unwrap()
                .parse()
                .unwrap();
            let mut body = response.into_body();
            let half = body.frame().await.unwrap().unwrap().into_data().unwrap();
            assert_eq!(half.len(), promised.div_ceil(2));
            body.frame().await.unwrap().unwrap_err();
            assert_eq!(fake.counts().created, n);
            assert_eq!(server.connections(), n);
        }
    }
}

#[tokio::test]
async fn a_cut_takes_every_stream_of_its_connection_with_it() {
    let fake = FakePloton::new();
    let server = fake.listen().await.unwrap();
    let client = client(true);
    let whole = client.request(create_at(&server, "opens the connection"));
    support::json(whole.await.unwrap()).await;

    fake.fail_next(Fault::Hang);
    let hanging = tokio::spawn(client.request(create_at(&server, "hangs")));
    arrived(&fake, 2).await;
    fake.fail_next(Fault::CutBefore);
    let cut = client.request(create_at(&server, "cuts")).await;
    cut.unwrap_err();
    hanging.await.unwrap().unwrap_err();
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn headers_arrive_as_raw_as_the_test_wants_them() {
    for http2 in [false, true] {
        let fake = FakePloton::new();
        let server = fake.listen().await.unwrap();
        let client = client(http2);
        for raw in [&b"\xff\xfe"[..], b"-5", b"99999999999999999999999", b""] {
            let raw = HeaderValue::from_bytes(raw).unwrap();
            let headers = HeaderMap::from_iter([(http::header::RETRY_AFTER, raw.clone())]);
            fake.fail_next(Fault::Respond(StatusCode::SERVICE_UNAVAILABLE, headers));
            let response = client.request(create_at(&server, "x")).await.unwrap();
            assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
            assert_eq!(response.headers()["retry-after"], raw);
            response.into_body().collect().await.unwrap();
        }
        assert_eq!(server.connections(), 1);
    }
}

#[tokio::test]
async fn a_server_that_is_dropped_closes_its_port_and_its_connections() {
    for http2 in [false, true] {
        let fake = FakePloton::new();
        let server = fake.listen().await.unwrap();
        let addr = server.addr();
        fake.fail_next(Fault::Hang);
        let hanging = tokio::spawn(client(http2).request(create_at(&server, "hangs")));
        arrived(&fake, 1).await;
        drop(server);
        hanging.await.unwrap().unwrap_err();
        assert_eq!(fake.attempts()[0].outcome, Outcome::Unanswered);
        while tokio::net::TcpStream::connect(addr).await.is_ok() {
            tokio::task::yield_now().await;
        }
    }
}
