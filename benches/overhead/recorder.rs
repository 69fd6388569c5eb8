//! A recorder that does what any must: it finds a series by its key, and adds to an atomic number.

use std::{
    collections::HashMap,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use metrics::{
    Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};

#[derive(Default)]
pub(crate) struct Series {
    #[allow(clippy::mutable_key_type, reason = "its hash does not change")]
    numbers: RwLock<HashMap<Key, Arc<AtomicU64>>>,
    #[allow(clippy::mutable_key_type, reason = "its hash does not change")]
    counts: RwLock<HashMap<Key, Arc<Count>>>,
}

impl Series {
    /// For all threads.
    pub(crate) fn install() {
        let installed = metrics::set_global_recorder(Self::default());
        assert!(installed.is_ok(), "there is one");
    }
}

/// How many values there were.
#[derive(Default)]
struct Count(AtomicU64);

impl HistogramFn for Count {
    fn record(&self, _: f64) {
        self.0.fetch_add(1, Ordering::Release);
    }
}

impl Recorder for Series {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(found(&self.numbers, key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(found(&self.numbers, key))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(found(&self.counts, key))
    }
}

#[allow(clippy::mutable_key_type, reason = "its hash does not change")]
fn found<T: Default>(all: &RwLock<HashMap<Key, Arc<T>>>, key: &Key) -> Arc<T> {
    let known = all.read().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = known.get(key) {
        return known.clone();
    }
    drop(known);
    let mut all = all.write().unwrap_or_else(PoisonError::into_inner);
    all.entry(key.clone()).or_default().clone()
}
