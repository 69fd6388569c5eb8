//! What the layers record, once that was started.

use std::{borrow::Cow, time::Duration};

use metrics::{Gauge, Key, counter, gauge, histogram};
use tokio::time::Instant;

use super::{
    API_KEYS_ASKED, ATTEMPT_SECONDS, ATTEMPTS, GIVEN_UP, IN_FLIGHT, KEYS_CREATED, LIMIT,
    PAUSED_UNTIL, PAUSES, QUOTA_CAPACITY, QUOTA_LEFT, RATE_IN_FLIGHT, REFUSED, REJECTED, REMAINING,
    REQUEST_SECONDS, REQUESTS, RETRIES, RETRY_DELAY_SECONDS, SERVER_REMAINING, SLOT_CAPACITY,
    SLOT_REJECTED, SLOT_STORE_TAKEN, SLOT_STORE_UP, SLOT_WAIT_SECONDS, SLOTS_TAKEN,
    SLOTS_UNSETTLED, SLOTS_WAITING, STORE_UP, WAIT_SECONDS, WAITING,
    gauges::{Gauges, Value},
    handles::{self, End, Handles},
    is_started,
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
                handles::with(now, |handles| in_flight(handles).increment(1));
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
    pub(crate) fn attempt_ended(&self, end: End, sent: Instant) {
        if let Some(Measured { method, .. }) = self.measured {
            aside(|| {
                let now = Instant::now();
                let register = |(method, end)| {
                    (
                        counter!(ATTEMPTS, "method" => method, "result" => label(end)),
                        histogram!(ATTEMPT_SECONDS, "method" => method),
                    )
                };
                handles::with(now, |handles| {
                    let labels = (method, bounded(end));
                    handles.attempts.with(labels, register, |(ended, seconds)| {
                        ended.increment(1);
                        seconds.record(now.saturating_duration_since(sent));
                    });
                });
            });
        }
    }

    #[inline]
    pub(crate) fn ended(&mut self, end: End) {
        if let Some(Measured { method, started }) = self.measured.take() {
            aside(|| {
                let now = Instant::now();
                let register = |(method, end)| {
                    (
                        counter!(REQUESTS, "method" => method, "result" => label(end)),
                        histogram!(REQUEST_SECONDS, "method" => method),
                    )
                };
                handles::with(now, |handles| {
                    let labels = (method, bounded(end));
                    handles.requests.with(labels, register, |(ended, seconds)| {
                        ended.increment(1);
                        seconds.record(now.saturating_duration_since(started));
                    });
                    in_flight(handles).decrement(1);
                });
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

fn in_flight(handles: &mut Handles) -> &Gauge {
    handles.in_flight.get_or_insert_with(|| gauge!(IN_FLIGHT))
}

/// A status that is registered, the class of any other, or the kind of an error: a server can't make up new ones.
fn bounded(end: End) -> End {
    let status = end?;
    if status.canonical_reason().is_some() {
        return Ok(status);
    }
    Err(match status.as_u16() {
        100..=199 => "1xx",
        200..=299 => "2xx",
        300..=399 => "3xx",
        400..=499 => "4xx",
        500..=599 => "5xx",
        _ => "other",
    })
}

fn label(end: End) -> Cow<'static, str> {
    match end {
        Ok(status) => status.as_str().to_owned().into(),
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

#[inline]
pub(crate) fn quota(left: impl Fn() -> u32, capacity: u32) {
    if is_started() {
        aside(|| {
            QUOTA.set(|| {
                let values = [capacity, left()].map(|value| Value::Is(value.into()));
                (Instant::now(), values)
            });
        });
    }
}

static QUOTA: Gauges<2> = Gauges::new([
    Key::from_static_name(QUOTA_CAPACITY),
    Key::from_static_name(QUOTA_LEFT),
]);

#[inline]
pub(crate) fn key_created(now: Instant) {
    if is_started() {
        aside(|| {
            handles::with(now, |handles| {
                let created = &mut handles.keys_created;
                let created = created.get_or_insert_with(|| counter!(KEYS_CREATED));
                created.increment(1);
            });
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

/// Sets the gauges to what `look` sees.
pub(crate) fn limiter(look: impl FnOnce() -> (Instant, Limiter)) {
    LIMITER.set(|| {
        let (now, seen) = look();
        let paused_until = seen.paused_until.map(|until| until.as_secs_f64());
        let values = [
            Value::Is(seen.limit.into()),
            Value::Is(seen.remaining.into()),
            known(seen.server_remaining),
            Value::Is(seen.in_flight.into()),
            count(seen.waiting),
            // At the end of the last one.
            paused_until.map_or(Value::Stays, Value::Is),
            known(seen.store_is_up),
        ];
        (now, values)
    });
}

static LIMITER: Gauges<7> = Gauges::new([
    Key::from_static_name(LIMIT),
    Key::from_static_name(REMAINING),
    Key::from_static_name(SERVER_REMAINING),
    Key::from_static_name(RATE_IN_FLIGHT),
    Key::from_static_name(WAITING),
    Key::from_static_name(PAUSED_UNTIL),
    Key::from_static_name(STORE_UP),
]);

/// An attempt took its token at `now`. `rule` is what held it, `None` where it need not wait.
#[inline]
pub(crate) fn waited(rule: Option<&'static str>, wait: Duration, now: Instant) {
    if is_started() {
        aside(|| {
            let register = |rule| histogram!(WAIT_SECONDS, "rule" => rule);
            handles::with(now, |handles| {
                let rule = rule.unwrap_or("none");
                handles
                    .waits
                    .with(rule, register, |waits| waits.record(wait));
            });
        });
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

/// Sets the gauges to what `look` sees.
pub(crate) fn task_slots(look: impl FnOnce() -> TaskSlots) {
    TASK_SLOTS.set(|| {
        let seen = look();
        let values = [
            Value::Is(seen.capacity.into()),
            count(seen.taken),
            count(seen.unsettled),
            count(seen.waiting),
            known(seen.store_is_up),
            known(seen.store_taken),
        ];
        (Instant::now(), values)
    });
}

static TASK_SLOTS: Gauges<6> = Gauges::new([
    Key::from_static_name(SLOT_CAPACITY),
    Key::from_static_name(SLOTS_TAKEN),
    Key::from_static_name(SLOTS_UNSETTLED),
    Key::from_static_name(SLOTS_WAITING),
    Key::from_static_name(SLOT_STORE_UP),
    Key::from_static_name(SLOT_STORE_TAKEN),
]);

#[inline]
pub(crate) fn slot_waited(wait: Duration) {
    if is_started() {
        aside(|| {
            handles::with(Instant::now(), |handles| {
                let waits = &mut handles.slot_waits;
                let waits = waits.get_or_insert_with(|| histogram!(SLOT_WAIT_SECONDS));
                waits.record(wait);
            });
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

fn known(value: Option<impl Into<f64>>) -> Value {
    value.map_or(Value::Unknown, |value| Value::Is(value.into()))
}

fn count(number: usize) -> Value {
    Value::Is(u32::try_from(number).unwrap_or(u32::MAX).into())
}
