use {
    http::{Request, Response},
    tonic::{body::Body, client::Grpc, transport::Endpoint},
    tower::{BoxError, Service, ServiceBuilder},
    tower_ploton::{ApiKey, Origin, Plan, PlotonReplay, PlotonStack},
};

/// A channel, through the stack.
pub fn client(
    endpoint: Endpoint,
    origin: Origin,
    key: ApiKey,
) -> Grpc<impl Service<Request<Body>, Response = Response<Body>, Error = BoxError> + Clone> {
    let service = ServiceBuilder::new()
        .layer(PlotonReplay::new()) // tonic's bodies can't be cloned
        // For a server that knows no `Idempotency-Key`: the layers of the stack without `PlotonIdempotency`.
        .layer(PlotonStack::new(key, Plan::Production).origin(origin))
        .layer(PlotonReplay::map(Body::new))
        .service(endpoint.connect_lazy());
    // As a generated client's `with_origin`: without it the layers don't see where a call goes.
    Grpc::with_origin(service, endpoint.uri().clone())
}
