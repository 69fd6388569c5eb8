//! axum as a reverse proxy: whoever calls it needs no API key of Ploton's, and never sees the one it is sent with.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by a panic"
)]

#[allow(unreachable_pub, reason = "as its user would write it")]
#[path = "../snippets/axum_proxy.rs"]
mod snippet;

use std::time::Duration;

use axum::Router;
use bytes::Bytes;
use http::{Request, Response, StatusCode, Version, header};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tower::{BoxError, util::MapRequestLayer};
use tower_ploton::{
    BaseUrl, IdempotencyKey, PlotonRetry, PlotonStack, RateLimitHandle, mock::FakePloton,
};
use tower_ploton_sdks::{
    Fault, Server, assert_created_once, bearer, create, every_fault, json, stack, task,
};

/// Ploton behind a proxy.
struct Proxied {
    fake: FakePloton,
    ploton: Server,
    proxy: Server,
    limit: RateLimitHandle,
}

impl Proxied {
    async fn start() -> Self {
        Self::with(|stack| stack, |router| router).await
    }

    async fn with(
        layers: impl FnOnce(PlotonStack) -> PlotonStack,
        around: impl FnOnce(Router) -> Router,
    ) -> Self {
        let fake = FakePloton::new();
        let ploton = Server::start(fake.clone()).await;
        let stack = layers(stack(&ploton));
        let limit = stack.rate_limit_handle();
        let router = around(snippet::proxy(base_url(ploton.url()), stack));
        Self {
            fake,
            proxy: Server::start(router).await,
            ploton,
            limit,
        }
    }

    /// A request that creates a task, as a caller makes it.
    fn create(&self) -> Request<Full<Bytes>> {
        create(self.proxy.url(), "one")
    }
}

fn base_url(url: &str) -> BaseUrl {
    BaseUrl::parse(&format!("{url}/v1")).unwrap()
}

/// Sends a request as a caller does, by the protocol that it names.
async fn send<B>(request: Request<B>) -> Response<Incoming>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let http2 = request.version() == Version::HTTP_2;
    let client = Client::builder(TokioExecutor::new())
        .http2_only(http2)
        .build_http();
    client.request(request).await.unwrap()
}

/// Waits until so many attempts came to `server`.
async fn arrived(server: &Server, attempts: usize) {
    let arrived = async {
        while server.seen().len() < attempts {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let arrived = tokio::time::timeout(Duration::from_secs(60), arrived).await;
    arrived.expect("it arrives");
}

#[tokio::test]
async fn a_request_that_is_forwarded_through_every_fault_creates_one_task() {
    for version in [Version::HTTP_11, Version::HTTP_2, Version::HTTP_10] {
        let proxied = Proxied::start().await;
        proxied.ploton.fail(every_fault());
        let mut request = proxied.create();
        *request.version_mut() = version;
        let response = send(request).await;
        assert_eq!(response.status(), StatusCode::CREATED, "{version:?}");
        assert_eq!(json(response).await["id"], proxied.fake.tasks()[0].id);
        assert_created_once(&proxied.ploton, &proxied.fake);
        assert_eq!(proxied.proxy.seen().len(), 1);
        assert_eq!(proxied.ploton.seen()[0].version, Version::HTTP_11);
    }
}

#[tokio::test]
async fn thirty_callers_at_once_create_thirty_tasks() {
    let retry = PlotonRetry::new().attempts(30).quota(u32::MAX);
    let proxied = Proxied::with(|stack| stack.retry(retry), |router| router).await;
    for _ in 0..10 {
        proxied.ploton.fail([
            Fault::CutAfter,
            Fault::None,
            Fault::Status(503),
            Fault::CutBefore,
            Fault::None,
        ]);
    }
    proxied.ploton.fail([Fault::RateLimited { retry_after: 1 }]);
    let calls: tokio::task::JoinSet<_> = (0..30)
        .map(|n| {
            let url = proxied.proxy.url().to_owned();
            async move { send(create(&url, &format!("task {n}"))).await.status() }
        })
        .collect();
    assert_eq!(calls.join_all().await, [StatusCode::CREATED; 30]);
    let counts = proxied.fake.counts();
    assert_eq!((counts.created, counts.duplicated), (30, 0));
    assert!(counts.replayed > 0, "stored answers made good for cuts");
}

/// A body whose frames the test sends.
fn streamed() -> (
    mpsc::Sender<Result<Frame<Bytes>, BoxError>>,
    impl Body<Data = Bytes, Error = BoxError> + Send + Unpin,
) {
    let (frames, receiver) = mpsc::channel(8);
    (frames, StreamBody::new(ReceiverStream::new(receiver)))
}

/// A request that creates a task, and the halves of its body, of which the first is sent.
async fn half_sent(
    proxied: &Proxied,
) -> (
    tokio::task::JoinHandle<Response<Incoming>>,
    mpsc::Sender<Result<Frame<Bytes>, BoxError>>,
    Bytes,
) {
    let (frames, body) = streamed();
    let request = proxied.create().map(|_| body);
    let call = tokio::spawn(send(request));
    let mut first = Bytes::from(task("one"));
    let second = first.split_off(first.len() / 2);
    frames.send(Ok(Frame::data(first))).await.unwrap();
    (call, frames, second)
}

#[tokio::test]
async fn a_body_streams_through_and_is_sent_again_from_what_was_kept() {
    let proxied = Proxied::start().await;
    proxied.ploton.fail([Fault::CutAfter]);
    let (call, frames, second) = half_sent(&proxied).await;
    // Ploton has the head before the caller has sent the rest.
    arrived(&proxied.ploton, 1).await;
    frames.send(Ok(Frame::data(second))).await.unwrap();
    drop(frames);
    let response = call.await.unwrap();
    assert_eq!(response.status(), StatusCode::CREATED);
    proxied.ploton.assert_one_request(2);
    assert_eq!(proxied.fake.tasks()[0].prompt, "one");
    assert_eq!(proxied.fake.counts().created, 1);
}

#[tokio::test]
async fn a_cut_amid_the_body_goes_on_with_what_the_caller_has_yet_to_send() {
    let proxied = Proxied::start().await;
    proxied.ploton.fail([Fault::CutBefore]);
    let (call, frames, second) = half_sent(&proxied).await;
    // The next attempt is there before the caller has sent the rest.
    arrived(&proxied.ploton, 2).await;
    frames.send(Ok(Frame::data(second))).await.unwrap();
    drop(frames);
    assert_eq!(call.await.unwrap().status(), StatusCode::CREATED);
    proxied.ploton.assert_one_request(2);
    assert_eq!(proxied.fake.tasks()[0].prompt, "one");
    assert_eq!(proxied.fake.counts().created, 1);
}

/// Ploton must not take half a body for the whole of it.
#[tokio::test]
async fn a_caller_that_breaks_off_amid_its_body_creates_nothing() {
    let proxied = Proxied::start().await;
    let (call, frames, _second) = half_sent(&proxied).await;
    arrived(&proxied.ploton, 1).await;
    let broken = frames.send(Err("broken off".into())).await;
    broken.unwrap();
    assert!(call.await.unwrap_err().is_panic(), "the caller's own error");
    let idle = async {
        while proxied.limit.snapshot().in_flight > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let idle = tokio::time::timeout(Duration::from_secs(60), idle).await;
    idle.expect("nothing is left on its way");
    assert_eq!(proxied.ploton.seen().len(), 1);
    assert_eq!(proxied.fake.counts().created, 0);
}

#[tokio::test]
async fn a_body_that_is_longer_than_what_is_kept_is_sent_once() {
    let proxied = Proxied::start().await;
    proxied.ploton.fail([Fault::Status(500)]);
    let long = Full::<Bytes>::from(vec![b' '; 100_000]);
    let response = send(proxied.create().map(|_| long)).await;
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(proxied.ploton.seen().len(), 1);
    let length = &proxied.ploton.seen()[0].headers[header::CONTENT_LENGTH];
    assert_eq!(length, "100000", "it keeps its length");
}

#[tokio::test]
async fn what_is_between_two_neighbours_goes_no_further() {
    let proxied = Proxied::start().await;
    let mut request = proxied.create();
    for (name, value) in [
        ("authorization", "Bearer of the caller"),
        ("connection", "keep-alive, x-private"),
        ("cookie", "session=1"),
        ("keep-alive", "timeout=5"),
        ("proxy-authorization", "Basic Zm9vOmJhcg=="),
        ("te", "trailers"),
        ("upgrade", "websocket"),
        ("x-private", "1"),
    ] {
        let value = value.parse().unwrap();
        request.headers_mut().insert(name, value);
    }
    let response = send(request).await;
    assert_eq!(response.status(), StatusCode::CREATED);
    assert!(proxied.proxy.seen()[0].headers.contains_key("x-private"));

    let seen = &proxied.ploton.seen()[0];
    let mut names: Vec<_> = seen.headers.keys().map(|name| name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "accept",
            "authorization",
            "content-length",
            "content-type",
            "host",
            "idempotency-key",
            "user-agent",
        ]
    );
    assert_eq!(seen.authorization, bearer());
    let host = seen.headers[header::HOST].to_str().unwrap();
    assert_eq!(format!("http://{host}"), proxied.ploton.url());
    // Nor does Ploton's side reach the caller.
    assert!(!response.headers().contains_key("x-ratelimit-limit"));
    assert!(!response.headers().contains_key(header::AUTHORIZATION));
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
}

#[tokio::test]
async fn a_callers_own_key_is_the_one_that_ploton_knows() {
    let proxied = Proxied::with(
        |stack| stack.retry(PlotonRetry::new().attempts(2)),
        |router| router,
    )
    .await;
    let keyed = || {
        let mut request = proxied.create();
        let key = "invoice-42".parse().unwrap();
        request.headers_mut().insert("idempotency-key", key);
        request
    };
    proxied.ploton.fail([Fault::CutAfter, Fault::CutAfter]);
    let response = send(keyed()).await;
    assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "");
    // What the caller then sends once more is still the same request.
    let response = send(keyed()).await;
    assert_eq!(response.status(), StatusCode::CREATED);
    let seen = proxied.ploton.seen();
    assert_eq!(seen.len(), 3);
    let same = |key: &Option<String>| key.as_deref() == Some("invoice-42");
    assert!(seen.iter().all(|seen| same(&seen.idempotency_key)));
    assert_eq!(proxied.fake.counts().created, 1);
}

/// All callers have one API key, so to Ploton their keys are those of one caller: two that hit on the same one would get
/// each other's answers. Where callers are not to see each other's, each one's key is made of its name and its own.
#[tokio::test]
async fn callers_that_hit_on_the_same_key_are_told_apart_by_their_names() {
    fn named<B>(mut request: Request<B>) -> Request<B> {
        let text = |name| request.headers().get(name)?.to_str().ok();
        let caller = text("x-caller").unwrap_or_default();
        if let Some(key) = text("idempotency-key") {
            let key = IdempotencyKey::derive_from([caller, key]);
            let key = key.as_str().parse().unwrap();
            request.headers_mut().insert("idempotency-key", key);
        }
        request
    }
    let calls = |proxied: &Proxied| {
        let calls = ["acme", "other", "acme"].map(|caller| {
            let mut request = create(proxied.proxy.url(), caller);
            let headers = request.headers_mut();
            headers.insert("x-caller", caller.parse().unwrap());
            headers.insert("idempotency-key", "1".parse().unwrap());
            send(request)
        });
        async {
            let mut statuses = Vec::new();
            for call in calls {
                statuses.push(call.await.status());
            }
            statuses
        }
    };
    let (created, unlike) = (StatusCode::CREATED, StatusCode::UNPROCESSABLE_ENTITY);

    let alike = Proxied::start().await;
    assert_eq!(calls(&alike).await, [created, unlike, created]);
    assert_eq!(alike.fake.counts().created, 1);

    let told_apart = Proxied::with(
        |stack| stack,
        |router| router.layer(MapRequestLayer::new(named)),
    )
    .await;
    assert_eq!(calls(&told_apart).await, [created; 3]);
    assert_eq!(told_apart.fake.counts().created, 2);
}

#[tokio::test]
async fn a_caller_that_goes_away_ends_the_request() {
    let proxied = Proxied::start().await;
    proxied.ploton.fail([Fault::RateLimited { retry_after: 3 }]);
    let call = tokio::spawn(send(proxied.create()));
    arrived(&proxied.ploton, 1).await;
    call.abort();
    let _ = call.await;
    tokio::time::sleep(Duration::from_millis(4_500)).await;
    assert_eq!(proxied.ploton.seen().len(), 1, "no attempt for nobody");
    let limit = proxied.limit.snapshot();
    assert_eq!((limit.in_flight, limit.waiting), (0, 0));
    assert_eq!(proxied.fake.counts().created, 0);
}

#[tokio::test]
async fn a_request_goes_to_ploton_wherever_the_caller_says_and_not_out_of_the_api() {
    let elsewhere = Server::start(FakePloton::new()).await;
    let proxied = Proxied::start().await;
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let mut request = proxied.create();
        *request.version_mut() = version;
        let host = elsewhere.url().trim_start_matches("http://");
        let headers = request.headers_mut();
        headers.insert(header::HOST, host.parse().unwrap());
        assert_eq!(send(request).await.status(), StatusCode::CREATED);
    }
    assert_eq!(proxied.ploton.seen().len(), 2);
    assert!(elsewhere.seen().is_empty());

    for (path, status) in [
        ("/v1/%2e%2e/keys", StatusCode::BAD_GATEWAY),
        ("/v1/tasks/%252e%252e/%2e%2e/keys", StatusCode::BAD_GATEWAY),
        ("/keys", StatusCode::NOT_FOUND),
        ("/v1", StatusCode::NOT_FOUND),
    ] {
        let request = Request::get(format!("{}{path}", proxied.proxy.url()));
        let response = send(request.body(Full::<Bytes>::default()).unwrap()).await;
        assert_eq!(response.status(), status, "{path}");
    }
    assert_eq!(proxied.ploton.seen().len(), 2);
}

#[tokio::test]
async fn a_proxy_tells_no_more_than_that_ploton_is_away() {
    let proxied = Proxied::start().await;
    let url = proxied.ploton.url().to_owned();
    drop(proxied.ploton);
    let stack = tower_ploton::PlotonStack::new(tower_ploton_sdks::key(), tower_ploton_sdks::plan());
    let router = snippet::proxy(
        base_url(&url),
        stack.origin(tower_ploton_sdks::origin(&url)),
    );
    let proxy = Server::start(router).await;
    let response = send(create(proxy.url(), "one")).await;
    assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "");
}
