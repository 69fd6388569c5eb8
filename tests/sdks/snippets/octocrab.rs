use {
    http::Uri,
    http_body::Body,
    hyper_rustls::HttpsConnector,
    hyper_util::{
        client::legacy::{Client, connect::HttpConnector},
        rt::TokioExecutor,
    },
    octocrab::{
        AuthState, OctoBody, Octocrab, OctocrabBuilder, service::middleware::base_uri::BaseUriLayer,
    },
    tower_ploton::{
        ApiKey, Origin, Plan, PlotonAuth, PlotonIdempotency, PlotonRateLimit, PlotonRetry,
    },
};

/// octocrab's client, over the layers: the innermost first.
pub fn client(
    https: HttpsConnector<HttpConnector>,
    base: Uri,
    origin: &Origin,
    key: ApiKey,
) -> Octocrab {
    // Clones of an `OctoBody` share one body: the retry layer's own way would send it once, and then nothing.
    let retry = PlotonRetry::new().clone_body_with(|body: &OctoBody| {
        let empty = body.is_end_stream().then(OctoBody::empty);
        body.try_clone().or(empty)
    });
    let http = Client::builder(TokioExecutor::new()).build::<_, OctoBody>(https);
    let Ok(octocrab) = OctocrabBuilder::new_empty()
        .with_service(http)
        .with_layer(&PlotonAuth::new(key).origin(origin.clone()))
        .with_layer(&PlotonRateLimit::new(Plan::Production).origin(origin.clone()))
        .with_layer(&retry)
        // Not for a server that knows no `Idempotency-Key`, as GitHub: a POST would be done twice.
        .with_layer(&PlotonIdempotency::new())
        .with_layer(&BaseUriLayer::new(base)) // outermost: the others ask where a request goes
        .with_auth(AuthState::None)
        .build();
    octocrab
}
