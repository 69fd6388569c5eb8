use {
    http::{Request, header::UPGRADE},
    hyper_util::{client::legacy, rt::TokioExecutor},
    kube::{
        Client, Config,
        client::{Body, ClientBuilder, ConfigExt},
    },
    std::num::NonZeroU32,
    tower::util::MapRequestLayer,
    tower_ploton::{
        ApiKey, MaxAttempts, Origin, Plan, PlotonAuth, PlotonIdempotency, PlotonRateLimit,
        PlotonRetry,
    },
};

/// kube's client, over the layers: the innermost first.
pub fn client(config: &Config, origin: &Origin, key: ApiKey) -> kube::Result<Client> {
    let https = config.rustls_https_connector()?; // of kube's feature `rustls-tls`
    let http = legacy::Client::builder(TokioExecutor::new()).build::<_, Body>(https);
    Ok(ClientBuilder::new(http, &config.default_namespace)
        .with_layer(&PlotonAuth::new(key).origin(origin.clone()))
        .with_layer(&PlotonRateLimit::new(Plan::Production).origin(origin.clone()))
        .with_layer(&PlotonRetry::new().clone_body_with(Body::try_clone))
        // Not for a server that knows no `Idempotency-Key`, as Kubernetes: a POST would be done twice.
        .with_layer(&PlotonIdempotency::new())
        .with_layer(&MapRequestLayer::new(upgrade_once))
        .with_layer(&config.base_uri_layer()) // outermost: the others ask where a request goes
        .build())
}

/// `exec` is a GET, and runs its command each time that it is sent.
fn upgrade_once(mut request: Request<Body>) -> Request<Body> {
    if request.headers().contains_key(UPGRADE) {
        let once = MaxAttempts(NonZeroU32::MIN);
        request.extensions_mut().insert(once);
    }
    request
}
