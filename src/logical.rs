//! What the layers tell each other, and the caller, about one logical request.

use std::{
    cell::Cell,
    fmt,
    num::NonZeroU32,
    sync::{Arc, OnceLock},
    time::Duration,
};

use http::Extensions;
use tokio::time::Instant;

use crate::idempotency_key::IdempotencyKey;

/// The instant after which a request is worth nothing: put it into the request's extensions, and it takes the place of
/// [`PlotonRetry::deadline`](crate::PlotonRetry::deadline), be it earlier or later.
///
/// # Example
///
/// ```
/// use std::time::Duration;
/// use http::Request;
/// use tokio::time::Instant;
/// use tower_ploton::Deadline;
///
/// let deadline = Deadline(Instant::now() + Duration::from_secs(20));
/// let request = Request::get("https://api.ploton.ai/v1/tasks").extension(deadline).body(())?;
/// # assert!(request.extensions().get::<Deadline>().is_some());
/// # Ok::<(), http::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(pub Instant);

/// How often a request is sent at the most, the first time included: put it into the request's extensions, and it takes
/// the place of [`PlotonRetry::attempts`](crate::PlotonRetry::attempts).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaxAttempts(pub NonZeroU32);

/// The story of a request that went wrong.
///
/// [`PlotonRetry`](crate::PlotonRetry) puts it into the extensions of every answer that is not 2xx, and its errors carry
/// it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempts {
    pub(crate) made: u32,
    pub(crate) elapsed: Duration,
    pub(crate) last_hint: Option<Duration>,
    pub(crate) idempotency_key: Option<IdempotencyKey>,
}

impl Attempts {
    /// How often the request was sent.
    #[must_use]
    pub const fn made(&self) -> u32 {
        self.made
    }

    /// The time from the call to the last outcome.
    #[must_use]
    pub const fn elapsed(&self) -> Duration {
        self.elapsed
    }

    /// The last wait that the server asked for, from when that answer came.
    #[must_use]
    pub const fn last_hint(&self) -> Option<Duration> {
        self.last_hint
    }

    /// The key that the attempts carried: with it the same request can be made again later, and is still the same.
    #[must_use]
    pub const fn idempotency_key(&self) -> Option<&IdempotencyKey> {
        self.idempotency_key.as_ref()
    }
}

/// "3 attempts in 2.1 s"
impl fmt::Display for Attempts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = if self.made == 1 { "" } else { "s" };
        let seconds = self.elapsed.as_secs_f64();
        write!(f, "{} attempt{s} in {seconds:.1} s", self.made)
    }
}

/// The API key that a 401 was given for is no longer the one in force: asked again, the request carries another.
///
/// [`PlotonAuth`](crate::PlotonAuth) puts it into the extensions of such an answer.
/// [`PlotonRetry`](crate::PlotonRetry) outside it then sends the request once more; another retry policy can look for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyRenewed(pub(crate) ());

/// The span field that shows the idempotency key.
pub(crate) const KEY_FIELD: &str = "ploton.idempotency_key";

/// What layers that stand in any order tell each other about one logical request. It is in the extensions of its
/// attempts, and only where there is something to tell: in those of a first attempt only where nobody gave it a key yet.
#[derive(Clone, Debug, Default)]
pub(crate) struct LogicalRequest {
    /// Shared by all attempts.
    key: Arc<OnceLock<IdempotencyKey>>,
    /// When the answer is worth nothing any more; `Some` where the retry layer sets a limit.
    pub(crate) deadline: Option<Instant>,
    /// When the attempt was sent that may have been processed. A server may know idempotency keys by their caller, and then
    /// only that attempt's API key makes a repetition the same request; `None` where no such attempt was made, or a 401
    /// came since.
    pub(crate) pinned: Option<Instant>,
}

impl LogicalRequest {
    /// The key that the first attempt was sent with.
    pub(crate) fn key(&self) -> Option<&IdempotencyKey> {
        self.key.get()
    }

    /// The key for all attempts: `make`'s, where none was sent yet.
    pub(crate) fn key_or(&self, make: impl FnOnce() -> IdempotencyKey) -> IdempotencyKey {
        self.key.get_or_init(make).clone()
    }

    /// When the answer to the request with these `extensions` is worth nothing any more, by the caller's word or that of a
    /// retry layer outside.
    pub(crate) fn deadline(extensions: &Extensions) -> Option<Instant> {
        let own = extensions.get::<Deadline>().map(|own| own.0);
        let retrys = Self::of(extensions).and_then(|logical| logical.deadline);
        own.into_iter().chain(retrys).min()
    }

    pub(crate) fn of(extensions: &Extensions) -> Option<&Self> {
        extensions.get()
    }

    pub(crate) fn get_or_insert(extensions: &mut Extensions) -> &mut Self {
        extensions.get_or_insert_with(Self::default)
    }
}

/// What a retry layer learns while it polls an attempt. A first attempt has no [`LogicalRequest`] to say so in; a thread
/// polls one thing at a time, and that costs nothing.
pub(crate) struct Watch {
    /// What the watch around this one knew.
    outer: Option<Seen>,
}

/// What was said of an attempt while it was polled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// When the API key was chosen, where that was not at the call. An attempt may wait between the two, and what repeats
    /// it needs the key that it was sent with.
    pub(crate) key_chosen: Option<Instant>,
    /// When the attempt ends at the latest; `Some` where a timer of its own sees to that.
    pub(crate) ends_by: Option<Instant>,
}

thread_local! {
    /// `None` where nobody watches.
    static SEEN: Cell<Option<Seen>> = const { Cell::new(None) };
}

impl Watch {
    /// Begins, and hides all that is done from a watch around it, until it is dropped.
    pub(crate) fn begin() -> Self {
        let outer = SEEN.replace(None);
        Self { outer }
    }

    /// What is said from now on is of an attempt that is polled.
    pub(crate) fn look(&self) {
        SEEN.set(Some(Seen::default()));
    }

    /// What was said since then.
    pub(crate) fn seen(&self) -> Seen {
        SEEN.take().unwrap_or_default()
    }

    /// Says that a key is chosen now.
    pub(crate) fn key_is_chosen() {
        if let Some(seen) = SEEN.get() {
            SEEN.set(Some(Seen {
                key_chosen: Some(Instant::now()),
                ..seen
            }));
        }
    }

    /// Says that the attempt, which waits, is woken and ends at this instant at the latest.
    pub(crate) fn ends_by(end: Instant) {
        if let Some(seen) = SEEN.get() {
            SEEN.set(Some(Seen {
                ends_by: Some(end),
                ..seen
            }));
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        SEEN.set(self.outer);
    }
}
