//! What leaves HTTP: `exec` and `portforward`, by an upgrade to WebSocket.

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::SinkExt;
use http::{Request, Response, header};
use http_body_util::Empty;
use hyper::{body::Incoming, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client,
    api::{AttachParams, AttachedProcess},
};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_stream::StreamExt;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, handshake::derive_accept_key, protocol::Role},
};
use tower::service_fn;
use tower_ploton_sdks::{Fault, LATER, Server, Tls, bearer, key, stack, timed};

use super::{client, config_that_trusts, snippet, watch::through};

/// A pod whose command and whose port say what they are told.
async fn pod(mut request: Request<Incoming>) -> Result<Response<Empty<Bytes>>, Infallible> {
    let key = request.headers()["sec-websocket-key"].as_bytes();
    let accept = derive_accept_key(key);
    let upgrade = hyper::upgrade::on(&mut request);
    if request.uri().path().ends_with("/exec") {
        tokio::spawn(exec(upgrade));
    } else {
        tokio::spawn(port(upgrade));
    }
    let response = Response::builder()
        .status(101)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_ACCEPT, accept)
        .header(header::SEC_WEBSOCKET_PROTOCOL, "v5.channel.k8s.io");
    Ok(response.body(Empty::new()).unwrap())
}

type WebSocket = WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>;

/// `None` where the connection was cut.
async fn web_socket(upgrade: OnUpgrade) -> Option<WebSocket> {
    let io = TokioIo::new(upgrade.await.ok()?);
    Some(WebSocketStream::from_raw_socket(io, Role::Server, None).await)
}

/// Echoes until it is to die. Channel 0 is what the command reads, 1 what it writes, 3 how it ended; 255 closes one.
async fn exec(upgrade: OnUpgrade) -> Option<()> {
    let mut socket = web_socket(upgrade).await?;
    while let Some(Ok(Message::Binary(told))) = socket.next().await {
        let said = match *told {
            [0, b'd', b'i', b'e'] => return None,
            [0, ref text @ ..] => [&[1][..], text].concat(),
            [255, 0] => [
                &b"\x03"[..],
                json!({ "status": "Success" }).to_string().as_bytes(),
            ]
            .concat(),
            _ => panic!("{told:?}"),
        };
        socket.send(Message::binary(said)).await.ok()?;
    }
    None
}

/// Channel 0 is the port, 1 its errors; both name it first.
async fn port(upgrade: OnUpgrade) -> Option<()> {
    let mut socket = web_socket(upgrade).await?;
    for channel in [0, 1] {
        let named = Message::binary(vec![channel, 80, 0]);
        socket.send(named).await.ok()?;
    }
    while let Some(Ok(told)) = socket.next().await {
        socket.send(told).await.ok()?;
    }
    None
}

fn pods(client: Client) -> Api<Pod> {
    Api::default_namespaced(client)
}

async fn run(client: Client) -> kube::Result<AttachedProcess> {
    let params = AttachParams::default().stdin(true).stderr(false);
    pods(client).exec("worker", ["cat"], &params).await
}

/// The command says `text`, and ends.
async fn assert_says(mut process: AttachedProcess, text: &str) {
    let status = process.take_status().unwrap();
    let mut stdin = process.stdin().unwrap();
    stdin.write_all(text.as_bytes()).await.unwrap();
    stdin.shutdown().await.unwrap();
    let mut said = String::new();
    let mut stdout = process.stdout().unwrap();
    stdout.read_to_string(&mut said).await.unwrap();
    assert_eq!(said, text);
    assert_eq!(status.await.unwrap().status.as_deref(), Some("Success"));
}

async fn assert_forwards(client: Client) {
    let mut forwarded = pods(client).portforward("worker", &[80]).await.unwrap();
    let mut port = forwarded.take_stream(80).unwrap();
    port.write_all(b"ping").await.unwrap();
    let mut said = [0; 4];
    port.read_exact(&mut said).await.unwrap();
    assert_eq!(&said, b"ping");
}

#[tokio::test]
async fn a_command_is_run_and_a_port_forwarded_by_an_upgrade() {
    let server = Server::start(service_fn(pod)).await;
    let client = client(&server, &server);
    assert_says(run(client.clone()).await.unwrap(), "one").await;
    assert_forwards(client).await;
    assert_eq!(server.seen().len(), 2);
    assert_eq!(server.credentials(), bearer().as_slice());
}

#[tokio::test]
async fn an_upgrade_goes_over_tls_too() {
    let tls = Tls::new();
    let server = Server::start_tls(service_fn(pod), &tls, &["http/1.1"]).await;
    let config = config_that_trusts(&tls, &server);
    let client = snippet::client(&config, &server.origin(), key()).unwrap();
    assert_says(run(client.clone()).await.unwrap(), "one").await;
    assert_forwards(client).await;
    assert_eq!(server.credentials(), bearer().as_slice());
}

#[tokio::test]
async fn a_command_runs_on_after_the_time_for_its_head_and_is_no_longer_in_flight() {
    let server = Server::start(service_fn(pod)).await;
    let stack = timed(&server);
    let process = run(through(&stack, &server)).await.unwrap();
    assert_eq!(stack.rate_limit_handle().snapshot().in_flight, 0);
    tokio::time::sleep(LATER).await;
    assert_says(process, "one").await;
}

#[tokio::test]
async fn what_is_said_instead_of_an_upgrade_comes_through() {
    let server = Server::start(service_fn(pod)).await;
    server.fail([Fault::Status(403)]);
    let error = run(client(&server, &server)).await.map(drop).unwrap_err();
    assert!(matches!(error, kube::Error::Api(status) if status.code == 403));
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn a_command_that_breaks_off_is_the_callers() {
    let server = Server::start(service_fn(pod)).await;
    let mut process = run(through(&stack(&server), &server)).await.unwrap();
    let mut stdin = process.stdin().unwrap();
    stdin.write_all(b"die").await.unwrap();
    process.join().await.unwrap_err();
    assert_eq!(server.seen().len(), 1, "nothing is repeated");
}

/// A GET may be repeated, says HTTP; this one has run a command.
#[tokio::test]
async fn a_command_is_run_twice_by_whoever_does_not_send_upgrades_once() {
    let server = Server::start(service_fn(pod)).await;
    server.fail([Fault::CutAfter]);
    let process = run(through(&stack(&server), &server)).await.unwrap();
    assert_says(process, "one").await;
    assert_eq!(server.seen().len(), 2);

    server.fail([Fault::CutAfter]);
    let cut = run(client(&server, &server)).await.map(drop);
    assert!(matches!(cut, Err(kube::Error::Service(_))), "{cut:?}");
    assert_eq!(server.seen().len(), 3);
}
