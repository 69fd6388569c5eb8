//! Clients of one server, and what their requests take.

use std::{
    fmt::Debug,
    future::{Ready, ready},
    io, iter,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE},
};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{
        Client,
        connect::{HttpConnector, dns::Name},
    },
    rt::TokioExecutor,
};
use tokio::{runtime::Runtime, task::JoinSet, time::Instant};
use tower::{Service, ServiceExt};

use super::{
    loopback::{Server, URL},
    machine,
    support::allocations,
};

pub(crate) const KEY: &str = "pk_test_4f9d0c2b7a6e1583";
pub(crate) const PROMPT: &str = r#"{"prompt":"Summarise the invoices of June, please, by Monday"}"#;

/// What the clients that are tower services stand on.
pub(crate) type Hyper = Client<HttpConnector<Resolver>, Full<Bytes>>;

pub(crate) fn hyper(server: &Server) -> Hyper {
    let mut connector = HttpConnector::new_with_resolver(Resolver(server.addr));
    connector.set_nodelay(true);
    Client::builder(TokioExecutor::new()).build(connector)
}

/// Finds the one server behind every name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Resolver(SocketAddr);

impl Service<Name> for Resolver {
    type Response = iter::Once<SocketAddr>;
    type Error = io::Error;
    type Future = Ready<io::Result<iter::Once<SocketAddr>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Name) -> Self::Future {
        ready(Ok(iter::once(self.0)))
    }
}

pub(crate) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

/// Sends a POST and reads its answer to the end.
pub(crate) trait Post: Clone + Send + 'static {
    fn post(&mut self) -> impl Future<Output = StatusCode> + Send;
}

/// A tower service as a client.
#[derive(Clone)]
pub(crate) struct Tower<S> {
    service: S,
    uri: Uri,
    /// What else has to be on the wire.
    by_hand: HeaderMap,
}

impl<S> Tower<S> {
    pub(crate) fn new(service: S) -> Self {
        Self {
            service,
            uri: Uri::from_static(URL),
            by_hand: HeaderMap::new(),
        }
    }

    /// With the headers that the others add, without any work: the same ones each time.
    pub(crate) fn by_hand(mut self) -> Self {
        let bearer = format!("Bearer {KEY}").try_into().expect("a key");
        self.by_hand.insert(AUTHORIZATION, bearer);
        let key = "req_0f1e2d3c4b5a69788796a5b4c3d2e1f0";
        let name = HeaderName::from_static("idempotency-key");
        self.by_hand.insert(name, HeaderValue::from_static(key));
        self
    }
}

impl<S, R> Post for Tower<S>
where
    S: Service<Request<Full<Bytes>>, Response = Response<R>> + Clone + Send + 'static,
    S::Error: Debug + Send,
    S::Future: Send,
    R: Body + Send,
    R::Data: Send,
    R::Error: Debug,
{
    async fn post(&mut self) -> StatusCode {
        let mut request = Request::new(Full::new(Bytes::from_static(PROMPT.as_bytes())));
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = self.uri.clone();
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        for (name, value) in &self.by_hand {
            headers.insert(name, value.clone());
        }
        let service = self.service.ready().await.expect("a service");
        let response = service.call(request).await.expect("an answer");
        let (parts, body) = response.into_parts();
        let read = body.collect().await.expect("a body").to_bytes();
        assert!(!read.is_empty());
        parts.status
    }
}

/// How many of `count` requests from `tasks` at once ended in a 201.
pub(crate) async fn send(client: &impl Post, tasks: usize, count: usize) -> usize {
    let next = Arc::new(AtomicUsize::new(0));
    let mut running = JoinSet::new();
    for _ in 0..tasks {
        let (mut client, next) = (client.clone(), next.clone());
        running.spawn(async move {
            let mut created = 0;
            while next.fetch_add(1, Ordering::Relaxed) < count {
                created += usize::from(client.post().await == StatusCode::CREATED);
            }
            created
        });
    }
    running.join_all().await.into_iter().sum()
}

/// Of one request: seconds, seconds of this thread's own work, and allocations.
pub(crate) fn measure(
    runtime: &Runtime,
    client: &impl Post,
    tasks: usize,
    count: usize,
) -> [f64; 3] {
    let mut created = 0;
    let (began, worked) = (Instant::now(), machine::cpu_time());
    let allocated = allocations::of(|| created = runtime.block_on(send(client, tasks, count)));
    let work = machine::cpu_time()
        .zip(worked)
        .map(|(now, then)| now - then);
    let took = Instant::now() - began;
    assert_eq!(created, count);
    let work = work.map_or(f64::NAN, |work| work.as_secs_f64());
    [took.as_secs_f64(), work, allocated.count as f64].map(|all| all / count as f64)
}
