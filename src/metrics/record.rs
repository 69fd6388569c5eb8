//! What the layers record, once that was started. Nothing is kept between two records: a recorder may be installed late, or
//! for one thread.

use std::{borrow::Cow, time::Duration};

use http::StatusCode;
use metrics::{counter, gauge, histogram};
use tokio::time::Instant;

use super::{
    API_KEYS_ASKED, ATTEMPT_SECONDS, ATTEMPTS, GIVEN_UP, IN_FLIGHT, KEYS_CREATED, LIMIT,
    PAUSED_UNTIL, PAUSES, QUOTA_CAPACITY, QUOTA_LEFT, RATE_IN_FLIGHT, REFUSED, REJECTED, REMAINING,
    REQUEST_SECONDS, REQUESTS, RETRIES, RETRY_DELAY_SECONDS, SERVER_REMAINING, SLOT_CAPACITY,
    SLOT_REJECTED, SLOT_STORE_TAKEN, SLOT_STORE_UP, SLOT_WAIT_SECONDS, SLOTS_TAKEN,
    SLOTS_UNSETTLED, SLOTS_WAITING, STORE_UP, WAIT_SECONDS, WAITING, is_started,
};

/// A logical request on its way. Dropped before its end, it was cancelled.
#[derive(Debug)]
pub(crate) struct Request {
    /// `None` after its end, and of one that began when nothing was measured.
    measured: Option<Measured>,
}

#[derive(Clone, Copy, Debug)]
struct Measured {
    method: &'static str,
    started: Instant,
}

impl Request {
    #[inline]
    pub(crate) fn begins(method: impl FnOnce() -> &'static str, now: Instant) -> Self {
        let measured = is_started().then(|| {
            aside(|| {
                gauge!(IN_FLIGHT).increment(1);
                Measured {
                    method: method(),
                    started: now,
                }
            })
        });
        Self { measured }
    }

    /// An attempt that was sent at `sent` ended.
    #[inline]
    pub(crate) fn attempt_ended(&self, end: Result<StatusCode, &'static str>, sent: Instant) {
        if let Some(Measured { method, .. }) = self.measured {
            aside(|| {
                counter!(ATTEMPTS, "method" => method, "result" => result(end)).increment(1);
                let took = Instant::now().saturating_duration_since(sent);
                histogram!(ATTEMPT_SECONDS, "method" => method).record(took);
            });
        }
    }

    #[inline]
    pub(crate) fn ended(&mut self, end: Result<StatusCode, &'static str>) {
        if let Some(Measured { method, started }) = self.measured.take() {
            aside(|| {
                counter!(REQUESTS, "method" => method, "result" => result(end)).increment(1);
                let took = Instant::now().saturating_duration_since(started);
                histogram!(REQUEST_SECONDS, "method" => method).record(took);
                gauge!(IN_FLIGHT).decrement(1);
            });
        }
    }
}

impl Drop for Request {
    #[inline]
    fn drop(&mut self) {
        self.ended(Err("cancelled"));
    }
}

/// Out of the way of those who measure nothing: each of them only looks.
#[cold]
#[inline(never)]
fn aside<T>(record: impl FnOnce() -> T) -> T {
    record()
}

/// A status that is registered, the class of any other, or the kind of an error: a server can't make up new ones.
fn result(end: Result<StatusCode, &'static str>) -> Cow<'static, str> {
    match end {
        Ok(status) if status.canonical_reason().is_some() => status.as_str().to_owned().into(),
        Ok(status) => match status.as_u16() {
            100..=199 => "1xx".into(),
            200..=299 => "2xx".into(),
            300..=399 => "3xx".into(),
            400..=499 => "4xx".into(),
            500..=599 => "5xx".into(),
            _ => "other".into(),
        },
        Err(kind) => kind.into(),
    }
}

#[inline]
pub(crate) fn asked_again(reason: &'static str, delay: Duration) {
    if is_started() {
        aside(|| {
            counter!(RETRIES, "reason" => reason).increment(1);
            histogram!(RETRY_DELAY_SECONDS).record(delay);
        });
    }
}

#[inline]
pub(crate) fn given_up(reason: &'static str) {
    if is_started() {
        aside(|| {
            counter!(GIVEN_UP, "reason" => reason).increment(1);
        });
    }
}

/// `left` is asked again until it stands still, since another thread may set an older number later.
#[inline]
pub(crate) fn quota(left: impl Fn() -> u32, capacity: u32) {
    if is_started() {
        aside(|| {
            gauge!(QUOTA_CAPACITY).set(capacity);
            let mut now = left();
            loop {
                gauge!(QUOTA_LEFT).set(now);
                let before = now;
                now = left();
                if now == before {
                    return;
                }
            }
        });
    }
}

#[inline]
pub(crate) fn key_created() {
    if is_started() {
        aside(|| {
            counter!(KEYS_CREATED).increment(1);
        });
    }
}

/// A rate limit at one instant.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limiter {
    pub(crate) limit: u32,
    pub(crate) remaining: u32,
    /// `Some` once an answer said it.
    pub(crate) server_remaining: Option<u32>,
    pub(crate) in_flight: u32,
    pub(crate) waiting: usize,
    /// Since 1970; `Some` in a pause.
    pub(crate) paused_until: Option<Duration>,
    /// `Some` where the plan is shared by a store.
    pub(crate) store_is_up: Option<bool>,
}

impl Limiter {
    pub(crate) fn publish(self) {
        gauge!(LIMIT).set(self.limit);
        gauge!(REMAINING).set(self.remaining);
        if let Some(remaining) = self.server_remaining {
            gauge!(SERVER_REMAINING).set(remaining);
        }
        gauge!(RATE_IN_FLIGHT).set(self.in_flight);
        gauge!(WAITING).set(count(self.waiting));
        let paused_until = gauge!(PAUSED_UNTIL);
        match self.paused_until {
            Some(until) => paused_until.set(until),
            // It is there from the begin, and stays at the last one's end.
            None => paused_until.increment(0),
        }
        if let Some(is_up) = self.store_is_up {
            gauge!(STORE_UP).set(u8::from(is_up));
        }
    }
}

/// An attempt took its token. `rule` is what held it, `None` where it need not wait.
#[inline]
pub(crate) fn waited(rule: Option<&'static str>, wait: Duration) {
    if is_started() {
        aside(|| histogram!(WAIT_SECONDS, "rule" => rule.unwrap_or("none")).record(wait));
    }
}

#[inline]
pub(crate) fn rejected(reason: &'static str) {
    if is_started() {
        aside(|| {
            counter!(REJECTED, "reason" => reason).increment(1);
        });
    }
}

#[inline]
pub(crate) fn refused() {
    if is_started() {
        aside(|| {
            counter!(REFUSED).increment(1);
        });
    }
}

#[inline]
pub(crate) fn paused(reason: &'static str) {
    if is_started() {
        aside(|| {
            counter!(PAUSES, "reason" => reason).increment(1);
        });
    }
}

#[inline]
pub(crate) fn api_key_asked_for(succeeded: bool) {
    if is_started() {
        aside(|| {
            let result = if succeeded { "ok" } else { "failed" };
            counter!(API_KEYS_ASKED, "result" => result).increment(1);
        });
    }
}

/// A task limit at one instant.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TaskSlots {
    pub(crate) capacity: u32,
    pub(crate) taken: usize,
    pub(crate) unsettled: usize,
    pub(crate) waiting: usize,
    /// `Some` where they are shared by a store.
    pub(crate) store_is_up: Option<bool>,
    /// By all processes; `Some` once a store said it.
    pub(crate) store_taken: Option<u32>,
}

impl TaskSlots {
    pub(crate) fn publish(self) {
        gauge!(SLOT_CAPACITY).set(self.capacity);
        gauge!(SLOTS_TAKEN).set(count(self.taken));
        gauge!(SLOTS_UNSETTLED).set(count(self.unsettled));
        gauge!(SLOTS_WAITING).set(count(self.waiting));
        if let Some(is_up) = self.store_is_up {
            gauge!(SLOT_STORE_UP).set(u8::from(is_up));
        }
        if let Some(taken) = self.store_taken {
            gauge!(SLOT_STORE_TAKEN).set(taken);
        }
    }
}

#[inline]
pub(crate) fn slot_waited(wait: Duration) {
    if is_started() {
        aside(|| {
            histogram!(SLOT_WAIT_SECONDS).record(wait);
        });
    }
}

#[inline]
pub(crate) fn slot_rejected() {
    if is_started() {
        aside(|| {
            counter!(SLOT_REJECTED).increment(1);
        });
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
