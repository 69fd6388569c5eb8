//! Where processes that use one account agree on who may start tasks.

use std::{fmt, sync::Arc, time::Duration};

use crate::store::TIMEOUT;
pub use crate::store::{StoreError, StoreFuture};

/// A place that several processes take their task slots from.
///
/// All times are relative, and go by the store's own clock, so the processes' clocks need not agree. A call that fails or is
/// dropped may have been carried out. [`MemorySlots`](super::MemorySlots) is one within a process; with the feature `redis`
/// a `RedisStore` is one too.
///
/// A store that knows nothing, because it is new or lost all, lets nobody take a slot for six seconds: so all who hold some
/// have told it of them by then.
pub trait SharedSlots: fmt::Debug + Send + Sync + 'static {
    /// Takes up to as many slots as are wanted. Where there are too few, the process has a place in a line, and is told when
    /// to ask again; those before it are left one slot each.
    fn take(&self, ask: SlotRequest) -> StoreFuture<'_, SlotsTaken>;

    /// Keeps slots for longer, all that the process holds, also those that the store does not know of.
    fn renew(&self, renewal: Renewal) -> StoreFuture<'_, Renewed>;

    /// Says which task is in a reserved slot: it belongs to the task then, and no longer to the process. Answers whether the
    /// task may run: `false` where somebody saw it end.
    fn bind(&self, binding: Binding) -> StoreFuture<'_, bool>;

    /// Frees slots, and says which tasks have ended, whoever holds them.
    fn release(&self, release: Release) -> StoreFuture<'_, ()>;

    /// How long an answer is waited for. What got none in that time may have been carried out, and its slots count as taken
    /// until they are freed. At least 10 ms, and at most 750 ms: what is less or more counts as that. It is asked once.
    /// Default: 100 ms.
    fn call_timeout(&self) -> Duration {
        TIMEOUT
    }
}

impl<S: SharedSlots + ?Sized> SharedSlots for Arc<S> {
    fn take(&self, ask: SlotRequest) -> StoreFuture<'_, SlotsTaken> {
        S::take(self, ask)
    }

    fn renew(&self, renewal: Renewal) -> StoreFuture<'_, Renewed> {
        S::renew(self, renewal)
    }

    fn bind(&self, binding: Binding) -> StoreFuture<'_, bool> {
        S::bind(self, binding)
    }

    fn release(&self, release: Release) -> StoreFuture<'_, ()> {
        S::release(self, release)
    }

    fn call_timeout(&self) -> Duration {
        S::call_timeout(self)
    }
}

/// What a slot is called in the store.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum SlotName {
    /// A slot of the process that asks, by a number that it gives no other: no task in it is known yet.
    Reserved(u64),
    /// The slot of this task, whoever started it.
    Task(Arc<str>),
}

/// What a process asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SlotRequest {
    /// The process that asks: a random number of its own, of at most 53 bits.
    pub process: u64,
    /// The first number to be given to a slot; others follow. At most 2⁵³.
    pub first: u64,
    /// How many slots it has use for.
    pub wanted: u32,
    /// How many tasks of all processes may run at once.
    pub capacity: u32,
    /// For how long each slot is kept, unless it is renewed.
    pub keep: Duration,
}

/// The slots that a process got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SlotsTaken {
    /// How many.
    pub granted: u32,
    /// When to ask for those that it did not get, from now on; 0 where it got all.
    pub wait: Duration,
    /// How it stands with all processes.
    pub standing: Standing,
}

/// How it stands with all processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Standing {
    /// Slots that are taken.
    pub taken: u32,
    /// Processes that were there lately.
    pub processes: u32,
}

/// What a process holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Renewal {
    /// As [`SlotRequest::process`].
    pub process: u64,
    /// Each slot, and for how long it is kept from now on. A task's is never kept for less than it was.
    pub held: Vec<(SlotName, Duration)>,
    /// Whether it keeps its place in the line.
    pub waits: bool,
    /// Whether nobody is to take a slot for six seconds: the store was away, and others may have started tasks that it has
    /// not heard of.
    pub hold: bool,
}

/// What a process is told of what it holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Renewed {
    /// Those of its tasks that somebody saw end.
    pub ended: Vec<Arc<str>>,
    /// How it stands with all processes.
    pub standing: Standing,
}

/// A task that was created.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Binding {
    /// As [`SlotRequest::process`].
    pub process: u64,
    /// The reserved slot.
    pub number: u64,
    /// The task in it.
    pub task: Arc<str>,
    /// For how long it is kept from now on, at least.
    pub keep: Duration,
}

impl Binding {
    /// The slot `number` of `process` is that of `task`, and kept for so long.
    #[must_use]
    pub fn new(process: u64, number: u64, task: impl Into<Arc<str>>, keep: Duration) -> Self {
        Self {
            process,
            number,
            task: task.into(),
            keep,
        }
    }
}

/// What is over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Release {
    /// As [`SlotRequest::process`].
    pub process: u64,
    /// Slots that are free.
    pub slots: Vec<SlotName>,
    /// Tasks that have ended: who holds one is told with its next renewal.
    pub ended: Vec<Arc<str>>,
    /// The process ends, and is not counted any more.
    pub leaves: bool,
}
