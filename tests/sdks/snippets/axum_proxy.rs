use axum::{Router, body::Body, routing::any};
use http::{HeaderMap, HeaderName, Method, Request, StatusCode, Uri};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tower::{ServiceBuilder, ServiceExt};
use tower_ploton::{BaseUrl, PlotonBaseUrl, PlotonReplay, PlotonStack};

/// Forwards what is below `/v1` to `ploton`, with this server's API key.
pub fn proxy(ploton: BaseUrl, stack: PlotonStack) -> Router {
    let service = ServiceBuilder::new()
        .layer(PlotonBaseUrl::new().base_url(ploton))
        .layer(PlotonReplay::new())
        .layer(stack)
        .service(Client::builder(TokioExecutor::new()).build_http());
    let forward = async move |method: Method, uri: Uri, headers: HeaderMap, body: Body| {
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = uri.path_and_query().cloned().map_or(uri, Uri::from);
        *request.headers_mut() = passing(&headers);
        let answer = service.oneshot(request).await;
        let (head, body) = answer.map_err(|_| StatusCode::BAD_GATEWAY)?.into_parts();
        Ok::<_, StatusCode>((head.status, passing(&head.headers), Body::new(body)))
    };
    Router::new().route("/v1/{*path}", any(forward))
}

/// Not `Host`, not what is between two neighbours, and not the caller's own `Authorization`.
fn passing(headers: &HeaderMap) -> HeaderMap {
    let names = ["accept", "content-type", "idempotency-key", "retry-after"];
    let pass = |name| Some((HeaderName::from_static(name), headers.get(name)?.clone()));
    names.into_iter().filter_map(pass).collect()
}
