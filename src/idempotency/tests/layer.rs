//! The service, on a mock of the inner one.

use std::time::Duration;

use http::{HeaderValue, Method, Request, Response, StatusCode, Uri};
use tokio::time::{self, Instant};
use tokio_test::{assert_pending, assert_ready_ok, task};
use tower_test::mock;

use crate::{
    headers::date::Wall,
    idempotency::{IdempotencyService, PlotonIdempotency},
    idempotency_key::{IDEMPOTENCY_KEY, IdempotencyKey},
    logical::LogicalRequest,
};

type Spawned = (
    mock::Spawn<IdempotencyService<mock::Mock<Request<()>, Response<()>>>>,
    mock::Handle<Request<()>, Response<()>>,
);

fn spawn() -> Spawned {
    spawn_layer(PlotonIdempotency::new())
}

fn spawn_layer(layer: PlotonIdempotency) -> Spawned {
    mock::spawn_layer(layer)
}

/// Sends `request`, answers it with `status`, and says what arrived and what came back.
async fn sent(
    (service, server): &mut Spawned,
    request: Request<()>,
    status: StatusCode,
) -> (Request<()>, Response<()>) {
    assert_ready_ok!(service.poll_ready());
    let mut call = task::spawn(service.call(request));
    assert_pending!(call.poll());
    let (arrived, answer) = server.next_request().await.unwrap();
    let mut response = Response::new(());
    *response.status_mut() = status;
    answer.send_response(response);
    (arrived, assert_ready_ok!(call.poll()))
}

fn key(request: &Request<()>) -> &str {
    request.headers()[IDEMPOTENCY_KEY].to_str().unwrap()
}

#[tokio::test]
async fn every_post_gets_a_key_of_its_own_and_no_other_method_does() {
    let mut pair = spawn();
    let (first, _) = sent(&mut pair, post(), StatusCode::OK).await;
    let (second, _) = sent(&mut pair, post(), StatusCode::OK).await;
    assert_ne!(key(&first), key(&second));
    for method in ["GET", "PUT", "PATCH", "DELETE", "HEAD"] {
        let request = Request::builder().method(method).body(()).unwrap();
        let (arrived, _) = sent(&mut pair, request, StatusCode::OK).await;
        assert!(arrived.headers().is_empty(), "{method}");
    }
}

#[tokio::test]
async fn the_callers_header_is_kept_before_the_callers_extension() {
    let mut pair = spawn();
    let mine = IdempotencyKey::parse("mine").unwrap();
    let mut request = post();
    request.extensions_mut().insert(mine.clone());
    let (arrived, _) = sent(&mut pair, request, StatusCode::OK).await;
    assert_eq!(key(&arrived), "mine");

    let mut request = post();
    request.extensions_mut().insert(mine);
    request
        .headers_mut()
        .insert(IDEMPOTENCY_KEY, "header".parse().unwrap());
    let (arrived, _) = sent(&mut pair, request, StatusCode::OK).await;
    assert_eq!(key(&arrived), "header");
    assert_eq!(arrived.headers().len(), 1);
}

#[tokio::test]
async fn attempts_that_share_a_cell_share_a_key() {
    let mut pair = spawn();
    let mut request = post();
    request.extensions_mut().insert(LogicalRequest::default());
    let (first, _) = sent(&mut pair, request.clone(), StatusCode::OK).await;
    let (second, _) = sent(&mut pair, request.clone(), StatusCode::OK).await;
    assert_eq!(key(&first), key(&second));
    let told = LogicalRequest::of(request.extensions()).unwrap().key();
    assert_eq!(told.unwrap().as_str(), key(&first));
}

#[tokio::test]
async fn only_what_went_wrong_carries_the_key() {
    let mut pair = spawn();
    let (_, response) = sent(&mut pair, post(), StatusCode::CREATED).await;
    assert!(response.extensions().is_empty());
    let (arrived, response) = sent(&mut pair, post(), StatusCode::UNPROCESSABLE_ENTITY).await;
    let told = response.extensions().get::<IdempotencyKey>().unwrap();
    assert_eq!(told.as_str(), key(&arrived));
}

#[tokio::test]
async fn an_empty_header_is_no_key_of_the_callers() {
    let mut pair = spawn();
    let mut request = post();
    let empty = HeaderValue::from_static("");
    request.headers_mut().insert(IDEMPOTENCY_KEY, empty);
    let (arrived, _) = sent(&mut pair, request, StatusCode::OK).await;
    assert!(key(&arrived).starts_with("req_"));
    assert_eq!(arrived.headers().len(), 1);
}

#[tokio::test]
async fn a_header_that_is_no_text_is_left_as_it_is() {
    let mut pair = spawn();
    let mut request = post();
    let value = HeaderValue::from_bytes(b"\xff").unwrap();
    request.headers_mut().insert(IDEMPOTENCY_KEY, value.clone());
    let (arrived, response) = sent(&mut pair, request, StatusCode::BAD_REQUEST).await;
    assert_eq!(arrived.headers()[IDEMPOTENCY_KEY], value);
    assert!(response.extensions().is_empty());
}

#[tokio::test]
async fn the_user_says_which_requests_get_a_key_and_safe_ones_never_do() {
    let ploton = |_: &Method, uri: &Uri| uri.host() == Some("api.ploton.ai");
    let mut pair = spawn_layer(PlotonIdempotency::new().when(ploton));
    for (method, uri, gets_key) in [
        ("POST", "https://api.ploton.ai/v1/tasks", true),
        ("PATCH", "https://api.ploton.ai/v1/tasks", true),
        ("DELETE", "https://api.ploton.ai/v1/tasks", true),
        ("POST", "https://other.example/v1/tasks", false),
        ("GET", "https://api.ploton.ai/v1/tasks", false),
        ("HEAD", "https://api.ploton.ai/v1/tasks", false),
        ("OPTIONS", "https://api.ploton.ai/v1/tasks", false),
        ("TRACE", "https://api.ploton.ai/v1/tasks", false),
    ] {
        let request = Request::builder().method(method).uri(uri).body(()).unwrap();
        let (arrived, _) = sent(&mut pair, request, StatusCode::OK).await;
        let has_key = arrived.headers().contains_key(IDEMPOTENCY_KEY);
        assert_eq!(has_key, gets_key, "{method} {uri}");
    }
}

/// How old `key` is now.
fn age(key: &IdempotencyKey) -> Duration {
    key.age(&Wall::anchored(), Instant::now())
}

#[tokio::test(start_paused = true)]
async fn a_key_is_used_from_when_it_is_first_sent() {
    let mut pair = spawn();
    let mine = IdempotencyKey::random();
    time::advance(Duration::from_secs(60)).await;
    assert_eq!(age(&mine), Duration::ZERO);
    for _ in 0..2 {
        let mut request = post();
        request.extensions_mut().insert(mine.clone());
        let (arrived, _) = sent(&mut pair, request, StatusCode::OK).await;
        assert_eq!(key(&arrived), mine.as_str());
        time::advance(Duration::from_secs(30)).await;
    }
    assert_eq!(age(&mine), Duration::from_secs(60));
}

#[tokio::test(start_paused = true)]
async fn what_went_wrong_tells_how_old_the_key_is() {
    let mut pair = spawn();
    let mut derived = post();
    derived
        .extensions_mut()
        .insert(IdempotencyKey::derive("invoice-42"));
    let mut own = post();
    own.headers_mut()
        .insert(IDEMPOTENCY_KEY, HeaderValue::from_static("own"));
    for request in [post(), derived, own] {
        let (_, response) = sent(&mut pair, request, StatusCode::CONFLICT).await;
        time::advance(Duration::from_secs(30)).await;
        let told = response.extensions().get::<IdempotencyKey>().unwrap();
        assert_eq!(age(told), Duration::from_secs(30), "{told}");
    }
}

fn post() -> Request<()> {
    Request::post("/v1/tasks").body(()).unwrap()
}
