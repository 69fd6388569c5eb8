mod file;
mod ready;
mod renewal;
mod shared;
mod source;

use http::{HeaderValue, Response, StatusCode};
use tokio_test::{assert_pending, assert_ready_err, assert_ready_ok, task};
use tower_test::mock;

use super::*;
use crate::logical::LogicalRequest;

const KEY: &str = "pk_test_hunter2hunter2hunter2";

type Spawned = (
    mock::Spawn<AuthService<mock::Mock<Request<()>, Response<()>>>>,
    mock::Handle<Request<()>, Response<()>>,
);

fn spawn(origin: &str) -> Spawned {
    let layer = PlotonAuth::new(ApiKey::parse(KEY).unwrap());
    mock::spawn_layer(layer.origin(Origin::parse(origin).unwrap()))
}

/// Sends `request` and says what arrived at the inner service.
async fn arrived((service, server): &mut Spawned, request: Request<()>) -> Request<()> {
    assert_ready_ok!(service.poll_ready());
    let mut call = task::spawn(service.call(request));
    assert_pending!(call.poll());
    let (arrived, answer) = server.next_request().await.unwrap();
    answer.send_response(Response::new(()));
    assert_ready_ok!(call.poll());
    arrived
}

fn get(uri: &str) -> Request<()> {
    Request::get(uri).body(()).unwrap()
}

#[tokio::test]
async fn plotons_origin_gets_the_key_marked_sensitive() {
    let mut pair = spawn("https://api.ploton.ai");
    let request = arrived(&mut pair, get("https://api.ploton.ai/v1/tasks")).await;
    let value = &request.headers()[AUTHORIZATION];
    assert_eq!(value, &format!("Bearer {KEY}"));
    assert!(value.is_sensitive());
    assert!(!format!("{request:?} {:?}", pair.0.get_ref()).contains(KEY));
}

#[tokio::test]
async fn another_origin_passes_untouched() {
    let mut pair = spawn("https://api.ploton.ai");
    for uri in [
        "https://evil.example/v1/tasks",
        "https://api.ploton.ai:8443/v1/tasks",
        "https://api.ploton.ai.evil.example/",
        "http://evil.example/",
        "/v1/tasks",
    ] {
        let request = arrived(&mut pair, get(uri)).await;
        assert!(request.headers().is_empty(), "{uri}");
    }
}

#[tokio::test]
async fn a_callers_own_header_is_kept() {
    let mut pair = spawn("https://api.ploton.ai");
    let mut request = get("https://api.ploton.ai/v1/tasks");
    let own = HeaderValue::from_static("Bearer own");
    request.headers_mut().insert(AUTHORIZATION, own.clone());
    let request = arrived(&mut pair, request).await;
    assert_eq!(
        request
            .headers()
            .get_all(AUTHORIZATION)
            .iter()
            .collect::<Vec<_>>(),
        [own]
    );
}

#[tokio::test]
async fn plain_http_to_the_host_is_refused_before_anything_is_sent() {
    for origin in ["https://api.ploton.ai", "http://127.0.0.1:8080"] {
        let (mut service, mut server) = spawn(origin);
        for uri in ["http://api.ploton.ai/", "http://API.ploton.ai.:8080/v1"] {
            assert_ready_ok!(service.poll_ready());
            let error = assert_ready_err!(task::spawn(service.call(get(uri))).poll());
            assert!(error.is::<PlainHttpRefused>(), "{uri}");
        }
        assert_pending!(task::spawn(server.next_request()).poll());
    }
}

#[tokio::test]
async fn a_named_loopback_origin_gets_the_key_in_the_clear() {
    let mut pair = spawn("http://127.0.0.1:8080");
    let request = arrived(&mut pair, get("http://127.0.0.1:8080/v1/tasks")).await;
    assert!(request.headers().contains_key(AUTHORIZATION));
    let request = arrived(&mut pair, get("https://api.ploton.ai/v1/tasks")).await;
    assert!(request.headers().is_empty());
}

/// Sends a request that is answered with a 401 after `set` was called; whether the answer says that the key was renewed.
async fn told_of_renewal((service, server): &mut Spawned, set: impl FnOnce()) -> bool {
    assert_ready_ok!(service.poll_ready());
    let mut call = task::spawn(service.call(get("https://api.ploton.ai/v1/tasks")));
    assert_pending!(call.poll());
    let (_, answer) = server.next_request().await.unwrap();
    set();
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::UNAUTHORIZED;
    answer.send_response(response);
    let response = assert_ready_ok!(call.poll());
    response.extensions().get::<KeyRenewed>().is_some()
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_set_is_seen_by_every_service_of_the_layer() {
    let auth = PlotonAuth::new(ApiKey::parse(KEY).unwrap());
    let handle = auth.key_handle();
    let mut pairs: [Spawned; 2] = [mock::spawn_layer(auth.clone()), mock::spawn_layer(auth)];
    handle.set(ApiKey::parse("pk_test_b").unwrap()).unwrap();
    for pair in &mut pairs {
        let request = arrived(pair, get("https://api.ploton.ai/v1/tasks")).await;
        assert_eq!(request.headers()[AUTHORIZATION], "Bearer pk_test_b");
        assert!(request.headers()[AUTHORIZATION].is_sensitive());
    }
    let live = ApiKey::parse("pk_live_b").unwrap();
    assert!(handle.set(live).is_err());
    let request = arrived(&mut pairs[0], get("https://api.ploton.ai/v1/tasks")).await;
    assert_eq!(request.headers()[AUTHORIZATION], "Bearer pk_test_b");
}

#[tokio::test(start_paused = true)]
async fn a_401_tells_whether_the_key_was_set_meanwhile() {
    let auth = PlotonAuth::new(ApiKey::parse(KEY).unwrap());
    let handle = auth.key_handle();
    let mut pair: Spawned = mock::spawn_layer(auth);
    assert!(!told_of_renewal(&mut pair, || ()).await);
    let set = |key: &str| handle.set(ApiKey::parse(key).unwrap()).unwrap();
    assert!(!told_of_renewal(&mut pair, || set(KEY)).await);
    assert!(told_of_renewal(&mut pair, || set("pk_test_b")).await);
    assert!(!told_of_renewal(&mut pair, || ()).await);
}

#[tokio::test(start_paused = true)]
async fn a_pinned_request_carries_the_key_of_its_time() {
    let auth = PlotonAuth::new(ApiKey::parse(KEY).unwrap());
    let handle = auth.key_handle();
    let mut pair: Spawned = mock::spawn_layer(auth);
    let before = tokio::time::Instant::now();
    tokio::time::advance(Duration::from_secs(1)).await;
    handle.set(ApiKey::parse("pk_test_b").unwrap()).unwrap();
    for (pinned, key) in [(None, "pk_test_b"), (Some(before), KEY)] {
        let mut request = get("https://api.ploton.ai/v1/tasks");
        LogicalRequest::get_or_insert(request.extensions_mut()).pinned = pinned;
        let request = arrived(&mut pair, request).await;
        assert_eq!(request.headers()[AUTHORIZATION], format!("Bearer {key}"));
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_that_is_printed_holds_a_key() {
    let key = || ApiKey::parse(KEY).unwrap();
    let fixed = PlotonAuth::new(key());
    let handle = fixed.key_handle();
    handle.set(ApiKey::parse("pk_test_b").unwrap()).unwrap();
    let fresh = FreshKey::from(key()).expires_in(Duration::from_secs(60));
    let given = fresh.clone();
    let sourced = PlotonAuth::from_source(move || {
        let given = given.clone();
        async { Ok::<_, tower::BoxError>(given) }
    });
    let renewing = sourced.key_handle();
    renewing.renew().await.unwrap();
    let (mut service, _server) = mock::spawn_layer::<Request<()>, Response<()>, _>(sourced);
    assert_ready_ok!(service.poll_ready());
    let call = service.call(get("https://api.ploton.ai/"));
    let shown = format!(
        "{fixed:?} {handle:?} {fresh:?} {renewing:?} {call:?} {:?}",
        service.get_ref()
    );
    assert!(shown.contains("pk_test_…ter2"), "the last four are shown");
    assert!(!shown.contains("hunter"), "{shown}");
}
