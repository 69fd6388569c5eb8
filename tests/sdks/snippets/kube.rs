use {
    hyper_util::{client::legacy, rt::TokioExecutor},
    kube::{
        Client, Config,
        client::{Body, ClientBuilder, ConfigExt},
    },
    tower_ploton::{
        ApiKey, Origin, Plan, PlotonAuth, PlotonIdempotency, PlotonRateLimit, PlotonRetry,
    },
};

/// kube's client, over the layers: the innermost first.
pub fn client(config: &Config, origin: &Origin, key: ApiKey) -> Client {
    // With kube's feature `rustls-tls`: `build(config.rustls_https_connector()?)`.
    let http = legacy::Client::builder(TokioExecutor::new()).build_http::<Body>();
    ClientBuilder::new(http, &config.default_namespace)
        .with_layer(&PlotonAuth::new(key).origin(origin.clone()))
        .with_layer(&PlotonRateLimit::new(Plan::Production).origin(origin.clone()))
        .with_layer(&PlotonRetry::new().clone_body_with(Body::try_clone))
        // Not for a server that knows no `Idempotency-Key`, as Kubernetes: a POST would be done twice.
        .with_layer(&PlotonIdempotency::new())
        .with_layer(&config.base_uri_layer()) // outermost: the others ask where a request goes
        .build()
}
