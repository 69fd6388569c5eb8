//! The ready client against a TLS server on a loopback port, with a certificate made here.
#![cfg(feature = "client-core")]
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by a panic"
)]

mod server;

use std::{error::Error as StdError, io, time::Duration};

use bytes::Bytes;
use http::{Request, Version};
use http_body_util::{BodyExt, Full};
use tokio::{
    net::{TcpListener, TcpSocket},
    task::JoinSet,
};
use tower::{BoxError, Layer, ServiceExt};
use tower_ploton::{
    ApiKey, Attempts, BaseUrl, Origin, Plan, PlotonStack,
    api::{Error, NewTask, Ploton, TaskStatus},
    auth::PlainHttpRefused,
    client::{Https, HttpsClient, PlotonClient},
    mock::{FakePloton, Fault},
    retry::AttemptsFailed,
};

use server::{Authority, Server};

/// The ready client, for this server.
fn ploton(server: &Server, https: Https) -> PlotonClient {
    let base_url = server.base_url();
    let stack = stack().origin(base_url.origin().clone());
    Ploton::new(stack.layer(https.client())).base_url(base_url)
}

fn stack() -> PlotonStack {
    let key = ApiKey::parse("pk_test_4f9d0c2b7a6e1583").unwrap();
    PlotonStack::new(key, Plan::Production)
}

fn new_task() -> NewTask {
    NewTask::new("Pay invoice 42").unwrap()
}

/// Everything that `error` says, source by source.
fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text = format!("{text}: {error}");
        next = error.source();
    }
    text
}

#[tokio::test]
async fn it_speaks_http_2_where_the_server_does_and_http_1_1_elsewhere() {
    let authority = Authority::new();
    for (protocols, version) in [
        (&["h2", "http/1.1"][..], Version::HTTP_2),
        (&["http/1.1"], Version::HTTP_11),
        (&[], Version::HTTP_11),
    ] {
        let fake = FakePloton::new();
        let server = Server::start(fake.clone(), authority.server("localhost", protocols)).await;
        let ploton = ploton(&server, Https::with_tls(authority.client()));
        let task = ploton.create_task(&new_task()).await.unwrap();
        assert_eq!(task.status, TaskStatus::Running);
        let mut listed = 0;
        let mut tasks = ploton.tasks();
        while let Some(listing) = tasks.next().await {
            assert_eq!(listing.unwrap().id, task.id);
            listed += 1;
        }
        let cancelled = ploton.cancel_task(&task.id).await.unwrap();
        assert_eq!((listed, cancelled.status), (1, TaskStatus::Cancelled));
        assert_eq!(server.versions(), [version; 3], "{protocols:?}");
        assert_eq!(server.connections(), 1, "the connection is kept");
        assert_eq!(fake.counts().created, 1);
    }
}

#[tokio::test]
async fn many_requests_share_one_http_2_connection() {
    let authority = Authority::new();
    let fake = FakePloton::new();
    let server = Server::start(fake.clone(), authority.server("localhost", &["h2"])).await;
    let ploton = ploton(&server, Https::with_tls(authority.client()));
    ploton.create_task(&new_task()).await.unwrap();
    let mut calls = JoinSet::new();
    for _ in 0..20 {
        calls.spawn(ploton.create_task(&new_task()));
    }
    while let Some(task) = calls.join_next().await {
        task.unwrap().unwrap();
    }
    assert_eq!((fake.counts().created, server.connections()), (21, 1));
}

#[tokio::test]
async fn the_whole_stack_stands_on_it() {
    let authority = Authority::new();
    let fake = FakePloton::new();
    for fault in [
        Fault::Status(http::StatusCode::BAD_GATEWAY),
        Fault::TruncatedBody,
    ] {
        fake.fail_next(fault);
    }
    let server = Server::start(fake.clone(), authority.server("localhost", &["h2"])).await;
    let ploton = ploton(&server, Https::with_tls(authority.client()));
    ploton.create_task(&new_task()).await.unwrap();
    let attempts = fake.attempts();
    assert_eq!((attempts.len(), fake.counts().created), (3, 1));
    assert!(attempts.iter().all(|attempt| attempt.authorized));
    let keys: Vec<_> = attempts
        .iter()
        .map(|attempt| &attempt.idempotency_key)
        .collect();
    assert!(keys[0].is_some() && keys.iter().all(|key| key == &keys[0]));
}

#[tokio::test]
async fn a_certificate_that_is_not_trusted_is_refused_and_not_tried_again() {
    let (ours, theirs) = (Authority::new(), Authority::named("theirs"));
    for (tls, why) in [
        (theirs.server("localhost", &["h2"]), "UnknownIssuer"),
        (ours.server("evil.example", &["h2"]), "not valid for"),
        (ours.expired("localhost"), "expired"),
    ] {
        let fake = FakePloton::new();
        let server = Server::start(fake.clone(), tls).await;
        let ploton = ploton(&server, Https::with_tls(ours.client()));
        let error = ploton.create_task(&new_task()).await.unwrap_err();
        assert!(chain(&error).contains(why), "{}", chain(&error));
        assert_eq!((server.connections(), fake.attempts().len()), (1, 0));
    }
}

#[cfg(all(
    any(feature = "ring", feature = "aws-lc"),
    any(feature = "webpki-roots", feature = "native-roots")
))]
#[tokio::test]
async fn the_features_own_roots_trust_no_certificate_made_here() {
    let fake = FakePloton::new();
    let tls = Authority::new().server("localhost", &["h2"]);
    let server = Server::start(fake.clone(), tls).await;
    let ploton = ploton(&server, Https::new().unwrap());
    let error = ploton.create_task(&new_task()).await.unwrap_err();
    assert!(chain(&error).contains("UnknownIssuer"), "{}", chain(&error));
    assert_eq!((server.connections(), fake.attempts().len()), (1, 0));

    let key = ApiKey::parse("pk_test_4f9d0c2b7a6e1583").unwrap();
    let ready = tower_ploton::client::ploton_client(key, Plan::Production).unwrap();
    assert!(format!("{ready:?}").contains("https://api.ploton.ai/v1"));
}

fn get(uri: &str) -> Request<Full<Bytes>> {
    Request::get(uri).body(Full::default()).unwrap()
}

#[tokio::test]
async fn plain_http_is_refused_but_to_a_loopback_origin_that_is_named() {
    let server = FakePloton::new().listen().await.unwrap();
    let uri = format!("{}/v1/tasks", server.url());
    let https = || Https::with_tls(Authority::new().client());
    let refused = |error: BoxError| assert!(error.is::<PlainHttpRefused>(), "{error}");

    let client = https().client();
    for uri in [
        &uri,
        "http://api.ploton.ai/v1/tasks",
        "http://localhost/",
        "/v1/tasks",
    ] {
        refused(client.clone().oneshot(get(uri)).await.unwrap_err());
    }
    // Through the stack as well, and it is not tried again.
    let error = stack().layer(client).oneshot(get(&uri)).await.unwrap_err();
    assert!(!error.is::<AttemptsFailed>());
    refused(error);
    assert_eq!(server.connections(), 0);

    let client = https()
        .plain_http_to(Origin::parse(&server.url()).unwrap())
        .client();
    assert_eq!(
        client.clone().oneshot(get(&uri)).await.unwrap().status(),
        401
    );
    refused(
        client
            .oneshot(get("http://api.ploton.ai/v1/tasks"))
            .await
            .unwrap_err(),
    );
}

#[tokio::test]
async fn a_server_that_never_finishes_its_handshake_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!(
        "https://localhost:{}/",
        listener.local_addr().unwrap().port()
    );
    let https = Https::with_tls(Authority::new().client());
    let client = https.connect_timeout(Duration::from_millis(30)).client();
    let error = client.oneshot(get(&uri)).await.unwrap_err();
    assert!(
        chain(&*error).contains("no connection within 0.03 s"),
        "{}",
        chain(&*error)
    );
    let error: &hyper_util::client::legacy::Error = error.downcast_ref().unwrap();
    assert!(error.is_connect(), "so it is known that nothing was sent");
}

/// Sends a request for nothing in particular; the answer's status.
async fn status(client: &HttpsClient, server: &Server) -> Result<u16, BoxError> {
    let uri = server.base_url().join("/tasks").unwrap().to_string();
    let response = client.clone().oneshot(get(&uri)).await?;
    let status = response.status();
    response.into_body().collect().await?;
    Ok(status.as_u16())
}

/// hyper adds them to the time: the connection panicked, and what was on it with it.
#[tokio::test]
async fn a_time_beyond_every_clock_is_never() {
    let authority = Authority::new();
    let never = Duration::MAX;
    let https = || Https::with_tls(authority.client()).idle_timeout(never);
    for https in [
        https().ping_interval(never).connect_timeout(never),
        // The server is asked at once, as the answer takes its time.
        https()
            .ping_interval(Duration::from_millis(1))
            .ping_timeout(never),
    ] {
        let fake = FakePloton::new().latency(Duration::from_millis(30));
        let server = Server::start(fake, authority.server("localhost", &["h2"])).await;
        assert_eq!(status(&https.client(), &server).await.unwrap(), 401);
    }
}

#[tokio::test]
async fn an_idle_connection_is_not_used_when_its_time_is_up() {
    let authority = Authority::new();
    for (idle, connections) in [(Duration::from_millis(1), 2), (Duration::from_secs(600), 1)] {
        let server = Server::start(FakePloton::new(), authority.server("localhost", &["h2"])).await;
        let client = Https::with_tls(authority.client())
            .idle_timeout(idle)
            .client();
        for _ in 0..2 {
            assert_eq!(status(&client, &server).await.unwrap(), 401);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(server.connections(), connections);
    }
}

#[tokio::test]
async fn a_server_that_fell_silent_is_noticed() {
    let authority = Authority::new();
    let fake = FakePloton::new();
    let server = Server::start(fake.clone(), authority.server("localhost", &["h2"])).await;
    let client = Https::with_tls(authority.client())
        .ping_interval(Duration::from_millis(20))
        .ping_timeout(Duration::from_millis(20))
        .client();
    fake.fail_next(Fault::Hang);
    let falls_silent = async {
        while fake.attempts().is_empty() {
            tokio::task::yield_now().await;
        }
        server.silent.notify_waiters();
    };
    let answer = tokio::time::timeout(Duration::from_secs(60), status(&client, &server));
    let (answer, ()) = tokio::join!(answer, falls_silent);
    let error = answer.expect("the pings go unanswered").unwrap_err();
    assert!(
        chain(&*error).contains("keep-alive timed out"),
        "{}",
        chain(&*error)
    );
}

#[tokio::test]
async fn what_a_tls_configuration_says_of_alpn_is_no_trap() {
    let authority = Authority::new();
    let mut tls = authority.client();
    tls.alpn_protocols = vec![b"spdy/3".to_vec()];
    let server = Server::start(FakePloton::new(), authority.server("localhost", &["h2"])).await;
    let client = Https::with_tls(tls).client();
    assert_eq!(status(&client, &server).await.unwrap(), 401);
    assert_eq!(server.versions(), [Version::HTTP_2]);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_an_error_with_its_story() {
    // It has its port, so that nobody else gets that, and does not listen.
    let server = TcpSocket::new_v4().unwrap();
    server.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = server.local_addr().unwrap().port();
    let base_url = BaseUrl::parse(&format!("https://localhost:{port}/v1")).unwrap();
    let retry = tower_ploton::PlotonRetry::new()
        .attempts(2)
        .base_delay(Duration::from_millis(1));
    let stack = stack().retry(retry).origin(base_url.origin().clone());
    let client = Https::with_tls(Authority::new().client()).client();
    let ploton = Ploton::new(stack.layer(client)).base_url(base_url);
    let error = ploton.create_task(&new_task()).await.unwrap_err();
    let Error::Service { error, .. } = error else {
        panic!("{error}")
    };
    let failed: &AttemptsFailed = error.downcast_ref().unwrap();
    let attempts: &Attempts = failed.attempts();
    assert_eq!(attempts.made(), 2);
    assert!(attempts.idempotency_key().is_some());
    let mut source = failed.source();
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
            return;
        }
        source = error.source();
    }
    panic!("{}", chain(failed));
}
