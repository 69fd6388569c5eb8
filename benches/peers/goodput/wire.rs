//! The way to a server of `network.rs`, as the clients see it: with a body, and with an outage if there is one.

use std::{
    ops::Range,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response, StatusCode};
use tokio::time::{Instant, sleep};
use tower::{BoxError, Service};

use super::network::Remote;

/// A client's own line to the server. Clones are the same line.
#[derive(Clone, Debug)]
pub(crate) struct Wire {
    remote: Remote,
    outage: Option<Outage>,
}

/// While it lasts, a gateway answers every request with a 503, and the server behind it sees none.
#[derive(Clone, Debug)]
pub(crate) struct Outage {
    pub(crate) from: Instant,
    pub(crate) to: Instant,
    /// When each attempt was sent, outage or not, and whether it was answered with a success.
    pub(crate) attempts: Arc<Mutex<Vec<Instant>>>,
}

/// How long the last attempt of a request was on its way: all the rest of its time it waited.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OnTheWay(pub(crate) Duration);

impl Wire {
    pub(crate) fn new(remote: Remote) -> Self {
        Self {
            remote,
            outage: None,
        }
    }

    pub(crate) fn with_outage(remote: Remote, outage: Outage) -> Self {
        Self {
            remote,
            outage: Some(outage),
        }
    }

    /// Whether an attempt that is sent at `now` meets the outage.
    fn fails(&self, now: Instant) -> bool {
        let Some(outage) = &self.outage else {
            return false;
        };
        outage.attempts.lock().unwrap().push(now);
        let lasts: Range<Instant> = outage.from..outage.to;
        lasts.contains(&now)
    }
}

/// There and back, in the middle of what `Delays::Far` draws.
const GATEWAY: Duration = Duration::from_millis(260);

impl Service<Request<()>> for Wire {
    type Response = Response<String>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<String>, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<()>) -> Self::Future {
        let sent = Instant::now();
        if self.fails(sent) {
            return Box::pin(async {
                sleep(GATEWAY).await;
                let mut response = Response::new(String::new());
                *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                Ok(response)
            });
        }
        let answer = self.remote.call(request);
        Box::pin(async move {
            let mut response = answer.await?.map(|()| String::new());
            let way = OnTheWay(Instant::now() - sent);
            response.extensions_mut().insert(way);
            Ok(response)
        })
    }
}
