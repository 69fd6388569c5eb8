//! The server itself: what it does with an attempt, under one lock and at given times.

use std::{
    net::IpAddr,
    num::NonZeroU32,
    time::{Duration, SystemTime},
};

use {
    bytes::Bytes,
    http::{
        HeaderValue, Method, StatusCode, Uri,
        header::{CONTENT_TYPE, DATE},
        request::Parts,
    },
    tokio::time::Instant,
};

use super::{
    answer::{self, Answer, ErrorCode},
    fault::{Fault, Faults},
    keys::Keys,
    limit::{self, Limiter, Verdict},
    record::{Attempt, Outcome},
    replay::{self, KeyedRequest, Replays},
    tasks::{self, NewTask, Tasks},
};
use crate::headers::date::Wall;

/// On which answers the fake Ploton sends `X-RateLimit-Limit`, `-Remaining` and `-Reset`. Every 429 has `Retry-After`
/// whatever is chosen here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum RateHeaders {
    /// On every answer to a request that has a valid key.
    #[default]
    Always,
    /// On 429 only.
    OnRefusal,
    /// Never.
    Never,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) keys: Keys,
    pub(super) limiter: Option<Limiter>,
    pub(super) rate_headers: RateHeaders,
    pub(super) faults: Faults,
    pub(super) latency: Duration,
    pub(super) replay_errors: bool,
    pub(super) concurrent_tasks: Option<NonZeroU32>,
    pub(super) task_refusal: StatusCode,
    pub(super) task_duration: Option<Duration>,
    pub(super) wall: Wall,
    pub(super) attempts: Vec<Attempt>,
    pub(super) tasks: Tasks,
    replays: Replays,
}

/// What is known of an attempt when its head has arrived.
#[derive(Debug)]
pub(super) struct Arrival {
    /// Its place among the attempts.
    place: usize,
    credential: Option<usize>,
    pub(super) fault: Option<Fault>,
    /// What the rate limit says, `None` without one; an answer where the attempt goes no further.
    gate: Result<Option<Verdict>, Answer>,
}

impl State {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            keys: Keys::default(),
            limiter: None,
            rate_headers: RateHeaders::default(),
            faults: Faults::new(seed),
            latency: Duration::ZERO,
            replay_errors: false,
            concurrent_tasks: None,
            task_refusal: StatusCode::TOO_MANY_REQUESTS,
            task_duration: None,
            wall: Wall::anchored(),
            attempts: Vec::new(),
            tasks: Tasks::default(),
            replays: Replays::default(),
        }
    }

    /// Records the attempt, then looks at its fault, its key and the rate limit, in this order.
    pub(super) fn arrive(&mut self, head: &Parts, now: Instant) -> Arrival {
        let credential = self.keys.number(&head.headers);
        let key = head.headers.get("idempotency-key");
        let place = self.attempts.len();
        self.attempts.push(Attempt {
            method: head.method.clone(),
            path: head.uri.path().to_owned(),
            at: now,
            idempotency_key: key.map(|key| String::from_utf8_lossy(key.as_bytes()).into_owned()),
            authorized: credential.is_some(),
            credential,
            outcome: Outcome::Unanswered,
            created: None,
            replayed: false,
        });
        let fault = self.faults.draw();
        let gate = match fault {
            None | Some(Fault::Delay(_) | Fault::CutAfter | Fault::TruncatedBody) => {
                self.gate(head, now)
            }
            Some(Fault::Status(status)) => Err(Answer::failure(status)),
            Some(Fault::RateLimited { retry_after }) => Err(self.rate_limited(retry_after, now)),
            Some(Fault::Respond(status, ref headers)) => {
                let mut answer = Answer::failure(status);
                answer.headers.clone_from(headers);
                Err(answer)
            }
            // No answer will be asked for.
            Some(Fault::CutBefore | Fault::Hang) => Ok(None),
        };
        Arrival {
            place,
            credential,
            fault,
            gate,
        }
    }

    fn gate(&mut self, head: &Parts, now: Instant) -> Result<Option<Verdict>, Answer> {
        if in_the_clear(&head.uri) {
            return Err(Answer::error(
                ErrorCode::InvalidRequest,
                "plain HTTP is rejected",
            ));
        }
        self.keys.check(&head.headers, now)?;
        let verdict = self.limiter.as_mut().map(|limiter| limiter.check(now));
        match verdict {
            Some(verdict) if !verdict.allowed => {
                let answer = Answer::error(ErrorCode::RateLimitExceeded, "too many requests")
                    .retry_after(verdict.retry_after);
                Err(self.with_rate(answer, verdict))
            }
            verdict => Ok(verdict),
        }
    }

    /// Does the work, all of it or none, and records it. What the client sees of it is another matter.
    pub(super) fn work(
        &mut self,
        arrival: &Arrival,
        head: &Parts,
        body: Result<Bytes, Answer>,
        now: Instant,
    ) -> Answer {
        let mut answer = match (&arrival.gate, body) {
            (Err(refusal), body) => {
                if let (Some(Fault::Status(status)), true, Ok(body)) =
                    (&arrival.fault, self.replay_errors, body)
                {
                    self.store_failure(*status, refusal, arrival, head, body, now);
                }
                refusal.clone()
            }
            (Ok(_), Err(refusal)) => refusal,
            (Ok(_), Ok(body)) => self.route(arrival, head, &body, now),
        };
        if let Ok(Some(verdict)) = arrival.gate {
            answer = self.with_rate(answer, verdict);
        }
        if let (None, Some(date)) = (answer.headers.get(DATE), self.date(now)) {
            answer.headers.insert(DATE, date);
        }
        answer
    }

    pub(super) fn end(&mut self, arrival: &Arrival, outcome: Outcome) {
        if let Some(attempt) = self.attempts.get_mut(arrival.place) {
            attempt.outcome = outcome;
        }
    }

    fn route(&mut self, arrival: &Arrival, head: &Parts, body: &Bytes, now: Instant) -> Answer {
        if head.method != Method::POST {
            return self.endpoint(arrival, head, body, None, now);
        }
        let key = match replay::key(&head.headers) {
            Err(refusal) => return refusal,
            Ok(None) => return self.endpoint(arrival, head, body, None, now),
            Ok(Some(key)) => key,
        };
        let keyed = keyed(arrival, head, key);
        match self.replays.find(&keyed, body, now) {
            Some(Ok(stored)) => {
                if let Some(attempt) = self.attempts.get_mut(arrival.place) {
                    attempt.replayed = true;
                }
                let name = http::HeaderName::from_static("idempotent-replayed");
                stored.with(name, HeaderValue::from_static("true"))
            }
            Some(Err(refusal)) => refusal,
            None => {
                let answer = self.endpoint(arrival, head, body, Some(key), now);
                if answer.status.is_success() {
                    self.replays.store(keyed, body.clone(), answer.clone(), now);
                }
                answer
            }
        }
    }

    fn endpoint(
        &mut self,
        arrival: &Arrival,
        head: &Parts,
        body: &Bytes,
        key: Option<&str>,
        now: Instant,
    ) -> Answer {
        let path: Vec<&str> = head.uri.path().split('/').collect();
        match (head.method.as_str(), path.as_slice()) {
            ("POST", ["", "v1", "tasks"]) => self.create(arrival, head, body, key, now),
            ("GET", ["", "v1", "tasks"]) => self.tasks.list(head.uri.query(), now),
            ("GET", ["", "v1", "tasks", id]) => self.tasks.show(id, now),
            ("POST", ["", "v1", "tasks", id, "cancel"]) => self.tasks.cancel(id, now),
            _ => Answer::error_with(
                StatusCode::NOT_FOUND,
                ErrorCode::InvalidRequest,
                "no such endpoint",
            ),
        }
    }

    fn create(
        &mut self,
        arrival: &Arrival,
        head: &Parts,
        body: &[u8],
        key: Option<&str>,
        now: Instant,
    ) -> Answer {
        if head
            .headers
            .get(CONTENT_TYPE)
            .is_some_and(|kind| !is_json(kind))
        {
            return Answer::error(
                ErrorCode::InvalidRequest,
                "Content-Type must be application/json",
            );
        }
        let prompt = match tasks::prompt(body) {
            Ok(prompt) => prompt,
            Err(refusal) => return refusal,
        };
        if let Some(limit) = self.concurrent_tasks {
            // fits: at most as many tasks as `limit` run, and one more is never counted
            if self.tasks.running(now) >= limit.get() as usize {
                return self.too_many_tasks();
            }
        }
        let new = NewTask {
            prompt,
            idempotency_key: key.map(str::to_owned),
            duration: self.task_duration,
            date: iso8601(self.wall.at(now)),
        };
        let (id, answer) = self.tasks.create(new, now);
        if let Some(attempt) = self.attempts.get_mut(arrival.place) {
            attempt.created = Some(id);
        }
        answer
    }

    fn too_many_tasks(&self) -> Answer {
        if self.task_refusal != StatusCode::TOO_MANY_REQUESTS {
            return Answer::failure(self.task_refusal);
        }
        Answer::error(ErrorCode::RateLimitExceeded, "too many tasks are running")
            .retry_after(Duration::from_secs(1))
    }

    fn store_failure(
        &mut self,
        status: StatusCode,
        answer: &Answer,
        arrival: &Arrival,
        head: &Parts,
        body: Bytes,
        now: Instant,
    ) {
        if !status.is_server_error() || head.method != Method::POST {
            return;
        }
        if let Ok(Some(key)) = replay::key(&head.headers) {
            let keyed = keyed(arrival, head, key);
            self.replays.store(keyed, body, answer.clone(), now);
        }
    }

    /// The answer to [`Fault::RateLimited`].
    fn rate_limited(&self, retry_after: Option<Duration>, now: Instant) -> Answer {
        let answer = Answer::error(ErrorCode::RateLimitExceeded, "too many requests");
        let Some(wait) = retry_after else {
            return answer;
        };
        let whole = Duration::from_secs(answer::whole_seconds(wait));
        let limit = self.limiter.as_ref().map_or(100, Limiter::limit);
        let verdict = Verdict {
            allowed: false,
            limit,
            remaining: 0,
            reset: limit::later(now, whole),
            retry_after: wait,
        };
        self.with_rate(answer.retry_after(wait), verdict)
    }

    fn with_rate(&self, answer: Answer, verdict: Verdict) -> Answer {
        match self.rate_headers {
            RateHeaders::Always => {}
            RateHeaders::OnRefusal if !verdict.allowed => {}
            RateHeaders::OnRefusal | RateHeaders::Never => return answer,
        }
        let reset = epoch(self.wall.at(verdict.reset));
        answer
            .with(answer::LIMIT, verdict.limit)
            .with(answer::REMAINING, verdict.remaining)
            .with(answer::RESET, reset)
    }

    fn date(&self, now: Instant) -> Option<HeaderValue> {
        const YEAR_10_000: u64 = 253_402_300_800; // `httpdate` would panic
        let time = self.wall.at(now);
        if time < SystemTime::UNIX_EPOCH || epoch(time) >= YEAR_10_000 {
            return None;
        }
        HeaderValue::try_from(httpdate::fmt_http_date(time)).ok()
    }
}

fn keyed(arrival: &Arrival, head: &Parts, key: &str) -> KeyedRequest {
    KeyedRequest {
        credential: arrival.credential,
        path: head.uri.path().to_owned(),
        key: key.to_owned(),
    }
}

/// Whether a request came over plain HTTP to a host that is not this one.
fn in_the_clear(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default();
    let address: Option<IpAddr> = host.trim_matches(['[', ']']).parse().ok();
    let loopback = host == "localhost" || address.is_some_and(|address| address.is_loopback());
    uri.scheme() == Some(&http::uri::Scheme::HTTP) && !loopback
}

fn is_json(kind: &HeaderValue) -> bool {
    kind.to_str().is_ok_and(|kind| {
        let essence = kind.split(';').next().unwrap_or_default();
        essence.trim().eq_ignore_ascii_case("application/json")
    })
}

/// `2025-06-15T14:22:03Z`
fn iso8601(time: SystemTime) -> String {
    // What can be written has a year of four digits.
    let last = humantime::parse_rfc3339("9999-12-31T23:59:59Z").unwrap_or(time);
    humantime::format_rfc3339_seconds(time.clamp(SystemTime::UNIX_EPOCH, last)).to_string()
}

/// Whole seconds since 1970, rounded down, as servers do.
fn epoch(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_as_the_api_writes_them() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_749_997_323_999);
        assert_eq!(iso8601(time), "2025-06-15T14:22:03Z");
    }
}
