use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full};
use tokio::time::Sleep;
use tower::Service;

mod calls;
mod error_answers;
mod listings;
mod waits;

/// What a body does.
enum Step {
    Data(Bytes),
    Trailers,
    Wait(Duration),
    Break,
    /// The same bytes again and again.
    Endless(Bytes),
}

/// A body that does as it is told.
struct Scripted {
    steps: VecDeque<Step>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Scripted {
    fn new(steps: impl Into<VecDeque<Step>>) -> Self {
        Self {
            steps: steps.into(),
            sleep: None,
        }
    }

    fn whole(text: impl AsRef<[u8]>) -> Self {
        Self::new([Step::Data(Bytes::copy_from_slice(text.as_ref()))])
    }
}

impl Body for Scripted {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        loop {
            if let Some(sleep) = &mut self.sleep {
                ready!(sleep.as_mut().poll(cx));
                self.sleep = None;
            }
            return Poll::Ready(match self.steps.pop_front() {
                Some(Step::Data(data)) => Some(Ok(Frame::data(data))),
                Some(Step::Trailers) => Some(Ok(Frame::trailers(HeaderMap::new()))),
                Some(Step::Wait(time)) => {
                    self.sleep = Some(Box::pin(tokio::time::sleep(time)));
                    continue;
                }
                Some(Step::Break) => Some(Err(io::Error::other("cut"))),
                Some(Step::Endless(data)) => {
                    self.steps.push_front(Step::Endless(data.clone()));
                    Some(Ok(Frame::data(data)))
                }
                None => None,
            });
        }
    }
}

/// A request that arrived.
#[derive(Clone, Debug)]
struct Arrived {
    method: String,
    uri: String,
    headers: HeaderMap,
    body: Bytes,
}

/// Answers the n-th request as `answer` says, and keeps what arrived.
#[derive(Clone)]
struct Server {
    answer: Arc<dyn Fn(usize, &Arrived) -> Response<Scripted> + Send + Sync>,
    arrived: Arc<Mutex<Vec<Arrived>>>,
}

impl Server {
    fn new(answer: impl Fn(usize, &Arrived) -> Response<Scripted> + Send + Sync + 'static) -> Self {
        Self {
            answer: Arc::new(answer),
            arrived: Arc::default(),
        }
    }

    /// Answers with these bodies in turn, each with this status.
    fn scripted(status: u16, bodies: Vec<Scripted>) -> Self {
        let bodies = Mutex::new(VecDeque::from(bodies));
        Self::new(move |_, _| answer(status, bodies.lock().unwrap().pop_front().unwrap()))
    }

    fn arrived(&self) -> Vec<Arrived> {
        self.arrived.lock().unwrap().clone()
    }
}

impl Service<Request<Full<Bytes>>> for Server {
    type Response = Response<Scripted>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Response<Scripted>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Full<Bytes>>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let arrived = Arrived {
                method: head.method.to_string(),
                uri: head.uri.to_string(),
                headers: head.headers,
                body: body.collect().await.unwrap().to_bytes(),
            };
            let number = {
                let mut all = this.arrived.lock().unwrap();
                all.push(arrived.clone());
                all.len()
            };
            Ok((this.answer)(number, &arrived))
        })
    }
}

fn answer(status: u16, body: Scripted) -> Response<Scripted> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

const TASK: &str =
    r#"{"id":"task_8xK2mP","status":"running","tool":"crm","created_at":"2025-06-15T14:22:00Z"}"#;
