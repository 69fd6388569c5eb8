//! async-openai: its client over the layers, and a server of one answer.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by a panic"
)]

#[allow(unreachable_pub, reason = "as its user would write it")]
#[path = "../snippets/async_openai.rs"]
mod snippet;
#[path = "async_openai/streams.rs"]
mod streams;
#[path = "async_openai/tls.rs"]
mod tls;

use std::convert::Infallible;

use async_openai::{Client, config::OpenAIConfig, error::OpenAIError};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use serde_json::{Value, json};
use tower::service_fn;
use tower_ploton::{PlotonStack, retry::AttemptsFailed};
use tower_ploton_sdks::{Fault, Once, Server, Tls, bearer, every_fault, stack};

/// Answers with what was asked.
async fn echo(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let body = request.into_body().collect().await.unwrap().to_bytes();
    Ok(Response::new(body.into()))
}

/// A client of `server`, with the layers for `of`.
fn client(server: &Server, of: &Server) -> Client<OpenAIConfig> {
    through(stack(of), server, &Tls::new())
}

/// A client of `server` that trusts `tls`, through `stack`.
fn through(stack: PlotonStack, server: &Server, tls: &Tls) -> Client<OpenAIConfig> {
    let config = OpenAIConfig::new()
        .with_api_base(format!("{}/v1", server.url()))
        .with_api_key("sk-not-ours");
    let mut trusting = tls.client();
    trusting.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let http = reqwest::Client::builder().tls_backend_preconfigured(trusting);
    snippet::client(http.no_proxy().build().unwrap(), config, stack)
}

fn question() -> Value {
    json!({ "model": "any", "messages": [{ "role": "user", "content": "one" }] })
}

async fn ask(client: &Client<OpenAIConfig>) -> Result<Value, OpenAIError> {
    client.chat().create_byot(question()).await
}

#[tokio::test]
async fn a_question_is_asked_once_through_every_fault() {
    let once = Once::new(service_fn(echo));
    let server = Server::start(once.clone()).await;
    server.fail(every_fault());
    let answer = ask(&client(&server, &server)).await.unwrap();
    assert_eq!(
        answer["messages"][0]["content"], "one",
        "the body was whole"
    );
    server.assert_one_request(4);
    assert_eq!(server.credentials(), bearer().as_slice());
    assert_eq!(server.seen()[0].path, "/v1/chat/completions");
    assert_eq!(once.done(), 1);
}

#[tokio::test]
async fn attempts_are_ours_alone_and_end_in_the_servers_answer_or_our_error() {
    let server = Server::start(service_fn(echo)).await;
    let client = client(&server, &server);
    server.fail(vec![Fault::Status(503); 4]);
    let error = ask(&client).await.unwrap_err();
    assert!(matches!(error, OpenAIError::ApiError(_)), "{error:?}");
    assert_eq!(server.seen().len(), 4);

    server.fail(vec![Fault::CutBefore; 4]);
    let OpenAIError::Boxed(error) = ask(&client).await.unwrap_err() else {
        panic!("an error of a middleware");
    };
    assert_eq!(
        error
            .downcast::<AttemptsFailed>()
            .unwrap()
            .attempts()
            .made(),
        4
    );
    assert_eq!(server.seen().len(), 8);
}

#[tokio::test]
async fn another_server_gets_neither_key() {
    let (server, other) = (
        Server::start(service_fn(echo)).await,
        Server::start(service_fn(echo)).await,
    );
    ask(&client(&other, &server)).await.unwrap();
    assert_eq!(other.seen().len(), 1);
    assert!(other.credentials().is_empty());
    assert!(server.seen().is_empty());
}
