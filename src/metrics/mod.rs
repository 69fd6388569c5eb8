//! Metrics of what the layers do, by the `metrics` facade: whatever recorder the program installs gets them.
//!
//! Nothing is measured before [`start`] is called, so that the feature costs next to nothing where another crate of a build
//! turned it on. [`BUCKETS`] fit the waits of a rate limit, so that an exporter for Prometheus makes histograms and no
//! summaries:
//!
//! ```
//! # struct Builder;
//! # impl Builder {
//! #     fn set_buckets(self, _: &[f64]) -> Self { self }
//! #     fn build(self) -> metrics::NoopRecorder { metrics::NoopRecorder }
//! # }
//! let recorder = Builder.set_buckets(tower_ploton::metrics::BUCKETS).build();
//! metrics::set_global_recorder(recorder)?;
//! tower_ploton::metrics::start();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Install the recorder first, and start before the first request. Handles of the recorder that all threads share are kept,
//! for a second at most, since an exporter may drop a series that was idle. A recorder that comes after the start, or for one
//! thread alone, gets the same, and is asked for each handle anew.
//!
//! Gauges are set when something changes. What changes by time alone is set by
//! [`RateLimitHandle::publish`](crate::RateLimitHandle::publish): a program that idles calls it every few seconds. Where a
//! process has several rate limits, task limits or quotas, their gauges show the one that changed last; counters and
//! histograms are the sums over all.
//!
//! No label holds a path, an id or a key. All names, kinds, units and labels are in [`ALL`], and with what to look at first
//! in `docs/observability.md`.

use std::sync::atomic::{AtomicBool, Ordering};

use metrics::Unit;

mod gauges;
mod handles;
mod record;

pub(crate) use self::record::{
    Limiter, Request, TaskSlots, api_key_asked_for, asked_again, given_up, key_created, limiter,
    paused, quota, refused, rejected, slot_rejected, slot_waited, task_slots, waited,
};

/// The upper bounds of the buckets of all histograms, in seconds: from a quick answer to the longest wait for a server.
pub const BUCKETS: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 60.0, 120.0, 300.0,
];

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// It only rises.
    Counter,
    /// It rises and falls.
    Gauge,
    /// How often values were in each of some ranges.
    Histogram,
}

/// One of the metrics.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Metric {
    /// Its name, by Prometheus's habits.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// What it is measured in: `seconds`, or nothing where things are counted.
    pub unit: &'static str,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// What it says, in a line.
    pub description: &'static str,
}

/// Tells the recorder what each metric means, and begins to measure, in the whole process and for good.
///
/// Call it once, after the recorder was installed; again, it tells a recorder that came later, and keeps handles of that. A
/// request that is on its way then is not counted, so that none ends that did not begin; what its layers do from then on,
/// such as to wait, is.
///
/// A recorder must not call a layer or a handle of this crate: gauges are set under a lock, one for the limiters and one for
/// the task slots of the process.
pub fn start() {
    describe();
    handles::keep();
    STARTED.store(true, Ordering::Relaxed);
}

/// The same as [`start`] for a recorder that labels what is recorded by where that happens, such as
/// [metrics-tracing-context](https://docs.rs/metrics-tracing-context) by the span: it is asked for each handle anew. A
/// request costs several times as much then.
pub fn start_without_handles() {
    describe();
    handles::keep_none();
    STARTED.store(true, Ordering::Relaxed);
}

fn describe() {
    for metric in ALL {
        let Metric {
            name, description, ..
        } = *metric;
        let unit = if metric.unit.is_empty() {
            Unit::Count
        } else {
            Unit::Seconds
        };
        match metric.kind {
            Kind::Counter => metrics::describe_counter!(name, unit, description),
            Kind::Gauge => metrics::describe_gauge!(name, unit, description),
            Kind::Histogram => metrics::describe_histogram!(name, unit, description),
        }
    }
}

static STARTED: AtomicBool = AtomicBool::new(false);

/// Whether anything is measured. Whoever must work out what to record looks at it first.
#[inline]
pub(crate) fn is_started() -> bool {
    STARTED.load(Ordering::Relaxed)
}

macro_rules! metrics_of_the_layers {
    ($($constant:ident = $kind:ident $unit:literal $name:literal [$($label:literal)*] $description:literal;)*) => {
        $(const $constant: &str = $name;)*

        /// Every metric, in the order of a request's way.
        pub const ALL: &[Metric] = &[$(Metric {
            name: $name,
            kind: Kind::$kind,
            unit: $unit,
            labels: &[$($label),*],
            description: $description,
        }),*];
    };
}

metrics_of_the_layers! {
    REQUESTS = Counter "" "ploton_requests_total" ["method" "result"]
        "Logical requests that ended, by the last status or the kind of the error";
    REQUEST_SECONDS = Histogram "seconds" "ploton_request_duration_seconds" ["method"]
        "Time from the call to the end of a logical request, all attempts and waits included";
    IN_FLIGHT = Gauge "" "ploton_requests_in_flight" []
        "Logical requests that were called and have not ended";
    ATTEMPTS = Counter "" "ploton_attempts_total" ["method" "result"]
        "Attempts that ended, by status or the kind of the error";
    ATTEMPT_SECONDS = Histogram "seconds" "ploton_attempt_duration_seconds" ["method"]
        "Time from when an attempt was sent to the head of its answer";
    RETRIES = Counter "" "ploton_retries_total" ["reason"]
        "Attempts after which the request is sent again, by what the end of the attempt meant";
    RETRY_DELAY_SECONDS = Histogram "seconds" "ploton_retry_delay_seconds" []
        "Delays before requests are sent again";
    GIVEN_UP = Counter "" "ploton_retries_given_up_total" ["reason"]
        "Requests that could be sent again and are not, by what stands against it";
    QUOTA_LEFT = Gauge "" "ploton_retry_quota_left" []
        "What is left of the quota that all retries share";
    QUOTA_CAPACITY = Gauge "" "ploton_retry_quota_capacity" []
        "The most that the quota of retries holds";
    KEYS_CREATED = Counter "" "ploton_idempotency_keys_created_total" []
        "Idempotency keys made for requests that had none";
    LIMIT = Gauge "" "ploton_rate_limit_limit" []
        "Requests a minute that the plan allows";
    REMAINING = Gauge "" "ploton_rate_limit_remaining" []
        "How many more requests are within the plan now, or left of the server's window";
    SERVER_REMAINING = Gauge "" "ploton_rate_limit_server_remaining" []
        "Requests left by the last answer with rate headers";
    WAITING = Gauge "" "ploton_rate_limit_waiting" []
        "Requests and services that wait for their turn";
    RATE_IN_FLIGHT = Gauge "" "ploton_rate_limit_in_flight" []
        "Attempts that took a token and have no answer";
    WAIT_SECONDS = Histogram "seconds" "ploton_rate_limit_wait_seconds" ["rule"]
        "How long attempts waited for their turn, by the rule that held them last; 0 for those that need not wait";
    REJECTED = Counter "" "ploton_rate_limit_rejected_total" ["reason"]
        "Requests that were not sent because they may not wait so long";
    REFUSED = Counter "" "ploton_rate_limit_refused_total" []
        "Answers with status 429";
    PAUSES = Counter "" "ploton_rate_limit_pauses_total" ["reason"]
        "Pauses of all requests that began or were prolonged, by who asked for them";
    PAUSED_UNTIL = Gauge "seconds" "ploton_rate_limit_paused_until_timestamp_seconds" []
        "When the last pause ends or ended, in seconds since 1970; 0 if there was none";
    STORE_UP = Gauge "" "ploton_rate_limit_store_up" []
        "1 while the store that the plan is shared by answers, 0 while it is away; of a shared plan alone";
    API_KEYS_ASKED = Counter "" "ploton_api_key_renewals_total" ["result"]
        "Questions to the source of API keys that ended, by how";
    SLOT_CAPACITY = Gauge "" "ploton_task_slots_capacity" []
        "Tasks that may run at once";
    SLOTS_TAKEN = Gauge "" "ploton_task_slots_taken" []
        "Task slots that are taken";
    SLOTS_UNSETTLED = Gauge "" "ploton_task_slots_unsettled" []
        "Task slots of requests that are over and may have created a task";
    SLOTS_WAITING = Gauge "" "ploton_task_slots_waiting" []
        "Requests that wait for a task slot";
    SLOT_STORE_UP = Gauge "" "ploton_task_slots_store_up" []
        "1 while the store that task slots are shared by answers, 0 while it is away; of shared slots alone";
    SLOT_STORE_TAKEN = Gauge "" "ploton_task_slots_store_taken" []
        "Task slots that all processes have taken, as the store said last; of shared slots alone";
    SLOT_WAIT_SECONDS = Histogram "seconds" "ploton_task_slots_wait_seconds" []
        "How long requests waited for a task slot; 0 for those that need not wait";
    SLOT_REJECTED = Counter "" "ploton_task_slots_rejected_total" []
        "Requests that were not sent because they may not wait so long for a task slot";
}
