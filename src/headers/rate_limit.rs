//! What a server says of its rate limit: `X-RateLimit-*`, as the Ploton API sends it, and the IETF's `RateLimit`.

use std::time::Duration;

use http::{HeaderMap, HeaderName};
use tokio::time::Instant;

use super::{
    answer::Answer,
    date::Wall,
    ietf,
    when::{self, When, digits},
};

/// What an answer says of its limit, whole and without contradiction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Said {
    /// Requests in a window, above 0.
    pub(crate) limit: u32,
    /// At most `limit`.
    pub(crate) remaining: u32,
    /// When more will be left; it may be now.
    pub(crate) reset: When,
    /// The window's length, above zero, where a policy says it plainly.
    pub(crate) window: Option<Duration>,
    /// When the server wrote the answer, since 1970 by its own clock.
    pub(crate) date: Option<Duration>,
}

impl Said {
    /// `None` where no limiter could say so.
    pub(super) fn new(
        limit: u32,
        remaining: u32,
        reset: When,
        window: Option<Duration>,
    ) -> Option<Self> {
        (limit > 0 && remaining <= limit).then_some(Self {
            limit,
            remaining,
            reset,
            window,
            date: None,
        })
    }
}

/// What an answer received at `now` says of its rate limit.
///
/// Odd headers say nothing: repeated, missing or unreadable ones, more left than the limit, a limit of 0. Where the
/// `X-` headers and `RateLimit` both speak, they must agree on limit and remaining.
pub(crate) fn said(headers: &HeaderMap, wall: &Wall, now: Instant) -> Option<Said> {
    let answer = Answer::new(headers, wall, now);
    let speaks = ietf::speaks(answer);
    let ietf = if speaks { ietf::said(answer) } else { None };
    let said = match (x_rate_limit(answer, speaks), ietf) {
        (Some(x), Some(ietf)) => {
            let agree = x.limit == ietf.limit && x.remaining == ietf.remaining;
            agree.then_some(Said {
                window: x.window.or(ietf.window),
                ..x
            })
        }
        (x, ietf) => x.or(ietf),
    }?;
    Some(Said {
        date: answer.date(),
        ..said
    })
}

/// `policies`: the answer may carry some in the IETF's words.
fn x_rate_limit(answer: Answer<'_>, policies: bool) -> Option<Said> {
    let (limit, window) = ietf::limit_and_window(answer.text(&LIMIT)?)?;
    let remaining = answer.text(&REMAINING)?;
    let reset = answer.when(&RESET)?;
    let window = match window {
        None if policies => ietf::window(answer, limit),
        window => window,
    };
    Said::new(limit, digits(remaining)?, reset, window)
}

/// The wait until `X-RateLimit-Reset`, which counts after a refusal or where nothing is left.
pub(super) fn wait(answer: Answer<'_>, refused: bool) -> Option<Duration> {
    let used_up = || {
        let remaining = answer.text(&REMAINING).and_then(when::seconds);
        remaining == Some(Duration::ZERO)
    };
    if !refused && !used_up() {
        return None;
    }
    answer.until_reset(answer.when(&RESET)?)
}

static LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
static REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
static RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
