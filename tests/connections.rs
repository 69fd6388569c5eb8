//! How many connections retries open: none. HTTP/1.1 on real sockets.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by a panic"
)]

use std::{
    collections::HashSet,
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tower::{Layer, ServiceExt};
use tower_ploton::{PlotonRetry, retry::RetryService};

/// An answer that is discarded.
#[derive(Clone, Copy, Debug)]
struct Refusal {
    head: &'static str,
    /// The length of its body.
    bytes: usize,
    /// How long after the head the body comes; zero: in the same write.
    late: Duration,
}

/// A server that refuses every second path once, and counts.
struct Server {
    refusal: Refusal,
    refused: Mutex<HashSet<String>>,
    accepted: AtomicUsize,
}

impl Server {
    async fn start(refusal: Refusal) -> (Arc<Self>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = Arc::new(Self {
            refusal,
            refused: Mutex::default(),
            accepted: AtomicUsize::new(0),
        });
        let accepting = server.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                accepting.accepted.fetch_add(1, Ordering::Relaxed);
                let server = accepting.clone();
                tokio::spawn(async move { server.serve(socket).await });
            }
        });
        (server, url)
    }

    async fn serve(&self, socket: TcpStream) -> io::Result<()> {
        socket.set_nodelay(true)?;
        let mut socket = BufReader::new(socket);
        loop {
            let mut line = String::new();
            socket.read_line(&mut line).await?;
            let Some(path) = line.split(' ').nth(1).map(str::to_owned) else {
                return Ok(());
            };
            while line != "\r\n" {
                line.clear();
                socket.read_line(&mut line).await?;
            }
            if self.refuses(path) {
                self.refuse(&mut socket).await?;
            } else {
                let ok = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
                socket.write_all(ok).await?;
            }
        }
    }

    fn refuses(&self, path: String) -> bool {
        path.ends_with(['1', '3', '5', '7', '9']) && self.refused.lock().unwrap().insert(path)
    }

    async fn refuse(&self, socket: &mut BufReader<TcpStream>) -> io::Result<()> {
        let Refusal { head, bytes, late } = self.refusal;
        let head = format!("HTTP/1.1 {head}\r\ncontent-length: {bytes}\r\n\r\n");
        let mut answer = head.into_bytes();
        if !late.is_zero() {
            socket.write_all(&answer).await?;
            tokio::time::sleep(late).await;
            answer.clear();
        }
        answer.resize(answer.len() + bytes, b'x');
        socket.write_all(&answer).await
    }
}

type Service = RetryService<Client<HttpConnector, Empty<Bytes>>>;

fn retrying(base_delay: Duration) -> Service {
    let retry = PlotonRetry::new().base_delay(base_delay);
    retry.layer(Client::builder(TokioExecutor::new()).build_http())
}

async fn get(service: Service, url: String) {
    let request = Request::get(url).body(Empty::new()).unwrap();
    let response = service.oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    response.into_body().collect().await.unwrap();
}

const AT_ONCE: usize = 16;
const EACH: usize = 25;

/// The connections that 400 requests open, 16 at once, 192 of which are refused first.
async fn connections(refusal: Refusal, base_delay: Duration) -> usize {
    let (server, url) = Server::start(refusal).await;
    let service = retrying(base_delay);
    let mut callers = JoinSet::new();
    for caller in 0..AT_ONCE {
        let (service, url) = (service.clone(), url.clone());
        callers.spawn(async move {
            for n in 0..EACH {
                get(service.clone(), format!("{url}/{caller}/{n}")).await;
                // The answer's connection goes back to the pool in a task of its own.
                tokio::task::yield_now().await;
            }
        });
    }
    callers.join_all().await;
    assert_eq!(server.refused.lock().unwrap().len(), AT_ONCE * (EACH / 2));
    server.accepted.load(Ordering::Relaxed)
}

/// Fails where no more than `most` connections are not enough. A machine that stalls for as long as a discarded answer is
/// waited for costs up to 16 more, so there are ten tries.
async fn opens_at_most(most: usize, refusal: Refusal, base_delay: Duration) {
    let mut opened = Vec::new();
    while opened.len() < 10 {
        opened.push(connections(refusal, base_delay).await);
        if opened.last() <= Some(&most) {
            return;
        }
    }
    panic!("{opened:?} connections, {refusal:?}, {base_delay:?}");
}

/// Undrained, each of the late or long ones costs a connection: about 200. Without the yield there are 32.
async fn retries_open_at_most(most: usize) {
    let late = Duration::from_millis(2);
    for (bytes, late) in [
        (2 * 1024, Duration::ZERO),
        (2 * 1024, late),
        (64 * 1024, Duration::ZERO),
        (64 * 1024, late),
    ] {
        let refusal = Refusal {
            head: "503 Service Unavailable",
            bytes,
            late,
        };
        for base_delay in [0, 5] {
            opens_at_most(most, refusal, Duration::from_millis(base_delay)).await;
        }
    }
}

#[tokio::test]
async fn no_retry_opens_a_connection() {
    retries_open_at_most(AT_ONCE).await;
}

/// Another thread may give a connection back an instant too late, a few times.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hardly_a_retry_opens_a_connection_where_threads_share_them() {
    retries_open_at_most(AT_ONCE + AT_ONCE / 2).await;
}

#[tokio::test]
async fn no_retry_after_a_hint_opens_a_connection() {
    let refusal = Refusal {
        head: "429 Too Many Requests\r\nretry-after-ms: 1",
        bytes: 2 * 1024,
        late: Duration::from_millis(2),
    };
    opens_at_most(AT_ONCE, refusal, Duration::ZERO).await;
}

#[tokio::test]
async fn a_connection_serves_others_while_its_retry_waits() {
    let refusal = Refusal {
        head: "503 Service Unavailable\r\nretry-after: 1",
        bytes: 64 * 1024,
        late: Duration::ZERO,
    };
    let (server, url) = Server::start(refusal).await;
    let service = retrying(Duration::ZERO);
    let waiting = tokio::spawn(get(service.clone(), format!("{url}/1")));
    while server.refused.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    get(service, format!("{url}/2")).await;
    assert!(!waiting.is_finished());
    waiting.await.unwrap();
    assert_eq!(server.accepted.load(Ordering::Relaxed), 1);
}
