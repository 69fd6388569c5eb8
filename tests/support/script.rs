//! A server that answers as written down, and says when it was asked.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::{
    collections::VecDeque,
    future::{self, Ready},
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response};
use tokio::time::Instant;
use tower::{BoxError, Service};
use tower_ploton::retry::RetryHandle;

pub(crate) type Answer = Result<Response<String>, &'static str>;

#[derive(Clone, Debug)]
pub(crate) struct Script {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    answers: VecDeque<Answer>,
    arrivals: Vec<Instant>,
    quota: Vec<u32>,
    watched: Option<RetryHandle>,
}

impl Script {
    /// Answers in this order, and with an error from then on.
    pub(crate) fn new(answers: impl IntoIterator<Item = Response<String>>) -> Self {
        Self::of(answers.into_iter().map(Ok))
    }

    pub(crate) fn of(answers: impl IntoIterator<Item = Answer>) -> Self {
        Self {
            state: Arc::new(Mutex::new(State {
                answers: answers.into_iter().collect(),
                arrivals: Vec::new(),
                quota: Vec::new(),
                watched: None,
            })),
        }
    }

    /// Notes what is left of the quota whenever a request arrives.
    pub(crate) fn watching(self, handle: &RetryHandle) -> Self {
        self.state.lock().unwrap().watched = Some(handle.clone());
        self
    }

    pub(crate) fn arrivals(&self) -> Vec<Instant> {
        self.state.lock().unwrap().arrivals.clone()
    }

    pub(crate) fn quota_at_arrivals(&self) -> Vec<u32> {
        self.state.lock().unwrap().quota.clone()
    }

    /// The milliseconds between one arrival and the next.
    pub(crate) fn delays(&self) -> Vec<u64> {
        let between = |pair: &[Instant]| (pair[1] - pair[0]).as_millis().try_into().unwrap();
        self.arrivals().windows(2).map(between).collect()
    }
}

impl Service<Request<String>> for Script {
    type Response = Response<String>;
    type Error = BoxError;
    type Future = Ready<Result<Response<String>, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<String>) -> Self::Future {
        let mut state = self.state.lock().unwrap();
        state.arrivals.push(Instant::now());
        let left = state.watched.as_ref().map(RetryHandle::quota_left);
        state.quota.extend(left);
        let answer = state
            .answers
            .pop_front()
            .unwrap_or(Err("nothing more is written down"));
        future::ready(answer.map_err(Into::into))
    }
}

pub(crate) fn answer(status: u16) -> Response<String> {
    Response::builder()
        .status(status)
        .body(format!("answer {status}"))
        .unwrap()
}

/// A POST that may be repeated after an ambiguous outcome.
pub(crate) fn keyed_post() -> Request<String> {
    Request::post("https://api.ploton.ai/v1/tasks")
        .header("idempotency-key", "mine")
        .body("{}".to_owned())
        .unwrap()
}

pub(crate) const fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}
