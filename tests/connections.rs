//! How many connections retries open: none. HTTP/1.1 on real sockets; where one thread does all, the clock stands still while
//! anything is under way, so that a machine that stalls moves nothing.
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
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Body, Frame, Incoming};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::Instant,
};
use tower::{Layer, ServiceExt, util::MapResponse};
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

/// The body of an answer that counts where it is dropped unread after as long as a discarded one is waited for.
struct Watched {
    body: Incoming,
    came: Instant,
    ended: bool,
    given_up: Arc<AtomicUsize>,
}

const WAITED_FOR: Duration = Duration::from_millis(50);

impl Body for Watched {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        self.ended = frame.is_none();
        Poll::Ready(frame)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if !self.ended && Instant::now() - self.came >= WAITED_FOR {
            self.given_up.fetch_add(1, Ordering::Relaxed);
        }
    }
}

type Network<F> = MapResponse<Client<HttpConnector, Empty<Bytes>>, F>;

/// A client that sends again, and how many answers it gave up because the rest did not come in time.
fn retrying(
    base_delay: Duration,
) -> (
    RetryService<Network<impl Fn(Response<Incoming>) -> Response<Watched> + Clone + use<>>>,
    Arc<AtomicUsize>,
) {
    let given_up = Arc::<AtomicUsize>::default();
    let count = given_up.clone();
    let watch = move |answer: Response<Incoming>| {
        answer.map(|body| Watched {
            body,
            came: Instant::now(),
            ended: false,
            given_up: count.clone(),
        })
    };
    let client = Client::builder(TokioExecutor::new()).build_http();
    let retry = PlotonRetry::new().base_delay(base_delay);
    (retry.layer(MapResponse::new(client, watch)), given_up)
}

async fn get<F>(service: RetryService<Network<F>>, url: String)
where
    F: Fn(Response<Incoming>) -> Response<Watched> + Clone,
{
    let request = Request::get(url).body(Empty::new()).unwrap();
    let response = service.oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    response.into_body().collect().await.unwrap();
}

const AT_ONCE: usize = 16;
const EACH: usize = 25;

/// Fails where 400 requests, 16 at once, 192 of which are refused first, open more than `most` connections: and one for each
/// answer whose rest did not come in time, as on a machine that stalls.
async fn opens_at_most(most: usize, refusal: Refusal, base_delay: Duration) {
    let (server, url) = Server::start(refusal).await;
    let (service, given_up) = retrying(base_delay);
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
    let (opened, given_up) = (&server.accepted, given_up.load(Ordering::Relaxed));
    let opened = opened.load(Ordering::Relaxed);
    assert!(
        opened <= most + given_up,
        "{opened} connections, {given_up} answers given up, {refusal:?}, {base_delay:?}"
    );
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

#[tokio::test(start_paused = true)]
async fn no_retry_opens_a_connection() {
    retries_open_at_most(AT_ONCE).await;
}

/// Another thread may give a connection back an instant too late, a few times.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hardly_a_retry_opens_a_connection_where_threads_share_them() {
    retries_open_at_most(AT_ONCE + AT_ONCE / 2).await;
}

#[tokio::test(start_paused = true)]
async fn no_retry_after_a_hint_opens_a_connection() {
    let refusal = Refusal {
        head: "429 Too Many Requests\r\nretry-after-ms: 1",
        bytes: 2 * 1024,
        late: Duration::from_millis(2),
    };
    opens_at_most(AT_ONCE, refusal, Duration::ZERO).await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_serves_others_while_its_retry_waits() {
    let refusal = Refusal {
        head: "503 Service Unavailable\r\nretry-after: 1",
        bytes: 64 * 1024,
        late: Duration::ZERO,
    };
    let (server, url) = Server::start(refusal).await;
    let (service, _) = retrying(Duration::ZERO);
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
