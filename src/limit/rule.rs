//! What the limiter says of a request, and why.

use std::fmt;

use tokio::time::Instant;

/// Whether the next request may leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// This many may leave at once, now; at least 1.
    Now(u32),
    /// Held by a rule until an instant, or (`None`) until a request on its way ends.
    Later(Rule, Option<Instant>),
}

impl Verdict {
    /// When the next request may leave, as far as is known at `now`.
    pub(super) fn instant(self, now: Instant) -> Instant {
        match self {
            Self::Now(_) | Self::Later(_, None) => now,
            Self::Later(_, Some(until)) => until,
        }
    }
}

/// The rule that holds a request back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Rule {
    /// A 429, a 503 with a hint or the user paused all requests.
    Paused,
    /// One request finds out whether the server answers, or opens its next window.
    Probe,
    /// As many as the plan allows are on their way or were answered within the last window.
    Ring,
    /// Requests leave in even steps.
    Paced,
    /// Nothing is left of the server's window.
    Window,
    /// The last few of the server's window are kept for its first seconds, so that others who use the key can show
    /// themselves.
    Kept,
    /// Others use the key, and little is left.
    Shared,
    /// The shared store's next token begins later, or it gave none yet, or gives no answer.
    Store,
}

impl Rule {
    /// What metrics call it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Paused => "paused",
            Self::Probe => "probe",
            Self::Ring => "ring",
            Self::Paced => "paced",
            Self::Window => "window",
            Self::Kept => "kept",
            Self::Shared => "shared",
            Self::Store => "store",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Paused => "paused",
            Self::Probe => "probe out",
            Self::Ring => "ring",
            Self::Paced => "paced",
            Self::Window => "window used up",
            Self::Kept => "last of the window kept",
            Self::Shared => "shared with others",
            Self::Store => "shared store",
        })
    }
}

/// How a limiter goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Mode {
    /// Requests leave in even steps.
    Paced,
    /// The server counts in windows, and what is left of one may leave at once.
    Window,
    /// Others use the same key: requests leave in steps that are longer the less is left.
    Shared,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Paced => "paced",
            Self::Window => "window",
            Self::Shared => "shared",
        })
    }
}
