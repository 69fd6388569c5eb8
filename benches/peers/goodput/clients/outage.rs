//! The clients that meet an outage: each project's own retry, with its own limiter where it has one.

use governor::Quota;
use http::{Request, Response, StatusCode};
use tower::{
    BoxError, Layer, ServiceBuilder, ServiceExt, retry::RetryLayer, util::BoxCloneService,
};
use tower_resilience_ratelimiter::RateLimiterServiceError;
use tower_resilience_retry::RetryBudgetBuilder;

use super::{Client, Setup, governed, per_minute, sliding_log};
use crate::{peers::Again, wire::Wire};

/// What sends again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retrying {
    Ours,
    OursUnlimited,
    Tower,
    TowerResilience,
    Reqwest,
    Nothing,
}

impl Retrying {
    pub(crate) const ALL: [Self; 6] = [
        Self::Ours,
        Self::OursUnlimited,
        Self::Tower,
        Self::TowerResilience,
        Self::Reqwest,
        Self::Nothing,
    ];

    /// As it stands in the printed names.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::OursUnlimited => "no_limiter_our_retry",
            Self::Tower => "tower",
            Self::TowerResilience => "tower_resilience",
            Self::Reqwest => "reqwest_retry",
            Self::Nothing => "no_retry",
        }
    }

    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Ours => "tower-ploton: PlotonStack",
            Self::OursUnlimited => "tower-ploton's retry without a limiter",
            Self::Tower => "tower's retry, backoff and budget, governor",
            Self::TowerResilience => "tower-resilience: retry, budget, limiter",
            Self::Reqwest => "reqwest-retry: 3 retries",
            Self::Nothing => "no retry",
        }
    }

    pub(crate) fn client(self, wire: Wire, n: u32) -> Client {
        match self {
            Self::Ours => Setup::Ours.client(wire, n),
            Self::OursUnlimited => Setup::Unlimited.client(wire, n),
            Self::Tower => tower(wire, n),
            Self::TowerResilience => tower_resilience(wire, n),
            Self::Reqwest => Setup::ReqwestRetry.client(wire, n),
            Self::Nothing => BoxCloneService::new(wire),
        }
    }
}

fn tower(wire: Wire, n: u32) -> Client {
    let service = ServiceBuilder::new()
        .layer(RetryLayer::new(Again::new()))
        .service(governed(wire, Quota::per_minute(per_minute(n))));
    BoxCloneService::new(service)
}

/// Its preset of 3 attempts with exponential backoff, and the budget that needs no clock: the other one reads the real time,
/// which stands still here.
fn tower_resilience(wire: Wire, n: u32) -> Client {
    type Error = RateLimiterServiceError<BoxError>;
    type RetryLayer = tower_resilience_retry::RetryLayer<Request<()>, Response<String>, Error>;

    let budget = RetryBudgetBuilder::new().aimd().build().unwrap();
    let again = |response: &Response<String>| {
        let status = response.status();
        status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error()
    };
    let retry = RetryLayer::exponential_backoff()
        .retry_on_response(again)
        .budget(budget)
        .build();
    let service = retry.layer(sliding_log(n).layer(wire));
    BoxCloneService::new(service.map_err(|error| error.to_string().into()))
}
