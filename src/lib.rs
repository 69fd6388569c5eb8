#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod auth;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod headers;
pub mod idempotency;
mod idempotency_key;
mod key;
pub mod limit;
mod logical;
#[cfg(feature = "mock")]
pub mod mock;
mod no_turn;
mod origin;
mod plan;
pub mod retry;
pub mod stack;
mod sync;
mod timeout;

pub use self::{
    auth::PlotonAuth,
    idempotency::PlotonIdempotency,
    idempotency_key::{IdempotencyKey, InvalidIdempotencyKey},
    key::{ApiKey, InvalidApiKey, KeyKind},
    limit::{PlotonRateLimit, RateLimitHandle},
    logical::{Attempts, Deadline, MaxAttempts},
    origin::{InvalidOrigin, Origin},
    plan::Plan,
    retry::{PlotonReplay, PlotonRetry},
    stack::PlotonStack,
};
