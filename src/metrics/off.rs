//! In the place of the metrics where the feature is off: nothing, at no cost.
#![allow(
    clippy::unused_self,
    dead_code,
    reason = "they stand for those that record"
)]

use std::time::Duration;

use http::StatusCode;
use tokio::time::Instant;

#[derive(Debug)]
pub(crate) struct Request;

impl Request {
    pub(crate) fn begins(_: impl FnOnce() -> &'static str, _: Instant) -> Self {
        Self
    }

    pub(crate) const fn attempt_ended(&self, _: Result<StatusCode, &'static str>, _: Instant) {}

    pub(crate) const fn ended(&mut self, _: Result<StatusCode, &'static str>) {}
}

pub(crate) const fn asked_again(_: &'static str, _: Duration) {}

pub(crate) const fn given_up(_: &'static str) {}

pub(crate) fn quota(_: impl Fn() -> u32, _: u32) {}

pub(crate) const fn key_created(_: Instant) {}

pub(crate) const fn waited(_: Option<&'static str>, _: Duration, _: Instant) {}

pub(crate) const fn rejected(_: &'static str) {}

pub(crate) const fn refused() {}

pub(crate) const fn paused(_: &'static str) {}

pub(crate) const fn api_key_asked_for(_: bool) {}

pub(crate) const fn slot_waited(_: Duration) {}

pub(crate) const fn slot_rejected() {}
