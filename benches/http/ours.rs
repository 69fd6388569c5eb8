//! This crate's clients.

use std::num::NonZeroU32;

use tower::{Layer, ServiceBuilder};
use tower_ploton::{ApiKey, Origin, Plan, PlotonAuth, PlotonIdempotency, PlotonRetry, PlotonStack};

use super::{
    drive::{KEY, Post, Tower, hyper},
    loopback::{ORIGIN, Server},
};

/// All layers, with a limit that never has to wait.
pub(crate) fn stack(server: &Server) -> impl Post + use<> {
    let stack = PlotonStack::new(key(), PLAN).origin(origin());
    Tower::new(stack.layer(hyper(server)))
}

/// All but the limiter, which a 429 pauses: here they only stand for what has to be sent again.
pub(crate) fn without_limit(server: &Server) -> impl Post + use<> {
    let service = ServiceBuilder::new()
        .layer(PlotonIdempotency::new())
        .layer(PlotonRetry::new())
        .layer(PlotonAuth::new(key()).origin(origin()))
        .service(hyper(server));
    Tower::new(service)
}

fn key() -> ApiKey {
    ApiKey::parse(KEY).expect("a key")
}

fn origin() -> Origin {
    Origin::parse(ORIGIN).expect("an origin")
}

const PLAN: Plan = Plan::Enterprise {
    requests_per_minute: NonZeroU32::MAX,
    concurrent_tasks: NonZeroU32::MIN,
};
