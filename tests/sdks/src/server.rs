//! Any service on a loopback port.

use std::{
    convert::Infallible,
    fmt, future,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::Notify,
    task::{AbortHandle, JoinSet},
};
use tokio_rustls::TlsAcceptor;
use tower::{BoxError, Layer, Service, ServiceExt};
use tower_ploton::Origin;

use crate::{Fault, Faults, Seen, Tls};

/// Any service behind [`Faults`] on a loopback port, for HTTP/1.1 and HTTP/2, in the clear or over TLS. An error of the
/// service cuts the connection it came by. Dropping the server closes the port and all connections but those that it
/// upgraded.
pub struct Server {
    url: String,
    faults: Faults,
    connections: Arc<AtomicUsize>,
    cuts: Arc<Notify>,
    accepting: AbortHandle,
}

impl Server {
    /// Serves in the clear.
    pub async fn start<S, R>(service: S) -> Self
    where
        S: Service<Request<Incoming>, Response = Response<R>> + Clone + Send + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send + 'static,
        R: Body<Data = Bytes> + Send + 'static,
        R::Error: Into<BoxError>,
    {
        Self::with_acceptor(service, None).await
    }

    /// Serves over TLS to those who speak one of `protocols` (`h2`, `http/1.1`), under the name `localhost`.
    pub async fn start_tls<S, R>(service: S, tls: &Tls, protocols: &[&str]) -> Self
    where
        S: Service<Request<Incoming>, Response = Response<R>> + Clone + Send + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send + 'static,
        R: Body<Data = Bytes> + Send + 'static,
        R::Error: Into<BoxError>,
    {
        let acceptor = TlsAcceptor::from(Arc::new(tls.server(protocols)));
        Self::with_acceptor(service, Some(acceptor)).await
    }

    async fn with_acceptor<S, R>(service: S, tls: Option<TlsAcceptor>) -> Self
    where
        S: Service<Request<Incoming>, Response = Response<R>> + Clone + Send + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send + 'static,
        R: Body<Data = Bytes> + Send + 'static,
        R::Error: Into<BoxError>,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let url = match tls {
            None => format!("http://{address}"),
            Some(_) => format!("https://localhost:{}", address.port()),
        };
        let faults = Faults::default();
        let service = faults.layer(service);
        let connections = Arc::new(AtomicUsize::new(0));
        let count = connections.clone();
        let cuts = Arc::new(Notify::new());
        let cut = cuts.clone();
        let accepting = tokio::spawn(async move {
            let mut open = JoinSet::new(); // dropped with this task, and every connection with it
            loop {
                while open.try_join_next().is_some() {}
                let Ok((stream, _)) = listener.accept().await else {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    continue;
                };
                count.fetch_add(1, Ordering::SeqCst);
                let (service, tls) = (service.clone(), tls.clone());
                let cut = cut.clone().notified_owned();
                open.spawn(async move {
                    let _ = stream.set_nodelay(true);
                    let serving = async {
                        match tls {
                            None => connection(stream, service).await,
                            Some(tls) => {
                                if let Ok(stream) = tls.accept(stream).await {
                                    connection(stream, service).await;
                                }
                            }
                        }
                    };
                    tokio::select! {
                        () = serving => {}
                        () = cut => {}
                    }
                });
            }
        });
        Self {
            url,
            faults,
            connections,
            cuts,
            accepting: accepting.abort_handle(),
        }
    }

    /// Its URL, such as `http://127.0.0.1:40001`, without a path.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its origin.
    #[must_use]
    pub fn origin(&self) -> Origin {
        crate::origin(&self.url)
    }

    /// Its port of 127.0.0.1.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        let port = self.url.rsplit(':').next().unwrap().parse().unwrap();
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    /// Lets the next attempts suffer `faults`, one after the other.
    pub fn fail(&self, faults: impl IntoIterator<Item = Fault>) {
        self.faults.then(faults);
    }

    /// Cuts all connections that are open, whatever is on its way there, and goes on accepting.
    pub fn cut_connections(&self) {
        self.cuts.notify_waiters();
    }

    /// Every attempt so far, in the order of arrival.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        self.faults.seen()
    }

    /// The connections accepted so far.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// The different values of `Authorization` that came here.
    #[must_use]
    pub fn credentials(&self) -> Vec<String> {
        let seen = self.seen();
        let mut all: Vec<_> = seen.into_iter().filter_map(|at| at.authorization).collect();
        all.sort();
        all.dedup();
        all
    }

    /// Asserts that what came here are so many attempts of one request: with one idempotency key and one credential, and
    /// none earlier than a `Retry-After` said.
    pub fn assert_one_request(&self, attempts: usize) {
        let seen = self.seen();
        assert_eq!(seen.len(), attempts, "{seen:?}");
        let first = &seen[0];
        assert!(first.idempotency_key.is_some());
        for (at, next) in seen.iter().zip(&seen[1..]) {
            assert_eq!(next.idempotency_key, first.idempotency_key);
            assert_eq!(next.authorization, first.authorization);
            if let Fault::RateLimited { retry_after } = at.fault {
                let waited = next.at.duration_since(at.at);
                assert!(
                    waited >= Duration::from_secs(retry_after.into()),
                    "{waited:?}"
                );
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

/// Serves one connection until the client closes it or an error cuts it.
async fn connection<I, S, R>(stream: I, service: S)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<R>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    R: Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    let cut = Arc::new(Notify::new());
    let cuts = cut.clone();
    let service = service_fn(move |request| {
        let (service, cut) = (service.clone(), cuts.clone());
        async move {
            if let Ok(response) = service.oneshot(request).await {
                return Ok::<_, Infallible>(response);
            }
            cut.notify_one();
            future::pending().await
        }
    });
    let builder = Builder::new(TokioExecutor::new());
    let mut serving = pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), service));
    tokio::select! {
        biased;
        _ = serving.as_mut() => {}
        () = cut.notified() => {}
    }
}
