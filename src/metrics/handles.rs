//! Handles of metrics, kept for a moment: to look one up takes longer than to use it.

use std::{
    cell::Cell,
    mem,
    ops::Range,
    ptr,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use http::StatusCode;
use metrics::{Counter, Gauge, Histogram};
use tokio::time::Instant;

/// What a request that goes well takes. The rest is looked up each time.
#[derive(Debug, Default)]
pub(super) struct Handles {
    /// When they may be used; `Some` where they are kept.
    fresh: Option<Fresh>,
    pub(super) in_flight: Option<Gauge>,
    pub(super) requests: Labelled<(&'static str, End), (Counter, Histogram)>,
    pub(super) attempts: Labelled<(&'static str, End), (Counter, Histogram)>,
    pub(super) keys_created: Option<Counter>,
    pub(super) waits: Labelled<&'static str, Histogram>,
    pub(super) slot_waits: Option<Histogram>,
}

/// A status, or the kind of an error.
pub(super) type End = Result<StatusCode, &'static str>;

/// Gives `record` handles of the recorder that is here.
pub(super) fn with<T>(now: Instant, record: impl FnOnce(&mut Handles) -> T) -> T {
    if !are_kept() {
        return record(&mut Handles::default());
    }
    // Taken out, so that nothing is borrowed while a recorder runs. Not there in a thread that ends.
    let kept = KEPT.try_with(Cell::take).ok().flatten();
    let kept = kept.filter(|kept| kept.fresh.as_ref().is_some_and(|fresh| fresh.at(now)));
    let mut handles = kept.unwrap_or_else(|| {
        Box::new(Handles {
            fresh: Some(Fresh::from(now)),
            requests: Labelled::with_room(),
            attempts: Labelled::with_room(),
            waits: Labelled::with_room(),
            ..Handles::default()
        })
    });
    let result = record(&mut handles);
    let _ = KEPT.try_with(|kept| kept.set(Some(handles)));
    result
}

thread_local! {
    /// Of [`RECORDER`].
    static KEPT: Cell<Option<Box<Handles>>> = const { Cell::new(None) };
}

/// Whether handles of the recorder that is here are kept: those of one that is there for a single thread are not, since
/// another may be in its place later, at the same address.
#[inline]
pub(super) fn are_kept() -> bool {
    let recorder = RECORDER.load(Ordering::Relaxed);
    recorder != NONE && recorder == here()
}

/// Where the recorder is that all threads share: it stays there to the end of the process.
static RECORDER: AtomicUsize = AtomicUsize::new(NONE);
const NONE: usize = 0;

/// Keeps handles of the recorder that all threads share, if there is one.
pub(super) fn keep() {
    // A thread of its own has no recorder of its own. Where there can be none, each handle is looked up.
    let other = thread::Builder::new()
        .spawn(here)
        .map(thread::JoinHandle::join);
    let recorder = other.ok().and_then(Result::ok).unwrap_or(NONE);
    RECORDER.store(recorder, Ordering::Relaxed);
}

/// Keeps none.
pub(super) fn keep_none() {
    RECORDER.store(NONE, Ordering::Relaxed);
}

/// Where the recorder is that this thread records to. One without a size is not told from others by that.
fn here() -> usize {
    metrics::with_recorder(|recorder| match mem::size_of_val(recorder) {
        0 => NONE,
        _ => ptr::from_ref(recorder).cast::<()>().addr(),
    })
}

/// When handles may be used. An exporter may drop a series that was idle for some time, and one that was looked up before
/// shows nothing any more.
#[derive(Debug)]
pub(super) struct Fresh(Range<Instant>);

impl Fresh {
    pub(super) fn from(now: Instant) -> Self {
        Self(now..now.checked_add(KEPT_FOR).unwrap_or(now))
    }

    pub(super) fn at(&self, now: Instant) -> bool {
        self.0.contains(&now)
    }
}

const KEPT_FOR: Duration = Duration::from_secs(1);

/// The handles of a metric by its labels: as many as there is room for.
#[derive(Debug)]
pub(super) struct Labelled<L, H>(Vec<(L, H)>);

impl<L, H> Default for Labelled<L, H> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<L: Copy + PartialEq, H> Labelled<L, H> {
    /// Few: a server that answers with ever other statuses must not make the search long.
    fn with_room() -> Self {
        Self(Vec::with_capacity(32))
    }

    pub(super) fn with(
        &mut self,
        labels: L,
        register: impl FnOnce(L) -> H,
        record: impl FnOnce(&H),
    ) {
        if let Some((_, handle)) = self.0.iter().find(|(known, _)| *known == labels) {
            return record(handle);
        }
        let handle = register(labels);
        record(&handle);
        if self.0.len() < self.0.capacity() {
            self.0.push((labels, handle));
        }
    }
}
