//! `Retry-After`: [RFC 9110, 10.2.3](https://www.rfc-editor.org/rfc/rfc9110#section-10.2.3); and its cousin in
//! milliseconds.

use std::time::Duration;

use http::{HeaderName, header::RETRY_AFTER};

use super::{
    answer::Answer,
    when::{self, When},
};

/// A wait that the server named, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hint {
    /// Longer than zero.
    pub(crate) wait: Duration,
    pub(crate) source: HintSource,
}

/// The header that named a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HintSource {
    Millis,
    Seconds,
    /// A date, or an epoch.
    Date,
    RateLimit,
    XRateLimitReset,
}

impl HintSource {
    /// What logs call it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Millis => "retry-after-ms",
            Self::Seconds => "retry-after",
            Self::Date => "retry-after date",
            Self::RateLimit => "ratelimit",
            Self::XRateLimitReset => "x-ratelimit-reset",
        }
    }
}

/// The wait by `Retry-After-Ms`: milliseconds, never an epoch. Of several, as below, the longest.
pub(super) fn retry_after_ms(answer: Answer<'_>) -> Option<Hint> {
    let waits = answer.texts(&RETRY_AFTER_MS).filter_map(|text| {
        let millis = when::seconds(text)?;
        answer.until(When::In(millis / 1000))
    });
    let wait = waits.max()?;
    Some(Hint {
        wait,
        source: HintSource::Millis,
    })
}

/// The wait by `Retry-After`. Beyond the RFC: fractions, and the epochs that some servers send.
/// Where a proxy adds one of its own, both ask, and the longest wait keeps to both.
pub(super) fn retry_after(answer: Answer<'_>) -> Option<Hint> {
    let hints = answer.texts(&RETRY_AFTER).filter_map(|text| {
        let when = answer.read(text)?;
        Some(Hint {
            wait: answer.until(when)?,
            source: match when {
                When::In(_) => HintSource::Seconds,
                When::At(_) => HintSource::Date,
            },
        })
    });
    hints.max_by_key(|hint| hint.wait)
}

const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");
