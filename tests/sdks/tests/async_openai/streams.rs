//! Answers that come as events, one by one.

use std::{convert::Infallible, time::Duration};

use async_openai::{
    Client, config::OpenAIConfig, error::OpenAIError, types::stream::StreamResponse,
};
use http::{Request, Response, header::CONTENT_TYPE};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio_stream::StreamExt;
use tower::service_fn;
use tower_ploton::retry::AttemptsFailed;
use tower_ploton_sdks::{
    Answer, FREE, Fault, LATER, Once, SOON, Server, Tls, bearer, every_fault, slowly, timed,
};

use super::{client, question, through};

/// Answers by a first event, and by a second after `pause`.
async fn answer(
    request: Request<Incoming>,
    pause: Duration,
) -> Result<Response<Answer>, Infallible> {
    let _ = request.into_body().collect().await;
    let event = |part| format!("data: {}\n\n", json!({ "part": part }));
    let end = "data: [DONE]\n\n".to_owned();
    let events = [
        (SOON, event("first")),
        (pause, event("second")),
        (SOON, end),
    ];
    let response = Response::builder().header(CONTENT_TYPE, "text/event-stream");
    Ok(response.body(slowly(events)).unwrap())
}

async fn start(pause: Duration) -> Server {
    Server::start(service_fn(move |request| answer(request, pause))).await
}

async fn ask(client: &Client<OpenAIConfig>) -> Result<StreamResponse<Value>, OpenAIError> {
    let mut question = question();
    question["stream"] = true.into();
    client.chat().create_stream_byot(question).await
}

async fn assert_next(events: &mut StreamResponse<Value>, part: &str) {
    let event = events.next().await.unwrap().unwrap();
    assert_eq!(event["part"], part);
}

#[tokio::test]
async fn events_begin_once_through_every_fault() {
    let once = Once::new(service_fn(|request| answer(request, SOON)));
    let server = Server::start(once.clone()).await;
    server.fail(every_fault());
    let mut events = ask(&client(&server, &server)).await.unwrap();
    assert_next(&mut events, "first").await;
    assert_next(&mut events, "second").await;
    assert!(events.next().await.is_none());
    server.assert_one_request(4);
    assert_eq!(server.credentials(), bearer().as_slice());
    assert_eq!(once.done(), 1);
}

#[tokio::test]
async fn events_that_never_begin_end_in_our_error() {
    let server = start(SOON).await;
    server.fail(vec![Fault::CutBefore; 4]);
    let error = ask(&client(&server, &server)).await.map(drop).unwrap_err();
    let OpenAIError::Boxed(error) = error else {
        panic!("an error of a middleware");
    };
    assert!(error.is::<AttemptsFailed>(), "{error:?}");
    assert_eq!(server.seen().len(), 4);
}

#[tokio::test]
async fn events_that_break_off_are_the_callers() {
    let server = start(Duration::MAX).await;
    let client = client(&server, &server);
    let mut events = ask(&client).await.unwrap();
    assert_next(&mut events, "first").await;
    server.cut_connections();
    let error = events.next().await.unwrap().unwrap_err();
    assert!(matches!(error, OpenAIError::StreamError(_)), "{error:?}");
    assert_eq!(server.seen().len(), 1, "nothing is repeated");

    let mut again = ask(&client).await.unwrap();
    assert_next(&mut again, "first").await;
    let seen = server.seen();
    assert_eq!(seen.len(), 2);
    assert_ne!(seen[0].idempotency_key, seen[1].idempotency_key);
}

#[tokio::test]
async fn events_go_on_after_the_time_for_their_head_and_are_no_longer_in_flight() {
    tokio::join!(go_on("h2"), go_on("http/1.1"));
}

async fn go_on(protocol: &str) {
    let tls = Tls::new();
    let service = service_fn(|request| answer(request, LATER));
    let server = Server::start_tls(service, &tls, &[protocol]).await;
    let stack = timed(&server);
    let limits = stack.rate_limit_handle();
    let mut events = ask(&through(stack, &server, &tls)).await.unwrap();
    assert_next(&mut events, "first").await;
    assert_eq!(limits.snapshot().in_flight, 0);
    assert_next(&mut events, "second").await;
    assert!(events.next().await.is_none());
}

/// The first request of all goes ahead alone, until its answer's head is there.
#[tokio::test]
async fn open_events_hold_back_nobody() {
    let server = start(Duration::MAX).await;
    let client = client(&server, &server);
    let mut ahead = ask(&client).await.unwrap();
    assert_next(&mut ahead, "first").await;
    let next = tokio::time::timeout(FREE, ask(&client)).await.unwrap();
    let mut next = next.unwrap();
    assert_next(&mut next, "first").await;
    assert_eq!(server.seen().len(), 2);
}
