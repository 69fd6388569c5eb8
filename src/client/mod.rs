//! A ready client: HTTPS, the whole stack, and the typed client on top.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{self, Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use pin_project_lite::pin_project;
use rustls::ClientConfig;
use tower::{BoxError, Service};

mod connect;
#[cfg(all(
    any(feature = "ring", feature = "aws-lc"),
    any(feature = "webpki-roots", feature = "native-roots")
))]
mod tls;

use self::connect::Timed;
#[cfg(all(
    any(feature = "ring", feature = "aws-lc"),
    any(feature = "webpki-roots", feature = "native-roots")
))]
pub use self::tls::{NoRoots, ploton_client};

use crate::{
    api::Ploton,
    origin::{Origin, PlainHttpRefused},
    stack::StackService,
};

/// The typed client over the whole stack over HTTPS, as `ploton_client` makes it.
pub type PlotonClient = Ploton<StackService<HttpsClient>>;

/// What an [`HttpsClient`] is made with.
#[derive(Clone, Debug)]
#[must_use = "settings do nothing until a client is made with them"]
pub struct Https {
    tls: ClientConfig,
    connect_timeout: Duration,
    idle_timeout: Duration,
    ping_interval: Duration,
    ping_timeout: Duration,
    /// `Some` where a loopback server may be reached by plain HTTP.
    plain_http_to: Option<Origin>,
}

impl Https {
    /// With a TLS configuration of your own: other root certificates, a client certificate, another provider. What it says
    /// of ALPN is replaced by HTTP/2 and HTTP/1.1.
    pub fn with_tls(tls: ClientConfig) -> Self {
        Self {
            tls,
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(50),
            ping_interval: Duration::from_secs(20),
            ping_timeout: Duration::from_secs(10),
            plain_http_to: None,
        }
    }

    /// How long a connection may take to be made: name, TCP and TLS together. Default: 10 s.
    pub const fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long an idle connection is kept. Default: 50 s, as many servers close it after 60 s.
    pub const fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = timeout;
        self
    }

    /// How long an HTTP/2 connection with a request on it may be silent before the server is asked whether it is still there.
    /// Default: 20 s.
    pub const fn ping_interval(mut self, interval: Duration) -> Self {
        self.ping_interval = interval;
        self
    }

    /// How long the server may take to say so before the connection is given up. Default: 10 s.
    pub const fn ping_timeout(mut self, timeout: Duration) -> Self {
        self.ping_timeout = timeout;
        self
    }

    /// Reaches this loopback origin by plain HTTP: a test server, or a proxy on this machine. Every other request by plain
    /// HTTP is refused. Default: none.
    pub fn plain_http_to(mut self, origin: Origin) -> Self {
        self.plain_http_to = Some(origin);
        self
    }

    /// The client.
    #[must_use]
    pub fn client(self) -> HttpsClient {
        let mut tls = self.tls;
        tls.alpn_protocols.clear(); // the connector sets them, and panics where they are set
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_keepalive(Some(TCP_KEEP_ALIVE));
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_all_versions()
            .wrap_connector(http);
        let connector = Timed::new(https, self.connect_timeout);
        let client = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(self.idle_timeout.min(LONGEST))
            .http2_keep_alive_interval(self.ping_interval.min(LONGEST))
            .http2_keep_alive_timeout(self.ping_timeout.min(LONGEST))
            .build(connector);
        HttpsClient {
            client,
            plain_http_to: self.plain_http_to,
        }
    }
}

/// An HTTPS client: hyper-util's, over rustls, with HTTP/2 where the server speaks it.
///
/// Clones share their connections. It is made by [`Https::client`].
///
/// # Errors
///
/// The service's error is a [`BoxError`]: hyper-util's, or [`PlainHttpRefused`] where a request was made by plain HTTP. That
/// one was not sent.
#[derive(Clone)]
pub struct HttpsClient {
    client: Client<Timed<HttpsConnector<HttpConnector>>, Full<Bytes>>,
    plain_http_to: Option<Origin>,
}

impl HttpsClient {
    /// Whatever is not HTTPS: the connector takes it for plain HTTP.
    fn refuses(&self, uri: &Uri) -> bool {
        let plain = self.plain_http_to.as_ref();
        uri.scheme_str() != Some("https") && !plain.is_some_and(|origin| origin.contains(uri))
    }
}

impl Service<Request<Full<Bytes>>> for HttpsClient {
    type Response = Response<Incoming>;
    type Error = BoxError;
    type Future = HttpsFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Service::<Request<Full<Bytes>>>::poll_ready(&mut self.client, cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<Full<Bytes>>) -> HttpsFuture {
        let state = if self.refuses(request.uri()) {
            State::Refused
        } else {
            State::Sent {
                response: self.client.call(request),
            }
        };
        HttpsFuture { state }
    }
}

impl fmt::Debug for HttpsClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpsClient").finish_non_exhaustive()
    }
}

pin_project! {
    /// The future of [`HttpsClient`]; dropping it cancels the request.
    pub struct HttpsFuture {
        #[pin]
        state: State,
    }
}

pin_project! {
    #[project = StateProj]
    enum State {
        /// The request is on its way.
        Sent { #[pin] response: legacy::ResponseFuture },
        /// Plain HTTP: nothing was sent.
        Refused,
    }
}

impl Future for HttpsFuture {
    type Output = Result<Response<Incoming>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(match self.project().state.project() {
            StateProj::Sent { response } => ready!(response.poll(cx)).map_err(Into::into),
            StateProj::Refused => Err(PlainHttpRefused::new().into()),
        })
    }
}

impl fmt::Debug for HttpsFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let refused = matches!(self.state, State::Refused);
        f.debug_struct("HttpsFuture")
            .field("refused", &refused)
            .finish_non_exhaustive()
    }
}

/// As good as for ever: hyper adds these to the time, and panics beyond what a clock can tell.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// Finds peers that went away without a word.
const TCP_KEEP_ALIVE: Duration = Duration::from_secs(60);
