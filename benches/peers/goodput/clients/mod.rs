//! The clients that are compared, each set up as its own documentation says for a limit of N requests a minute.
//!
//! All but the last have the same retry, this crate's, so that what differs between them is the limiter.

mod governor;
mod outage;
mod reqwest_retry;

use std::{num::NonZeroU32, time::Duration};

use ::governor::Quota;
use http::{Request, Response};
use tower::{
    BoxError, Layer, Service, ServiceBuilder, ServiceExt, buffer::BufferLayer,
    limit::RateLimitLayer, util::BoxCloneService,
};
use tower_ploton::{ApiKey, Plan, PlotonIdempotency, PlotonRateLimit, PlotonRetry, PlotonStack};
use tower_resilience_ratelimiter::{RateLimiterLayer, WindowType};

pub(crate) use self::outage::Retrying;
use self::{governor::governed, reqwest_retry::reqwest_retry};
use super::wire::Wire;

/// A client, whatever it is made of.
pub(crate) type Client = BoxCloneService<Request<()>, Response<String>, BoxError>;

/// What limits a client's rate, and what sends again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Setup {
    Ours,
    OursPaced,
    Governor,
    GovernorPaced,
    TowerResilience,
    Tower,
    Unlimited,
    ReqwestRetry,
}

impl Setup {
    pub(crate) const ALL: [Self; 8] = [
        Self::Ours,
        Self::OursPaced,
        Self::GovernorPaced,
        Self::Governor,
        Self::TowerResilience,
        Self::Tower,
        Self::Unlimited,
        Self::ReqwestRetry,
    ];

    /// As it stands in the printed names.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::OursPaced => "ours_paced",
            Self::Governor => "governor",
            Self::GovernorPaced => "governor_paced",
            Self::TowerResilience => "tower_resilience",
            Self::Tower => "tower",
            Self::Unlimited => "no_limiter_our_retry",
            Self::ReqwestRetry => "no_limiter_reqwest_retry",
        }
    }

    /// As a reader finds it in its documentation.
    pub(crate) const fn title(self) -> [&'static str; 2] {
        match self {
            Self::Ours => ["tower-ploton", "PlotonStack, reads rate headers"],
            Self::OursPaced => ["tower-ploton, paced", "the same, without_headers()"],
            Self::Governor => ["governor", "Quota::per_minute(N)"],
            Self::GovernorPaced => ["governor, paced", "the same, allow_burst(1)"],
            Self::TowerResilience => ["tower-resilience", "WindowType::SlidingLog"],
            Self::Tower => ["tower", "buffer + rate_limit(N, 60 s)"],
            Self::Unlimited => ["no limiter", "tower-ploton's retry alone"],
            Self::ReqwestRetry => ["no limiter", "reqwest-retry, 3 retries"],
        }
    }

    /// A client of its own that knows of a plan of `n` requests a minute.
    pub(crate) fn client(self, wire: Wire, n: u32) -> Client {
        let plan = plan(n);
        match self {
            Self::Ours => BoxCloneService::new(stack(plan).layer(wire)),
            Self::OursPaced => {
                let paced = PlotonRateLimit::new(plan).without_headers();
                BoxCloneService::new(stack(plan).rate_limit(paced).layer(wire))
            }
            Self::Governor => retried(governed(wire, Quota::per_minute(per_minute(n))), plan),
            Self::GovernorPaced => {
                let quota = Quota::per_minute(per_minute(n)).allow_burst(NonZeroU32::MIN);
                retried(governed(wire, quota), plan)
            }
            Self::TowerResilience => {
                let limited = sliding_log(n)
                    .layer(wire)
                    .map_err(|error| error.to_string());
                retried(limited, plan)
            }
            Self::Tower => {
                // Its service is not `Clone`; a buffer makes it so, as its documentation says.
                let limited = ServiceBuilder::new()
                    .layer(BufferLayer::new(1_024))
                    .layer(RateLimitLayer::new(u64::from(n), Duration::from_secs(60)))
                    .service(wire);
                retried(limited, plan)
            }
            Self::Unlimited => retried(wire, plan),
            Self::ReqwestRetry => reqwest_retry(wire),
        }
    }
}

/// tower-resilience's limiter as its documentation advises it for quotas of external APIs.
fn sliding_log(n: u32) -> RateLimiterLayer {
    RateLimiterLayer::per_minute(n as usize)
        .window_type(WindowType::SlidingLog)
        .backpressure()
        .build()
        .unwrap()
}

fn per_minute(n: u32) -> NonZeroU32 {
    NonZeroU32::new(n).unwrap()
}

fn plan(n: u32) -> Plan {
    Plan::Enterprise {
        requests_per_minute: per_minute(n),
        concurrent_tasks: NonZeroU32::MIN,
    }
}

fn stack(plan: Plan) -> PlotonStack {
    PlotonStack::new(ApiKey::parse("pk_test_4f9d0c2b7a6e1583").unwrap(), plan)
}

/// `inner` with this crate's retry, and the idempotency key that makes it safe.
fn retried<S>(inner: S, plan: Plan) -> Client
where
    S: Service<Request<()>, Response = Response<String>> + Clone + Send + 'static,
    S::Error: Into<BoxError> + Send,
    S::Future: Send,
{
    let service = ServiceBuilder::new()
        .layer(PlotonIdempotency::new())
        .layer(PlotonRetry::new().plan(plan))
        .service(inner);
    BoxCloneService::new(service)
}
