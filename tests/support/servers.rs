//! Servers that limit rates, as oracles: each model says what a real server of its kind would, given when a request
//! arrives. They know nothing of the crate under test.
//!
//! A refused request is not counted. Times are since 1970 by the server's own clock and must not go back.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::{collections::VecDeque, time::Duration};

/// How a server counts, and what its Reset says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// Windows follow one another on whole seconds. Reset is the window's end.
    Fixed,
    /// The same, with Reset from a time to live in rounded seconds: it flips between the end and a second before.
    FixedTtl,
    /// A window begins with the first request after the last one. Reset is its end, rounded up.
    AnchoredUp,
    /// The same, rounded down.
    AnchoredDown,
    /// At most N in any closed window. Reset is when the oldest leaves it.
    LogOldest,
    /// The same. Reset is a window from now.
    LogNow,
    /// Two aligned windows, the last one weighed by how much of it still counts, in whole requests rounded down.
    CounterFloored,
    /// The same, not rounded.
    CounterStrict,
    /// N tokens, N more in each window. Reset is when it is full.
    BucketFull,
    /// The same. Reset is when the next token comes.
    BucketNext,
    /// N/10 tokens, N more in each window; Limit is N/10. Reset is when it is full.
    SmallBucketFull,
    /// The same. Reset is when the next token comes.
    SmallBucketNext,
}

impl Kind {
    pub(crate) const ALL: [Self; 12] = [
        Self::Fixed,
        Self::FixedTtl,
        Self::AnchoredUp,
        Self::AnchoredDown,
        Self::LogOldest,
        Self::LogNow,
        Self::CounterFloored,
        Self::CounterStrict,
        Self::BucketFull,
        Self::BucketNext,
        Self::SmallBucketFull,
        Self::SmallBucketNext,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Fixed => "fixed",
            Self::FixedTtl => "fixed, ttl",
            Self::AnchoredUp => "anchored, up",
            Self::AnchoredDown => "anchored, down",
            Self::LogOldest => "log, oldest",
            Self::LogNow => "log, now",
            Self::CounterFloored => "counter, floored",
            Self::CounterStrict => "counter, strict",
            Self::BucketFull => "bucket N, full",
            Self::BucketNext => "bucket N, next",
            Self::SmallBucketFull => "bucket N/10, full",
            Self::SmallBucketNext => "bucket N/10, next",
        }
    }

    /// Whether the whole plan may be sent at the start of a window.
    pub(crate) const fn has_windows(self) -> bool {
        matches!(
            self,
            Self::Fixed | Self::FixedTtl | Self::AnchoredUp | Self::AnchoredDown
        )
    }
}

/// Which answers carry rate headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Headers {
    Always,
    OnRefusal,
    Never,
}

impl Headers {
    pub(crate) const ALL: [Self; 3] = [Self::Always, Self::OnRefusal, Self::Never];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Always => "all",
            Self::OnRefusal => "429 only",
            Self::Never => "never",
        }
    }
}

/// What the server says to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    /// `false` is a 429.
    pub(crate) allowed: bool,
    /// The `Date`, in whole seconds since 1970.
    pub(crate) date: u64,
    /// The rate headers, where this answer has them.
    pub(crate) said: Option<Said>,
}

/// The rate headers of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) limit: u32,
    pub(crate) remaining: u32,
    /// In whole seconds since 1970.
    pub(crate) reset: u64,
    /// In whole seconds, rounded up; `Some` on a 429.
    pub(crate) retry_after: Option<u64>,
}

/// One server that counts one key.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    kind: Kind,
    n: u32,
    window: Duration,
    headers: Headers,
    state: State,
}

#[derive(Clone, Debug)]
enum State {
    Windows {
        phase: Duration,
        end: Duration,
        used: u32,
    },
    Log(VecDeque<Duration>),
    Counter {
        phase: Duration,
        end: Duration,
        previous: u32,
        current: u32,
    },
    /// A token is as many units as the window has nanoseconds, and N units come each nanosecond: no rounding.
    Bucket {
        capacity: u32,
        units: u128,
        at: Duration,
    },
}

/// What a model decides, before it is put into headers.
struct Verdict {
    allowed: bool,
    limit: u32,
    remaining: u32,
    reset: u64,
    /// The time until a request would be allowed.
    wait: Duration,
}

impl Server {
    /// A server of `n` requests in each `window`, with headers on all answers. Aligned windows begin `phase`, in whole
    /// seconds, after 1970 and every window from there; the other kinds have no phase.
    pub(crate) fn new(kind: Kind, n: u32, window: Duration, phase: Duration) -> Self {
        let phase = Duration::from_secs(phase.as_secs());
        let state = match kind {
            Kind::Fixed | Kind::FixedTtl | Kind::AnchoredUp | Kind::AnchoredDown => {
                State::Windows {
                    phase,
                    end: Duration::ZERO,
                    used: 0,
                }
            }
            Kind::LogOldest | Kind::LogNow => State::Log(VecDeque::new()),
            Kind::CounterFloored | Kind::CounterStrict => State::Counter {
                phase,
                end: Duration::ZERO,
                previous: 0,
                current: 0,
            },
            Kind::BucketFull | Kind::BucketNext | Kind::SmallBucketFull | Kind::SmallBucketNext => {
                let small = matches!(kind, Kind::SmallBucketFull | Kind::SmallBucketNext);
                let capacity = if small { (n / 10).max(1) } else { n };
                State::Bucket {
                    capacity,
                    units: u128::from(capacity) * window.as_nanos(),
                    at: Duration::ZERO,
                }
            }
        };
        Self {
            kind,
            n,
            window,
            headers: Headers::Always,
            state,
        }
    }

    pub(crate) fn headers(mut self, headers: Headers) -> Self {
        self.headers = headers;
        self
    }

    /// A request arrives.
    pub(crate) fn arrive(&mut self, at: Duration) -> Reply {
        let verdict = self.decide(at);
        let shown = match self.headers {
            Headers::Always => true,
            Headers::OnRefusal => !verdict.allowed,
            Headers::Never => false,
        };
        let said = Said {
            limit: verdict.limit,
            remaining: verdict.remaining,
            reset: verdict.reset,
            retry_after: (!verdict.allowed).then(|| rounded_up(verdict.wait)),
        };
        Reply {
            allowed: verdict.allowed,
            date: at.as_secs(),
            said: shown.then_some(said),
        }
    }

    fn decide(&mut self, at: Duration) -> Verdict {
        let (kind, n, window) = (self.kind, self.n, self.window);
        match &mut self.state {
            State::Windows { phase, end, used } => {
                if at >= *end {
                    let aligned = matches!(kind, Kind::Fixed | Kind::FixedTtl);
                    *end = if aligned {
                        aligned_end(at, *phase, window)
                    } else {
                        at + window
                    };
                    *used = 0;
                }
                let allowed = *used < n;
                *used += u32::from(allowed);
                let left = *end - at;
                Verdict {
                    allowed,
                    limit: n,
                    remaining: n - *used,
                    reset: match kind {
                        Kind::FixedTtl => {
                            at.as_secs() + (left + Duration::from_millis(500)).as_secs()
                        }
                        Kind::AnchoredDown => end.as_secs(),
                        _ => rounded_up(*end),
                    },
                    wait: left,
                }
            }
            State::Log(log) => {
                while log.front().is_some_and(|&oldest| oldest + window < at) {
                    log.pop_front();
                }
                let allowed = log.len() < n as usize;
                if allowed {
                    log.push_back(at);
                }
                let end = log.front().map_or(at, |&oldest| oldest + window);
                Verdict {
                    allowed,
                    limit: n,
                    remaining: n - log.len() as u32,
                    reset: rounded_up(if kind == Kind::LogOldest {
                        end
                    } else {
                        at + window
                    }),
                    // Closed: the instant itself is too early.
                    wait: end + Duration::from_nanos(1) - at,
                }
            }
            State::Counter {
                phase,
                end,
                previous,
                current,
            } => {
                if at >= *end {
                    let followed = at < *end + window;
                    *previous = if followed { *current } else { 0 };
                    *current = 0;
                    *end = aligned_end(at, *phase, window);
                }
                let left = *end - at;
                let rounding = match kind {
                    Kind::CounterFloored => window.as_nanos() - 1,
                    _ => 0,
                };
                let full = u128::from(n) * window.as_nanos() + rounding;
                // In nanoseconds times requests: a request weighs a window.
                let weight = u128::from(*previous) * left.as_nanos();
                let used = |current: u32| weight + u128::from(current) * window.as_nanos();
                let allowed = used(*current + 1) <= full;
                *current += u32::from(allowed);
                let remaining = full.saturating_sub(used(*current)) / window.as_nanos();
                let too_much = used(*current + 1).saturating_sub(full);
                let room = full - window.as_nanos();
                // Where this window is full, some of it must have lost its weight in the next.
                let wait = if u128::from(*current) * window.as_nanos() > room {
                    left + window - nanoseconds(room / u128::from(*current))
                } else {
                    nanoseconds(too_much.div_ceil(u128::from(*previous).max(1)))
                };
                Verdict {
                    allowed,
                    limit: n,
                    remaining: remaining as u32,
                    reset: rounded_up(*end),
                    wait,
                }
            }
            State::Bucket {
                capacity,
                units,
                at: last,
            } => {
                let token = window.as_nanos();
                let full = u128::from(*capacity) * token;
                let gained = (at - *last).as_nanos() * u128::from(n);
                *units = full.min(*units + gained);
                *last = at;
                let allowed = *units >= token;
                if allowed {
                    *units -= token;
                }
                let after = |missing: u128| nanoseconds(missing.div_ceil(u128::from(n)));
                let until_full = after(full - *units);
                let until_next = after(token - *units % token);
                let next = matches!(kind, Kind::BucketNext | Kind::SmallBucketNext);
                Verdict {
                    allowed,
                    limit: *capacity,
                    remaining: (*units / token) as u32,
                    reset: rounded_up(at + if next { until_next } else { until_full }),
                    wait: until_next,
                }
            }
        }
    }
}

fn aligned_end(at: Duration, phase: Duration, window: Duration) -> Duration {
    let into = at.saturating_sub(phase).as_nanos() % window.as_nanos();
    at + window - nanoseconds(into)
}

fn rounded_up(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

fn nanoseconds(count: u128) -> Duration {
    Duration::from_nanos(count as u64)
}

/// A server's wall clock, which is wrong by `skew` seconds when a run starts and gains `drift` in a million.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    /// When the run starts, since 1970.
    pub(crate) start: Duration,
    pub(crate) skew: i64,
    pub(crate) drift: i64,
}

impl Clock {
    /// What the server's clock shows when `elapsed` has passed since the start of the run.
    pub(crate) fn at(&self, elapsed: Duration) -> Duration {
        let elapsed = elapsed.as_nanos() as i64;
        let gained = (i128::from(elapsed) * i128::from(self.drift) / 1_000_000) as i64;
        let shown = self.start.as_nanos() as i64 + self.skew * 1_000_000_000 + elapsed + gained;
        Duration::from_nanos(shown as u64)
    }
}

#[cfg(test)]
#[path = "servers_tests.rs"]
mod tests;
