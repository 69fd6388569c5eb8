//! A server on a loopback port, in a thread of its own: as little as HTTP allows, and counted.

use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    task::{Context, Poll, ready},
    thread,
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpListener,
    time::{Sleep, sleep},
};

use super::machine::{self, Core};

/// An answer that a client should send again after.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refusal {
    pub(crate) bytes: usize,
    /// How long after the head the body comes; zero: with it.
    pub(crate) late: Duration,
}

/// A name without a port, as in the URLs that clients have: it stands for whatever server they are made for.
pub(crate) const ORIGIN: &str = "http://localhost";
pub(crate) const URL: &str = "http://localhost/v1/tasks";

/// What a server is asked to do, and how many connections it got.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    connections: Arc<AtomicUsize>,
}

impl Server {
    /// Answers each POST with a 201, and where `refusal` is given, each third with that.
    pub(crate) fn start(refusal: Option<Refusal>) -> Self {
        let connections = Arc::new(AtomicUsize::new(0));
        let (tell, told) = mpsc::channel();
        let accepted = connections.clone();
        thread::spawn(move || {
            machine::pin(Core::Server);
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
                tell.send(listener.local_addr()).expect("somebody listens");
                accept(listener, refusal, accepted).await;
            });
        });
        let addr = told.recv().expect("a server").expect("an address");
        Self { addr, connections }
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

async fn accept(listener: TcpListener, refusal: Option<Refusal>, accepted: Arc<AtomicUsize>) {
    let answers = Arc::new(AtomicUsize::new(0));
    while let Ok((socket, _)) = listener.accept().await {
        accepted.fetch_add(1, Ordering::Relaxed);
        socket.set_nodelay(true).expect("a socket");
        let answers = answers.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(request, refusal, answers.clone()));
            let connection = http1::Builder::new().serve_connection(TokioIo::new(socket), service);
            // A client that goes away is no error here.
            let _ = connection.await;
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    refusal: Option<Refusal>,
    answers: Arc<AtomicUsize>,
) -> Result<Response<Late>, Infallible> {
    // Read, so that the connection can be used again.
    let _ = request.into_body().collect().await;
    let number = answers.fetch_add(1, Ordering::Relaxed);
    let (status, body) = match refusal {
        Some(refusal) if number % 3 == 2 => (StatusCode::TOO_MANY_REQUESTS, Late::new(refusal)),
        _ => (StatusCode::CREATED, Late::at_once(TASK)),
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        http::HeaderValue::from_static("application/json"),
    );
    if status == StatusCode::TOO_MANY_REQUESTS {
        // Who reads no hint backs off in its own way.
        headers.insert("retry-after-ms", http::HeaderValue::from_static("1"));
    }
    Ok(response)
}

/// 100 bytes.
const TASK: &[u8] =
    br#"{"id":"task_8xK2mP","status":"running","tool":"crm","created_at":"2025-06-15T14:22:00Z","cost":0.01}"#;

/// A body that may come after its head.
struct Late {
    bytes: Option<Bytes>,
    after: Option<Pin<Box<Sleep>>>,
}

impl Late {
    fn new(refusal: Refusal) -> Self {
        let after = (!refusal.late.is_zero()).then(|| Box::pin(sleep(refusal.late)));
        Self {
            bytes: Some(vec![b'x'; refusal.bytes].into()),
            after,
        }
    }

    const fn at_once(bytes: &'static [u8]) -> Self {
        Self {
            bytes: Some(Bytes::from_static(bytes)),
            after: None,
        }
    }
}

impl Body for Late {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(after) = &mut self.after {
            ready!(after.as_mut().poll(cx));
            self.after = None;
        }
        Poll::Ready(self.bytes.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.as_ref().map_or(0, Bytes::len) as u64)
    }
}
