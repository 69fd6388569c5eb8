//! What reached the server.

use std::collections::HashSet;

use {
    http::{Method, StatusCode},
    tokio::time::Instant,
};

use super::tasks::TaskRecord;

/// One attempt that reached the fake Ploton. It holds no API key.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Attempt {
    /// The request's method.
    pub method: Method,
    /// The request's path, without the query.
    pub path: String,
    /// When its head arrived.
    pub at: Instant,
    /// Its `Idempotency-Key`, if it had one.
    pub idempotency_key: Option<String>,
    /// Whether it had an `Authorization` header.
    pub authorized: bool,
    /// Which of the different `Authorization` values this fake has seen it had, counted from 0: two attempts with the
    /// same number had the same key.
    pub credential: Option<usize>,
    /// How it ended, so far.
    pub outcome: Outcome,
    /// The id of the task that it created.
    pub created: Option<String>,
    /// Whether its answer is that of an earlier request with the same idempotency key.
    pub replayed: bool,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// It has no answer: it is being served, hangs, or its client went away.
    Unanswered,
    /// It was answered in full with this status.
    Answered(StatusCode),
    /// The connection was cut before anything was done.
    CutBefore,
    /// The connection was cut after the work was done.
    CutAfter,
    /// The connection was cut within the answer's body.
    Truncated,
}

/// Sums over everything that reached the fake Ploton.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Attempts that arrived.
    pub attempts: u64,
    /// Tasks created.
    pub created: u64,
    /// Tasks whose prompt is that of an earlier task. Give each logical request a prompt of its own, and this counts the
    /// tasks that were created twice.
    pub duplicated: u64,
    /// Answers that were those of an earlier request with the same idempotency key.
    pub replayed: u64,
    /// 429s given.
    pub refused: u64,
    /// 5xx given.
    pub failed: u64,
    /// Connections cut: before the work, after it, or within the body.
    pub cut: u64,
    /// Attempts that have no answer yet, or never get one.
    pub unanswered: u64,
}

impl Counts {
    pub(super) fn of(attempts: &[Attempt], tasks: &[TaskRecord]) -> Self {
        let mut counts = Self::default();
        for attempt in attempts {
            counts.attempts += 1;
            counts.replayed += u64::from(attempt.replayed);
            match attempt.outcome {
                Outcome::Unanswered => counts.unanswered += 1,
                Outcome::Answered(StatusCode::TOO_MANY_REQUESTS) => counts.refused += 1,
                Outcome::Answered(status) => counts.failed += u64::from(status.is_server_error()),
                Outcome::CutBefore | Outcome::CutAfter | Outcome::Truncated => counts.cut += 1,
            }
        }
        let mut prompts = HashSet::new();
        for task in tasks {
            counts.created += 1;
            counts.duplicated += u64::from(!prompts.insert(&task.prompt));
        }
        counts
    }
}
