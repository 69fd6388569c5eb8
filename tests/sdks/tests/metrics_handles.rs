//! Handles are kept for a second, of the recorder of all threads alone. In a process of its own, which has one such recorder.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

#[allow(dead_code, reason = "only some of a scrape is looked at")]
#[path = "observability/scrape.rs"]
mod scrape;

use std::{
    convert::Infallible,
    future,
    num::NonZeroU32,
    ptr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::{Request, Response};
use metrics::{
    Counter, Gauge, GaugeFn, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use tokio::time::{self, Instant};
use tower::{Layer, ServiceExt, service_fn};
use tower_ploton::{
    Plan, PlotonRateLimit, PlotonRetry, PlotonStack, RateLimitHandle,
    metrics::{BUCKETS, start, start_without_handles},
    mock::FakePloton,
};
use tower_ploton_sdks::{create, key};

use self::scrape::Scrape;

const PLOTON: &str = "https://api.ploton.ai";
/// So large that nothing waits.
const PLAN: Plan = Plan::Enterprise {
    requests_per_minute: NonZeroU32::MAX,
    concurrent_tasks: NonZeroU32::MIN,
};

/// Counts what is asked of a recorder.
struct Counted {
    inner: PrometheusRecorder,
    asked: Arc<Asked>,
}

#[derive(Default)]
struct Asked {
    look_ups: AtomicUsize,
    gauges_set: AtomicUsize,
}

impl Recorder for Counted {
    fn describe_counter(&self, name: KeyName, unit: Option<Unit>, text: SharedString) {
        self.inner.describe_counter(name, unit, text);
    }

    fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, text: SharedString) {
        self.inner.describe_gauge(name, unit, text);
    }

    fn describe_histogram(&self, name: KeyName, unit: Option<Unit>, text: SharedString) {
        self.inner.describe_histogram(name, unit, text);
    }

    fn register_counter(&self, key: &Key, metadata: &Metadata<'_>) -> Counter {
        self.asked.look_ups.fetch_add(1, Ordering::Relaxed);
        self.inner.register_counter(key, metadata)
    }

    fn register_gauge(&self, key: &Key, metadata: &Metadata<'_>) -> Gauge {
        self.asked.look_ups.fetch_add(1, Ordering::Relaxed);
        Gauge::from_arc(Arc::new(CountedGauge {
            inner: self.inner.register_gauge(key, metadata),
            asked: self.asked.clone(),
        }))
    }

    fn register_histogram(&self, key: &Key, metadata: &Metadata<'_>) -> Histogram {
        self.asked.look_ups.fetch_add(1, Ordering::Relaxed);
        self.inner.register_histogram(key, metadata)
    }
}

struct CountedGauge {
    inner: Gauge,
    asked: Arc<Asked>,
}

impl GaugeFn for CountedGauge {
    fn increment(&self, value: f64) {
        self.inner.increment(value);
    }

    fn decrement(&self, value: f64) {
        self.inner.decrement(value);
    }

    fn set(&self, value: f64) {
        self.asked.gauges_set.fetch_add(1, Ordering::Relaxed);
        self.inner.set(value);
    }
}

fn prometheus() -> PrometheusRecorder {
    let builder = PrometheusBuilder::new().set_buckets(BUCKETS).unwrap();
    builder.build_recorder()
}

/// The recorder of all threads, as the tests see it.
struct Global {
    text: PrometheusHandle,
    asked: Arc<Asked>,
    stack: PlotonStack,
}

impl Global {
    fn install() -> Self {
        let inner = prometheus();
        let (text, asked) = (inner.handle(), Arc::<Asked>::default());
        let recorder = Counted {
            inner,
            asked: asked.clone(),
        };
        assert!(metrics::set_global_recorder(recorder).is_ok());
        Self {
            text,
            asked,
            stack: PlotonStack::new(key(), PLAN),
        }
    }

    /// How many look-ups, and how many gauges that were set, a request takes.
    async fn request(&self) -> (usize, usize) {
        let asked = || {
            let Asked {
                look_ups,
                gauges_set,
            } = &*self.asked;
            (
                look_ups.load(Ordering::Relaxed),
                gauges_set.load(Ordering::Relaxed),
            )
        };
        let before = asked();
        send(&self.stack).await;
        let after = asked();
        (after.0 - before.0, after.1 - before.1)
    }

    fn sum(&self, name: &str) -> f64 {
        Scrape::read(&self.text.render()).sum(name, &[])
    }
}

async fn send(stack: &PlotonStack) {
    let service = stack.clone().layer(FakePloton::new());
    service.oneshot(create(PLOTON, "one")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn handles_are_kept_for_a_second_and_of_the_recorder_of_all_threads_alone() {
    start();
    let global = a_recorder_that_comes_later_gets_all_that_follows().await;
    start();
    nothing_is_looked_up_twice_in_a_second(&global).await;
    what_an_exporter_dropped_is_there_again_a_second_later(&global).await;
    a_gauge_is_set_where_it_changed(&global).await;
    a_recorder_of_one_thread_gets_what_is_its_own(&global).await;
    ever_new_statuses_are_counted_under_few_names(&global).await;
    start_without_handles();
    let (look_ups, _) = global.request().await;
    assert!(look_ups > 10, "{look_ups}: each time anew");
}

async fn a_recorder_that_comes_later_gets_all_that_follows() -> Global {
    send(&PlotonStack::new(key(), PLAN)).await;
    let global = Global::install();
    for n in 1..=2 {
        let (look_ups, _) = global.request().await;
        assert!(look_ups > 10, "{look_ups}: nobody said that it is there");
        assert_eq!(global.sum("ploton_requests_total"), f64::from(n));
    }
    global
}

async fn nothing_is_looked_up_twice_in_a_second(global: &Global) {
    let (first, _) = global.request().await;
    assert!(first > 10, "{first}");
    for _ in 0..3 {
        assert_eq!(global.request().await.0, 0);
    }
    for counter in [
        "ploton_requests_total",
        "ploton_attempts_total",
        "ploton_idempotency_keys_created_total",
        "ploton_request_duration_seconds_count",
        "ploton_attempt_duration_seconds_count",
        "ploton_rate_limit_wait_seconds_count",
    ] {
        assert_eq!(global.sum(counter), 6.0, "{counter}");
    }
    assert_eq!(global.sum("ploton_requests_in_flight"), 0.0);
}

/// An exporter with an idle timeout forgets a series, and no handle from before brings it back.
async fn what_an_exporter_dropped_is_there_again_a_second_later(global: &Global) {
    global.request().await;
    time::advance(Duration::from_secs(1)).await;
    let (look_ups, set) = global.request().await;
    assert!(look_ups > 10, "{look_ups}");
    // The quota's two, and of the limit how large it is, how much is left, how many wait, and twice how many are on their way.
    assert_eq!(set, 7, "those too that stayed as they were");
    assert_eq!(global.request().await.0, 0);
}

async fn a_gauge_is_set_where_it_changed(global: &Global) {
    let (_, set) = global.request().await;
    assert_eq!(set, 3, "what is left, and twice how many are on their way");

    let limit = |plan| PlotonRateLimit::new(plan).handle();
    let (one, other) = (limit(Plan::Prototyping), limit(Plan::Production));
    let shows = |handle: &RateLimitHandle, name| {
        handle.publish();
        let scrape = Scrape::read(&global.text.render());
        let found = scrape.samples.iter().find(|sample| sample.name == name);
        found.map(|sample| sample.value)
    };
    let plan = "ploton_rate_limit_limit";
    assert_eq!(shows(&one, plan), Some(100.0));
    assert_eq!(shows(&other, plan), Some(1_000.0));
    assert_eq!(shows(&one, plan), Some(100.0), "that of the last one");

    let pause = "ploton_rate_limit_paused_until_timestamp_seconds";
    assert_eq!(shows(&one, pause), Some(0.0), "there was none");
    one.pause_until(Instant::now() + Duration::from_secs(1));
    let until = shows(&one, pause);
    assert!(until > Some(0.0), "{until:?}");
    time::advance(Duration::from_secs(5)).await;
    assert_eq!(shows(&one, pause), until, "at the end of the last one");
    assert_eq!(shows(&other, pause), until, "it had none");
}

async fn a_recorder_of_one_thread_gets_what_is_its_own(global: &Global) {
    let before = global.sum("ploton_requests_total");
    let mut places = Vec::new();
    for starts in [false, true, false, false] {
        let local = prometheus();
        places.push(ptr::from_ref(&local).addr());
        let guard = metrics::set_default_local_recorder(&local);
        if starts {
            start();
        }
        for n in 1..=2 {
            send(&global.stack).await;
            let scrape = Scrape::read(&local.handle().render());
            assert_eq!(scrape.sum("ploton_requests_total", &[]), f64::from(n));
            assert_eq!(scrape.sum("ploton_retry_quota_left", &[]), 500.0);
        }
        drop(guard);
    }
    places.dedup();
    assert_eq!(places.len(), 1, "one after the other in one place");
    assert_eq!(global.sum("ploton_requests_total"), before);
    global.request().await;
    assert_eq!(global.request().await.0, 0);
    assert_eq!(global.sum("ploton_requests_total"), before + 2.0);
}

async fn ever_new_statuses_are_counted_under_few_names(global: &Global) {
    let before = global.sum("ploton_attempts_total");
    for status in 100..=999 {
        let server = service_fn(move |_: Request<String>| {
            let answer = Response::builder().status(status).body(String::new());
            future::ready(Ok::<_, Infallible>(answer.unwrap()))
        });
        let retry = PlotonRetry::new().attempts(1);
        let request = Request::new(String::new());
        retry.layer(server).oneshot(request).await.unwrap();
    }
    assert_eq!(global.sum("ploton_attempts_total"), before + 900.0);
    let scrape = Scrape::read(&global.text.render());
    let count = |name| {
        let series = scrape.samples.iter().filter(|sample| sample.name == name);
        series.count()
    };
    assert!(count("ploton_attempts_total") < 80);
    let failed = |status| scrape.sum("ploton_attempts_total", &[("result", status)]);
    assert_eq!((failed("404"), failed("5xx")), (1.0, 89.0));
}
