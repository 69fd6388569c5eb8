//! Servers on loopback ports: one that writes down all that reaches it, and one that speaks TLS.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::{Request, Response, request::Parts};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    task::JoinSet,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ClientConfig, RootCertStore, ServerConfig,
        crypto::{CryptoProvider, ring},
        pki_types::PrivateKeyDer,
    },
};
use tower::ServiceExt;
use tower_ploton::mock::FakePloton;

type Answer = dyn Fn(&Parts) -> Response<Full<Bytes>> + Send + Sync;

/// A server that is not Ploton's, for HTTP/1.1 and HTTP/2.
pub(crate) struct Recorder {
    pub(crate) url: String,
    received: Arc<Mutex<Vec<u8>>>,
    _serving: JoinSet<()>,
}

impl Recorder {
    pub(crate) async fn start(
        answer: impl Fn(&Parts) -> Response<Full<Bytes>> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let received = Arc::new(Mutex::new(Vec::new()));
        let mut serving = JoinSet::new();
        let answer: Arc<Answer> = Arc::new(answer);
        serving.spawn(accept(listener, received.clone(), answer));
        Self {
            url,
            received,
            _serving: serving,
        }
    }

    /// One that has nothing to say.
    pub(crate) async fn silent() -> Self {
        Self::start(|_| Response::default()).await
    }

    /// All that reached it: of HTTP/2 in the clear, as it was before it was compressed.
    pub(crate) fn received(&self) -> Vec<u8> {
        self.received.lock().unwrap().clone()
    }
}

async fn accept(listener: TcpListener, received: Arc<Mutex<Vec<u8>>>, answer: Arc<Answer>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (received, answer) = (received.clone(), answer.clone());
        let service = service_fn(move |request: Request<Incoming>| {
            let (received, answer) = (received.clone(), answer.clone());
            async move {
                let (head, body) = request.into_parts();
                let mut bytes = format!("{} {}\n", head.method, head.uri).into_bytes();
                for (name, value) in &head.headers {
                    bytes.extend_from_slice(name.as_str().as_bytes());
                    bytes.extend_from_slice(b": ");
                    bytes.extend_from_slice(value.as_bytes());
                    bytes.push(b'\n');
                }
                let body = body.collect().await.map(|body| body.to_bytes());
                bytes.extend_from_slice(&body.unwrap_or_default());
                received.lock().unwrap().append(&mut bytes);
                Ok::<_, Infallible>(answer(&head))
            }
        });
        connections.spawn(serve(stream, service));
    }
}

async fn serve<IO, S, B>(io: IO, service: S)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: hyper::service::Service<Request<Incoming>, Response = Response<B>> + Send,
    S::Future: Send + 'static,
    S::Error: Into<tower::BoxError>,
    B: http_body::Body<Error: Into<tower::BoxError>> + Send + 'static,
    B::Data: Send,
{
    let builder = Builder::new(TokioExecutor::new());
    let _ = builder.serve_connection(TokioIo::new(io), service).await;
}

/// The fake Ploton behind TLS, at this URL.
pub(crate) async fn with_tls(fake: FakePloton, http2: bool) -> (String, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!(
        "https://localhost:{}",
        listener.local_addr().unwrap().port()
    );
    let key = PrivateKeyDer::try_from(&include_bytes!("localhost.key.der")[..]).unwrap();
    let certificate = include_bytes!("localhost.cert.der").to_vec().into();
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let protocol: &[u8] = if http2 { b"h2" } else { b"http/1.1" };
    config.alpn_protocols = vec![protocol.to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, fake) = (acceptor.clone(), fake.clone());
            connections.spawn(async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    let service =
                        service_fn(move |request: Request<Incoming>| fake.clone().oneshot(request));
                    serve(stream, service).await;
                }
            });
        }
    });
    (url, serving)
}

/// A client that believes that server's certificate, and speaks plain HTTP too.
pub(crate) fn https_client() -> Client<HttpsConnector<HttpConnector>, Full<Bytes>> {
    let mut roots = RootCertStore::empty();
    let certificate = include_bytes!("localhost.cert.der").to_vec().into();
    roots.add(certificate).unwrap();
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let https = HttpsConnectorBuilder::new()
        .with_tls_config(config)
        .https_or_http()
        .enable_all_versions()
        .build();
    Client::builder(TokioExecutor::new()).build(https)
}

pub(crate) fn client(http2: bool) -> Client<HttpConnector, Full<Bytes>> {
    Client::builder(TokioExecutor::new())
        .http2_only(http2)
        .build_http()
}

/// By name: with all of this crate's features rustls has two, and chooses neither.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}
