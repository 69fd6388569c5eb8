//! What the server says in its headers: pure parsing, given the time.

mod answer;
pub(crate) mod date;
mod few;
mod ietf;
pub(crate) mod rate_limit;
pub(crate) mod retry_after;
pub(crate) mod when;

#[cfg(any(test, fuzzing))]
pub(crate) mod check;
#[cfg(test)]
mod tests;

use http::{HeaderMap, StatusCode};
use tokio::time::Instant;

pub(crate) use self::answer::Undated;
use self::{
    answer::Answer,
    date::Wall,
    retry_after::{Hint, HintSource},
};

/// The wait that an answer received at `now` asks for by `Retry-After`, or its cousin in milliseconds.
pub(crate) fn retry_after(headers: &HeaderMap, wall: &Wall, now: Instant) -> Option<Hint> {
    let answer = Answer::new(headers, wall, now);
    retry_after::retry_after_ms(answer).or_else(|| retry_after::retry_after(answer))
}

/// The wait that an answer received at `now` asks for.
///
/// The first of these that names one: `Retry-After-Ms`, `Retry-After`, `RateLimit` in the words of any draft,
/// `X-RateLimit-Reset`. The last two stand on every answer of some servers, so they count only where the answer is a 429
/// or says that nothing is left. A header that is zero, past or unreadable says nothing, and the next is asked. So does one
/// of a limit that is repeated; of several `Retry-After`, or several `Retry-After-Ms`, the longest counts.
/// A 2xx asks for no wait: some servers send `Retry-After` with each.
pub(crate) fn hint(
    status: StatusCode,
    headers: &HeaderMap,
    wall: &Wall,
    now: Instant,
) -> Option<Hint> {
    if status.is_success() {
        return None;
    }
    let refused = status == StatusCode::TOO_MANY_REQUESTS;
    wait(Answer::new(headers, wall, now), refused)
}

/// The wait that a 429 received at `now` asks for, like [`hint`], for who knows more of the server's clock.
pub(crate) fn refusal(
    headers: &HeaderMap,
    wall: &Wall,
    now: Instant,
    undated: Undated,
) -> Option<Hint> {
    let mut answer = Answer::new(headers, wall, now);
    answer.undated = Some(undated);
    wait(answer, true)
}

fn wait(answer: Answer<'_>, refused: bool) -> Option<Hint> {
    let reset = |source| move |wait| Hint { wait, source };
    retry_after(answer.headers, answer.wall, answer.now)
        .or_else(|| ietf::wait(answer, refused).map(reset(HintSource::RateLimit)))
        .or_else(|| rate_limit::wait(answer, refused).map(reset(HintSource::XRateLimitReset)))
}
