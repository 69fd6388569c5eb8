//! Gauges that show together how something is, set where they changed.

use std::sync::{Mutex, PoisonError};

use metrics::{Gauge, Key, Level, Metadata};
use tokio::time::Instant;

use super::handles::{Fresh, are_kept};

/// Of all that is of a kind: where there are several, they show the one that changed last.
#[derive(Debug)]
pub(super) struct Gauges<const N: usize> {
    keys: [Key; N],
    /// Held by the one that sets them, so that the last to do so sets the newest.
    kept: Mutex<Kept<N>>,
}

#[derive(Debug)]
struct Kept<const N: usize> {
    /// When they may be used; `Some` once they are kept.
    fresh: Option<Fresh>,
    /// With what each was set to last; `None` if that was nothing.
    gauges: [Option<(Gauge, Option<f64>)>; N],
}

/// What a gauge is to show.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value {
    Is(f64),
    /// What it shows; 0 if that is nothing.
    Stays,
    /// There is nothing to show, and so no gauge.
    Unknown,
}

impl<const N: usize> Gauges<N> {
    pub(super) const fn new(keys: [Key; N]) -> Self {
        Self {
            keys,
            kept: Mutex::new(Kept::new(None)),
        }
    }

    /// A recorder is foreign code: `look` must not leave anything locked.
    pub(super) fn set(&self, look: impl FnOnce() -> (Instant, [Value; N])) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let (now, values) = look();
        if !are_kept() {
            return Kept::new(None).set(&self.keys, values);
        }
        // Now and then all are set, since an exporter may drop what is idle.
        if !kept.fresh.as_ref().is_some_and(|fresh| fresh.at(now)) {
            *kept = Kept::new(Some(Fresh::from(now)));
        }
        kept.set(&self.keys, values);
    }
}

impl<const N: usize> Kept<N> {
    const fn new(fresh: Option<Fresh>) -> Self {
        Self {
            fresh,
            gauges: [const { None }; N],
        }
    }

    fn set(&mut self, keys: &[Key; N], values: [Value; N]) {
        for ((kept, key), value) in self.gauges.iter_mut().zip(keys).zip(values) {
            let gauge = || {
                (
                    metrics::with_recorder(|here| here.register_gauge(key, &METADATA)),
                    None,
                )
            };
            match value {
                Value::Is(value) => {
                    let (gauge, last) = kept.get_or_insert_with(gauge);
                    if *last != Some(value) {
                        gauge.set(value);
                        *last = Some(value);
                    }
                }
                Value::Stays if kept.is_none() => kept.insert(gauge()).0.increment(0),
                Value::Stays | Value::Unknown => {}
            }
        }
    }
}

static METADATA: Metadata<'static> =
    Metadata::new(module_path!(), Level::INFO, Some(module_path!()));
