//! What other servers than Ploton's receive: no key, whoever sends a request their way.

use bytes::Bytes;
use http::{Request, Response, StatusCode, header::LOCATION};
use http_body_util::Full;
use tower::{BoxError, Layer, Service, ServiceBuilder};
use tower_http::follow_redirect::FollowRedirectLayer;
use tower_ploton::{
    PlotonAuth, PlotonIdempotency, PlotonRateLimit, PlotonRetry, PlotonStack, mock::FakePloton,
};

use crate::{
    auths,
    capture::{self, searched},
    create, get, key,
    needles::{self, KEY},
    origin, plan, send,
    servers::{Recorder, client},
};

/// A server that sends everyone on to `target`, with the status that the path names.
async fn sends_on_to(target: String) -> Recorder {
    Recorder::start(move |head| {
        let status = head.uri.path().trim_start_matches('/');
        Response::builder()
            .status(status)
            .header(LOCATION, &target)
            .body(Full::default())
            .unwrap()
    })
    .await
}

/// Whether a server that may have the key got it.
fn has_key(server: &Recorder) -> bool {
    let received = server.received();
    received
        .windows(KEY.len())
        .any(|part| part == KEY.as_bytes())
}

#[tokio::test]
async fn a_redirect_to_another_origin_carries_no_key() {
    capture::start();
    let both = |auth: PlotonAuth| [(auth.clone(), false), (auth, true)];
    for (auth, http2) in auths().into_iter().flat_map(both) {
        let stranger = Recorder::silent().await;
        let ploton = sends_on_to(format!("{}/there", stranger.url)).await;
        let auth = auth.origin(origin(&ploton.url));
        let redirect = FollowRedirectLayer::new();
        let above = ServiceBuilder::new()
            .layer(redirect.clone())
            .layer(auth.clone())
            .service(client(http2));
        let below = ServiceBuilder::new()
            .layer(auth)
            .layer(redirect)
            .service(client(http2));
        for status in [301, 302, 303, 307, 308] {
            for method in ["GET", "POST", "PUT"] {
                let request = || {
                    let uri = format!("{}/{status}", ploton.url);
                    let request = Request::builder().method(method).uri(uri);
                    request.body(Full::<Bytes>::default()).unwrap()
                };
                assert_eq!(follow(&above, request()).await, StatusCode::OK);
                assert_eq!(follow(&below, request()).await, StatusCode::OK);
            }
        }
        assert!(has_key(&ploton), "the key was sent at all");
        let received = stranger.received();
        let visits = String::from_utf8_lossy(&received).matches("/there").count();
        assert_eq!(visits, 30);
        needles::search(&received, "what another server received");
    }
    searched();
}

async fn follow<S, R>(service: &S, request: Request<Full<Bytes>>) -> StatusCode
where
    S: Service<Request<Full<Bytes>>, Response = Response<R>> + Clone,
    S::Error: std::fmt::Debug,
{
    use tower::ServiceExt;
    service.clone().oneshot(request).await.unwrap().status()
}

/// To a stranger and back: the way back to Ploton's origin has the key, the stranger has not.
#[tokio::test]
async fn a_redirect_there_and_back_shows_the_stranger_no_key() {
    capture::start();
    let fake = FakePloton::new().accept_key(KEY);
    let server = fake.listen().await.unwrap();
    let stranger = sends_on_to(format!("{}/v1/tasks", server.url())).await;
    let auth = PlotonAuth::new(key()).origin(origin(&server.url()));
    let service = ServiceBuilder::new()
        .layer(FollowRedirectLayer::new())
        .layer(auth)
        .service(client(false));
    let listed = follow(&service, get(&format!("{}/302", stranger.url))).await;
    assert_eq!(listed, StatusCode::OK);
    assert!(fake.attempts()[0].authorized);
    assert!(!stranger.received().is_empty());
    needles::search(&stranger.received(), "what another server received");
    searched();
}

/// URIs that look like Ploton's origin to a careless reader, and go to the stranger.
#[tokio::test]
async fn a_request_for_another_server_carries_no_key_through_any_layer() {
    capture::start();
    let stranger = Recorder::silent().await;
    let port = stranger.url.rsplit(':').next().unwrap();
    let ploton = FakePloton::new().listen().await.unwrap();
    let own = ploton.url();
    let own_host = own.strip_prefix("http://").unwrap();
    let targets = [
        stranger.url.clone(),
        format!("http://localhost:{port}"),
        format!("http://{own_host}@127.0.0.1:{port}"),
        format!("http://api.ploton.ai@127.0.0.1:{port}"),
        format!("HTTP://127.0.0.1:{port}"),
    ];
    let both = |auth: PlotonAuth| [(auth.clone(), false), (auth, true)];
    for (auth, http2) in auths().into_iter().flat_map(both) {
        let client = client(http2);
        let stack = PlotonStack::new(key(), plan())
            .auth(auth.clone())
            .origin(origin(&own))
            .layer(client.clone());
        let auth = auth.origin(origin(&own));
        let auth_outside = ServiceBuilder::new()
            .map_err(BoxError::from)
            .layer(auth.clone())
            .layer(PlotonRateLimit::new(plan()).origin(origin(&own)))
            .layer(PlotonRetry::new())
            .layer(PlotonIdempotency::new())
            .service(client.clone());
        let auth_alone = auth.layer(client);
        for (n, target) in targets.iter().enumerate() {
            let request = |who| {
                let request = create(target, who);
                assert_eq!(request.uri().path(), "/v1/tasks");
                request
            };
            let answered = [
                send(&stack, request("stack")).await,
                send(&auth_outside, request("auth outside")).await,
                send(&auth_alone, request("auth alone")).await,
            ];
            assert_eq!(answered, [Some(StatusCode::OK); 3], "{n}: {target}");
        }
    }
    let received = stranger.received();
    let visits = String::from_utf8_lossy(&received).matches("POST").count();
    assert_eq!(visits, targets.len() * 3 * 2 * auths().len());
    needles::search(&received, "what another server received");
    searched();
}

/// Plain HTTP to Ploton's own host is refused before anything is sent, through a proxy too.
#[tokio::test]
async fn plain_http_to_plotons_host_is_refused_before_anything_is_sent() {
    capture::start();
    let proxy = Recorder::silent().await;
    let to_proxy = |request: Request<Full<Bytes>>| {
        let (mut head, body) = request.into_parts();
        head.uri = proxy.url.parse().unwrap();
        client(false).request(Request::from_parts(head, body))
    };
    let network = tower::service_fn(to_proxy);
    let mut refused = 0;
    for uri in [
        "http://api.ploton.ai/v1/tasks",
        "http://api.ploton.ai:443/v1/tasks",
        "http://API.PLOTON.AI./v1/tasks",
    ] {
        use tower::ServiceExt;
        let stack = PlotonStack::new(key(), plan()).layer(network);
        capture::note_error(&*stack.oneshot(get(uri)).await.unwrap_err());
        for auth in auths() {
            let error = auth.layer(network).oneshot(get(uri)).await.unwrap_err();
            capture::note_error(&*error);
            refused += 1;
        }
    }
    assert_eq!(refused, auths().len() * 3);
    assert!(proxy.received().is_empty());
    searched();
}
