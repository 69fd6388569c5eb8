//! A fake Ploton behind TLS, with a certificate made here.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use http::{Request, Version};
use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
};
use rcgen::{CertificateParams, CertifiedIssuer, KeyPair};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::JoinSet,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ClientConfig, RootCertStore, ServerConfig, crypto::ring, pki_types::PrivateKeyDer},
};
use tower::Service;
use tower_ploton::{BaseUrl, mock::FakePloton};

/// A certificate authority, and a server's certificate for `localhost` by it.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new() -> Self {
        Self::named("ours")
    }

    /// Two of the same name would be taken for one that signs badly.
    pub(crate) fn named(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap());
        Self(issuer.unwrap())
    }

    /// What a server needs that speaks `protocols`, the first by preference.
    pub(crate) fn server(&self, name: &str, protocols: &[&str]) -> ServerConfig {
        self.serves(
            CertificateParams::new([name.to_owned()]).unwrap(),
            protocols,
        )
    }

    /// The same, with a certificate whose time is over.
    pub(crate) fn expired(&self, name: &str) -> ServerConfig {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        self.serves(params, &["h2"])
    }

    fn serves(&self, params: CertificateParams, protocols: &[&str]) -> ServerConfig {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        let chain = vec![certificate.der().clone()];
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, PrivateKeyDer::Pkcs8(key.serialize_der().into()))
            .unwrap();
        config.alpn_protocols = protocols
            .iter()
            .map(|name| name.as_bytes().to_vec())
            .collect();
        config
    }

    /// What a client needs that trusts this authority alone.
    pub(crate) fn client(&self) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth()
    }
}

/// A fake Ploton behind TLS.
pub(crate) struct Server {
    port: u16,
    connections: Arc<AtomicUsize>,
    versions: Arc<Mutex<Vec<Version>>>,
    /// Lets each connection fall silent once a request came on it.
    pub(crate) silent: Arc<Notify>,
    _accepting: JoinSet<()>,
}

impl Server {
    pub(crate) async fn start(fake: FakePloton, tls: ServerConfig) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections = Arc::new(AtomicUsize::new(0));
        let versions = Arc::new(Mutex::new(Vec::new()));
        let silent = Arc::new(Notify::new());
        let mut accepting = JoinSet::new();
        let serving = Serving {
            fake,
            acceptor: TlsAcceptor::from(Arc::new(tls)),
            versions: versions.clone(),
            silent: silent.clone(),
        };
        let accepted = connections.clone();
        accepting.spawn(async move {
            let mut open = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                accepted.fetch_add(1, Ordering::SeqCst);
                open.spawn(serving.clone().connection(stream));
            }
        });
        Self {
            port,
            connections,
            versions,
            silent,
            _accepting: accepting,
        }
    }

    pub(crate) fn base_url(&self) -> BaseUrl {
        BaseUrl::parse(&format!("https://localhost:{}/v1", self.port)).unwrap()
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    pub(crate) fn versions(&self) -> Vec<Version> {
        self.versions.lock().unwrap().clone()
    }
}

#[derive(Clone)]
struct Serving {
    fake: FakePloton,
    acceptor: TlsAcceptor,
    versions: Arc<Mutex<Vec<Version>>>,
    silent: Arc<Notify>,
}

impl Serving {
    async fn connection(self, stream: TcpStream) {
        let Ok(stream) = self.acceptor.accept(stream).await else {
            return;
        };
        let silent = self.silent.clone();
        let service = service_fn(move |request: Request<hyper::body::Incoming>| {
            self.versions.lock().unwrap().push(request.version());
            self.fake.clone().call(request)
        });
        let builder = Builder::new(TokioExecutor::new());
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);
        tokio::select! {
            _ = connection.as_mut() => {}
            // It is kept open, and nothing is read or written any more.
            () = silent.notified() => std::future::pending().await,
        }
    }
}
