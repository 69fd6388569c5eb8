#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "json")]
pub mod api;
pub mod auth;
pub mod base_url;
#[cfg(feature = "client-core")]
pub mod client;
mod fate;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod headers;
pub mod idempotency;
mod idempotency_key;
mod key;
pub mod limit;
mod logical;
#[cfg(feature = "metrics")]
pub mod metrics;
#[cfg(not(feature = "metrics"))]
#[path = "metrics/off.rs"]
mod metrics;
#[cfg(feature = "mock")]
pub mod mock;
mod no_turn;
mod origin;
mod plan;
#[cfg(feature = "redis")]
pub mod redis;
#[cfg(feature = "reqwest")]
pub mod reqwest;
pub mod retry;
pub mod stack;
mod store;
mod sync;
pub mod tasks;
mod timeout;

pub use self::{
    auth::PlotonAuth,
    base_url::{BaseUrl, PlotonBaseUrl},
    idempotency::PlotonIdempotency,
    idempotency_key::{IdempotencyKey, InvalidIdempotencyKey},
    key::{ApiKey, InvalidApiKey, KeyKind, ReadKeyError},
    limit::{PlotonRateLimit, RateLimitHandle},
    logical::{Attempts, Deadline, MaxAttempts},
    origin::{InvalidOrigin, Origin},
    plan::Plan,
    retry::{PlotonReplay, PlotonRetry},
    stack::PlotonStack,
    tasks::{PlotonTaskLimit, TaskLimitHandle, TaskSlot},
};

/// The guide's code, run as tests.
#[cfg(all(doctest, feature = "client", feature = "mock"))]
#[doc = include_str!("../docs/from-curl.md")]
mod from_curl {}

/// The code of the page on many workers, too.
#[cfg(all(doctest, feature = "redis"))]
#[doc = include_str!("../docs/fleet.md")]
mod many_workers {}
