//! Where processes that use one plan agree on who sends when.

use std::{fmt, sync::Arc, time::Duration};

use crate::store::TIMEOUT;
pub use crate::store::{StoreError, StoreFuture};

/// A place that several processes reserve their tokens in.
///
/// All instants go by the store's own clock, so the processes' clocks need not agree. A call that fails or is dropped may
/// have been carried out: its tokens count as spent. [`MemoryStore`](super::MemoryStore) is one within a process.
pub trait SharedStore: fmt::Debug + Send + Sync + 'static {
    /// Reserves up to as many tokens as are asked for: each is an instant from which on one request may leave.
    ///
    /// What comes too late is not reserved. The process is told when to come back then, and has a turn in a line, so that
    /// it need not ask again and again, and whoever came first is first.
    fn lease(&self, ask: LeaseRequest) -> StoreFuture<'_, Lease>;

    /// Lets nobody leave for so long, then one alone, and the others when its answer should have come: a server refused a
    /// request. A pause that lasts longer already is not shortened.
    fn pause(&self, pause: Pause) -> StoreFuture<'_, ()>;

    /// Gives the last tokens of a lease back, if nobody reserved any after them; else they are lost.
    fn give_back(&self, unused: Unused) -> StoreFuture<'_, ()>;

    /// How long an answer is waited for. What got none in that time may have been carried out, and its tokens count as spent.
    /// At least 10 ms, and at most 750 ms: what is less or more counts as that. It is asked once. Default: 100 ms.
    fn call_timeout(&self) -> Duration {
        TIMEOUT
    }
}

impl<S: SharedStore + ?Sized> SharedStore for Arc<S> {
    fn lease(&self, ask: LeaseRequest) -> StoreFuture<'_, Lease> {
        S::lease(self, ask)
    }

    fn pause(&self, pause: Pause) -> StoreFuture<'_, ()> {
        S::pause(self, pause)
    }

    fn give_back(&self, unused: Unused) -> StoreFuture<'_, ()> {
        S::give_back(self, unused)
    }

    fn call_timeout(&self) -> Duration {
        S::call_timeout(self)
    }
}

/// What a process asks for. With none wanted it only shows that it is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeaseRequest {
    /// The process that asks: a random number of its own, of at most 53 bits.
    pub process: u64,
    /// Tokens that it has use for.
    pub wanted: u32,
    /// Tokens that begin later than this are not reserved.
    pub max_wait: Duration,
    /// Between two tokens of all processes.
    pub interval: Duration,
    /// How long what is stored is kept after it is of use.
    pub keep: Duration,
    /// The turn that it was told last, and did not get a token for yet.
    pub turn: Option<Turn>,
    /// What it was told before: so the store knows again what it lost.
    pub seen: Seen,
    /// No token begins before so long from now: the store was away, and others may not know yet that it is back.
    pub hold: Duration,
    /// What the server said of its window; `Some` where that is news.
    pub window: Option<WindowSeen>,
    /// The server does not count in windows as it seemed to, or others use the key: nothing leaves at once any more.
    pub doubts: bool,
}

/// What an answer of the server told of its window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WindowSeen {
    /// Its Reset, since 1970 by the server's clock: the window's name.
    pub reset: Duration,
    /// How long windows are.
    pub length: Duration,
    /// What was left of it.
    pub remaining: u32,
    /// When the request left that was answered so, by the store's clock, or before that. An instant, since the call may come
    /// late, or long after it was given up.
    pub sent: StoreTime,
    /// From now on it surely ends within this time.
    pub ends: Duration,
    /// Remaining rose as it can only where a window begins: the server counts in windows.
    pub proved: bool,
}

/// Tokens that are reserved for one process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lease {
    /// How many.
    pub granted: u32,
    /// When the first begins, from now on; the others follow in steps of the interval. With none: when to ask again.
    pub wait: Duration,
    /// Where its turn is; `Some` if none was granted.
    pub turn: Option<Turn>,
    /// What the store's clock shows.
    pub now: StoreTime,
    /// Where the reservations of all processes end, and a pause does.
    pub seen: Seen,
    /// Processes that are there, with this one.
    pub processes: u32,
    /// All of its tokens begin at once: they are some that an even pace could not use before the server's window ends.
    pub at_once: bool,
    /// The server counts in windows, as far as the store was told: whoever sees that it does not is to say so.
    pub windows: bool,
}

/// What a store says that holds for all processes, and that it is told again by each, in case that it lost it: it believes
/// what is latest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Seen {
    /// The theoretical arrival time: from this instant on nothing is reserved.
    pub tat: StoreTime,
    /// When a pause ends, or did; 0 if there was none.
    pub paused_until: StoreTime,
}

impl Seen {
    /// What `self` and `other` say together.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self {
            tat: self.tat.max(other.tat),
            paused_until: self.paused_until.max(other.paused_until),
        }
    }
}

/// A place in the line of those whose tokens would begin too late to be reserved. Only the store knows what it means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Turn {
    /// When its token would begin.
    pub at: StoreTime,
    /// By how much all turns had been put off until then, in µs: what was added since is added to this one.
    pub put_off: u64,
}

/// A refusal by the server, which holds for all processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pause {
    /// How long it lasts, from now on.
    pub lasts: Duration,
    /// As [`LeaseRequest::interval`].
    pub interval: Duration,
    /// As [`LeaseRequest::max_wait`].
    pub max_wait: Duration,
    /// As [`LeaseRequest::keep`].
    pub keep: Duration,
    /// As [`LeaseRequest::seen`].
    pub seen: Seen,
}

/// Tokens that are given back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unused {
    /// The process that had them.
    pub process: u64,
    /// How many of the lease's last.
    pub tokens: u32,
    /// Between two tokens of the lease.
    pub interval: Duration,
    /// What the lease said: if it is not the store's any more, somebody reserved tokens after them.
    pub tat: StoreTime,
    /// The process ends, and is not counted any more.
    pub leaves: bool,
}

/// An instant by the store's own clock, in µs since some beginning; below 2⁵³, so that a store may count in floating-point
/// numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreTime(pub u64);
