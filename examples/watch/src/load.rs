//! A load that comes whether or not the server keeps up, as callers do.

use std::{collections::HashSet, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval},
};
use tower::{BoxError, Service, ServiceExt};

pub(crate) struct Load<S> {
    service: S,
    url: String,
}

/// What the callers got.
#[derive(Debug, Default)]
pub(crate) struct Answered {
    pub(crate) submitted: u64,
    /// The ids of the tasks that they were told of.
    pub(crate) tasks: HashSet<String>,
    /// Requests that ended otherwise.
    pub(crate) failed: u64,
}

impl<S, B> Load<S>
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>, Error = BoxError>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
    B: hyper::body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    pub(crate) const fn new(service: S, url: String) -> Self {
        Self { service, url }
    }

    /// Sends for as long as `lasts`, and waits for the last answers.
    pub(crate) async fn run(self, start: Instant, lasts: Duration) -> Answered {
        let mut answered = Answered::default();
        let mut calls = JoinSet::new();
        let places = Arc::new(Semaphore::new(MOST));
        let mut ticks = interval(GAP);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while Instant::now().saturating_duration_since(start) < lasts {
            ticks.tick().await;
            while let Some(call) = calls.try_join_next() {
                answered.note(call.ok().flatten());
            }
            let Ok(place) = places.clone().try_acquire_owned() else {
                continue;
            };
            answered.submitted += 1;
            let call = create(self.service.clone(), self.url.clone(), answered.submitted);
            calls.spawn(async move {
                let id = call.await.ok();
                drop(place);
                id
            });
        }
        while let Some(call) = calls.join_next().await {
            answered.note(call.ok().flatten());
        }
        answered
    }
}

impl Answered {
    fn note(&mut self, task: Option<String>) {
        match task {
            Some(id) => drop(self.tasks.insert(id)),
            None => self.failed += 1,
        }
    }
}

/// Creates a task whose prompt is like no other, so that one created twice can be told. Its id.
async fn create<S, B>(service: S, url: String, number: u64) -> Result<String, BoxError>
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>, Error = BoxError>,
    B: hyper::body::Body<Error: Into<BoxError>>,
{
    let body = json!({ "prompt": format!("Summarise invoice {number}") }).to_string();
    let request = Request::post(format!("{url}/v1/tasks"))
        .header("content-type", "application/json")
        .body(Full::from(body))?;
    let response = service.oneshot(request).await?;
    if !response.status().is_success() {
        return Err(response.status().to_string().into());
    }
    let body = response.into_body().collect().await.map_err(Into::into)?;
    let task: Value = serde_json::from_slice(&body.to_bytes())?;
    let id = task.get("id").and_then(Value::as_str);
    Ok(id.ok_or("a task without an id")?.to_owned())
}

/// Requests a second, of the 20 that the plan allows.
pub(crate) const RATE: u64 = 16;
const GAP: Duration = Duration::from_micros(1_000_000 / RATE);
/// Requests under way at once, the queue included.
const MOST: usize = 400;
