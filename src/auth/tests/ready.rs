//! The inner service's readiness while a key is awaited, and the key at the moment of sending.

use std::time::Duration;

use http::{Request, Response};
use tokio::{sync::oneshot, time::advance};
use tokio_test::{assert_pending, assert_ready_err, assert_ready_ok, task};
use tower::BoxError;
use tower_test::mock;

use super::{super::*, get};

/// A layer whose source answers once, when told so, with a key that lives for 10 s; then with `pk_test_next`.
fn once() -> (PlotonAuth, oneshot::Sender<()>) {
    let (tell, told) = oneshot::channel::<()>();
    let told = std::sync::Mutex::new(Some(told));
    let auth = PlotonAuth::from_source(move || {
        let told = told.lock().unwrap().take();
        async {
            let name = match told {
                Some(told) => told.await.map(|()| "first"),
                None => Ok("next"),
            };
            let key = ApiKey::parse(&format!("pk_test_{}", name?))?;
            Ok::<_, BoxError>(FreshKey::from(key).expires_in(Duration::from_secs(10)))
        }
    });
    (auth, tell)
}

fn bearer(request: &Request<()>) -> &str {
    request.headers()[AUTHORIZATION].to_str().unwrap()
}

#[tokio::test(start_paused = true)]
async fn while_a_key_is_awaited_the_inner_services_place_is_anybodys() {
    let (auth, tell) = once();
    let (inner, mut server) = mock::pair::<Request<()>, Response<()>>();
    // One may be on its way at a time.
    let limited = tower::limit::ConcurrencyLimit::new(inner, 1);
    let mut service = mock::Spawn::new(auth.layer(limited));
    let mut other = service.clone();
    assert_ready_ok!(service.poll_ready());
    let mut call = task::spawn(service.call(get("https://api.ploton.ai/")));
    assert_pending!(call.poll());

    // Another origin's request needs no key.
    assert_ready_ok!(other.poll_ready());
    let mut passes = task::spawn(other.call(get("https://other.example/")));
    assert_pending!(passes.poll());
    let (request, answer) = server.next_request().await.unwrap();
    assert_eq!(request.uri().host(), Some("other.example"));

    tell.send(()).unwrap();
    assert_pending!(call.poll(), "the place is taken");
    assert_pending!(task::spawn(server.next_request()).poll());
    answer.send_response(Response::new(()));
    assert_ready_ok!(passes.poll());
    drop(passes);
    assert_pending!(call.poll());
    let (request, answer) = server.next_request().await.unwrap();
    assert_eq!(bearer(&request), "Bearer pk_test_first");
    answer.send_response(Response::new(()));
    assert_ready_ok!(call.poll());
}

/// The refused one kept it for as long as its service lived, and everybody else waited.
#[tokio::test]
async fn after_a_request_that_is_refused_the_inner_services_place_is_anybodys() {
    let auth = PlotonAuth::new(ApiKey::parse("pk_test_a").unwrap());
    let (inner, _server) = mock::pair::<Request<()>, Response<()>>();
    let limited = tower::limit::ConcurrencyLimit::new(inner, 1);
    let mut service = mock::Spawn::new(auth.layer(limited));
    let mut other = service.clone();
    assert_ready_ok!(service.poll_ready());
    let mut call = task::spawn(service.call(get("http://api.ploton.ai/")));
    let error = assert_ready_err!(call.poll());
    assert!(error.is::<PlainHttpRefused>());
    assert_ready_ok!(other.poll_ready());
}

#[tokio::test(start_paused = true)]
async fn the_key_is_the_one_in_force_when_the_inner_service_is_ready() {
    for (wait, sent) in [(9, "set"), (11, "next")] {
        let (auth, tell) = once();
        let handle = auth.key_handle();
        let (mut service, mut server) = mock::spawn_layer(auth);
        server.allow(1);
        assert_ready_ok!(service.poll_ready());
        let mut call = task::spawn(service.call(get("https://api.ploton.ai/")));
        server.allow(0);
        tell.send(()).unwrap();
        assert_pending!(call.poll());
        advance(Duration::from_secs(wait)).await;
        if sent == "set" {
            handle.set(ApiKey::parse("pk_test_set").unwrap()).unwrap();
        }
        assert_pending!(call.poll());
        server.allow(1);
        assert_pending!(call.poll());
        let (request, answer) = server.next_request().await.unwrap();
        assert_eq!(bearer(&request), format!("Bearer pk_test_{sent}"));
        answer.send_response(Response::new(()));
        assert_ready_ok!(call.poll());
    }
}

#[tokio::test(start_paused = true)]
async fn an_inner_service_that_fails_meanwhile_says_so() {
    let (auth, tell) = once();
    let (mut service, mut server) = mock::spawn_layer::<Request<()>, Response<()>, _>(auth);
    assert_ready_ok!(service.poll_ready());
    let mut call = task::spawn(service.call(get("https://api.ploton.ai/")));
    assert_pending!(call.poll());
    server.send_error("closed");
    tell.send(()).unwrap();
    let error = assert_ready_err!(call.poll());
    assert_eq!(error.to_string(), "closed");
}
