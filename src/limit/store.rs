//! Where processes that use one plan agree on who sends when.

use std::{error, fmt, pin::Pin, time::Duration};

use tower::BoxError;

/// A place that several processes reserve their tokens in.
///
/// All times go by the store's own clock, and come back as durations from its answer on, so the processes' clocks need not
/// agree. A call that fails or is dropped may have been carried out: its tokens count as spent.
pub trait SharedStore: fmt::Debug + Send + Sync + 'static {
    /// Reserves up to as many tokens as are asked for: each is an instant at which one request may leave.
    fn lease(&self, ask: LeaseRequest) -> StoreFuture<'_, Lease>;

    /// Lets nobody leave for so long, and one alone then: a server refused a request. A pause that lasts longer already is
    /// not shortened.
    fn pause(&self, pause: Pause) -> StoreFuture<'_, ()>;

    /// Gives the last tokens of a lease back, if nobody reserved any after them; else they are lost.
    fn give_back(&self, unused: Unused) -> StoreFuture<'_, ()>;
}

/// What a [`SharedStore`] answers, later.
pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// What a process asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeaseRequest {
    /// The process that asks: a random number of its own.
    pub process: u64,
    /// Tokens that it has use for.
    pub wanted: u32,
    /// Tokens that begin later than this are not reserved.
    pub max_wait: Duration,
    /// Between two tokens of all processes.
    pub interval: Duration,
    /// The highest theoretical arrival time that it was told, by the store's clock: what the store lost is known again.
    pub seen: Option<Tat>,
}

/// Tokens that are reserved for one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lease {
    /// How many; 0 where the next would begin after `max_wait`.
    pub granted: u32,
    /// When the first begins, from now on; the others follow in steps of the interval. With none: when to ask again.
    pub wait: Duration,
    /// Where the reservations of all processes end.
    pub tat: Tat,
    /// How long nobody may leave, from now on; zero without a pause.
    pub paused: Duration,
    /// Processes that asked lately, with this one.
    pub processes: u32,
}

/// A refusal by the server, which holds for all processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pause {
    /// How long it lasts, from now on.
    pub lasts: Duration,
    /// Between two tokens of all processes.
    pub interval: Duration,
    /// The highest theoretical arrival time that the process was told.
    pub seen: Option<Tat>,
}

/// Tokens that are given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unused {
    /// How many of the lease's last.
    pub tokens: u32,
    /// Between two tokens of all processes.
    pub interval: Duration,
    /// What the lease said: if it is not the store's any more, somebody reserved tokens after them.
    pub tat: Tat,
}

/// Theoretical arrival time: the instant from which on nothing is reserved yet, in µs by the store's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tat(pub u64);

/// A [`SharedStore`] gave no answer that could be used.
#[derive(Debug)]
pub struct StoreError {
    source: BoxError,
}

impl StoreError {
    /// Failed because of `source`.
    pub fn new(source: impl Into<BoxError>) -> Self {
        Self {
            source: source.into(),
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("shared store failed")
    }
}

impl error::Error for StoreError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        Some(self.source.as_ref())
    }
}
