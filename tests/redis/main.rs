//! The shared store on real `redis-server` processes: `cargo test --features redis --test redis`.
//!
//! The program is the one in `PATH`, or what `REDIS_SERVER` names.
#![cfg(target_os = "linux")]
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by a panic"
)]

mod far;
mod fleet;
mod outages;
mod same_as_memory;
mod same_slots;
mod script;
mod server;
mod slots;
mod worker;

use std::time::Duration;

use tower_ploton::{
    limit::LeaseRequest,
    redis::{RedisStore, Scope},
};

use server::{Redis, patiently};

const STEP: Duration = Duration::from_millis(60);

fn scope() -> Scope {
    Scope::parse("test").unwrap()
}

/// A store that connects as most do.
fn store(redis: &Redis) -> RedisStore {
    let client = redis.client();
    let connect = move || {
        let client = client.clone();
        async move { client.get_multiplexed_async_connection().await }
    };
    RedisStore::connect_with(connect, scope())
}

/// A store that no slow machine keeps from an answer.
fn patient_store(redis: &Redis) -> RedisStore {
    RedisStore::from_connection(patiently(redis.client()), scope())
}

/// What a process asks for that has use for so many tokens, 60 ms apart.
fn ask(process: u64, wanted: u32) -> LeaseRequest {
    let mut ask = LeaseRequest::default();
    ask.process = process;
    ask.wanted = wanted;
    ask.interval = STEP;
    ask.max_wait = Duration::from_secs(1);
    ask.keep = Duration::from_secs(60);
    ask
}
