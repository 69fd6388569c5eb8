//! The limiter's own files, with loom's lock in the place of the standard library's.
#![cfg(loom)]
#![allow(
    dead_code,
    unexpected_cfgs,
    unnameable_types,
    unreachable_pub,
    reason = "they are a part of another crate"
)]

#[path = "../../../src/headers/mod.rs"]
mod headers;
#[path = "../../../src/idempotency_key.rs"]
mod idempotency_key;
#[path = "../../../src/limit/mod.rs"]
pub mod limit;
#[path = "../../../src/logical.rs"]
mod logical;
#[path = "../../../src/metrics/off.rs"]
mod metrics;
#[path = "../../../src/no_turn.rs"]
mod no_turn;
#[path = "../../../src/origin/mod.rs"]
mod origin;
#[path = "../../../src/plan.rs"]
mod plan;
#[path = "../../../src/store/mod.rs"]
mod store;
mod sync {
    pub(crate) use loom::sync::{Mutex, MutexGuard};
}

pub use self::{
    limit::{PlotonRateLimit, RateLimitHandle},
    plan::Plan,
};
