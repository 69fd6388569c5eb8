//! Processes, and the server that they send to.

use std::{
    convert::Infallible,
    num::NonZeroU32,
    ops::Range,
    sync::{Arc, Mutex},
    time::Duration,
};

use http::{Request, Response};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use tower::{Layer, ServiceExt, service_fn, util::BoxCloneService};
use tower_ploton::{
    Plan, PlotonRateLimit,
    limit::{Outage, RateLimitHandle, SharedStore},
};

use crate::{
    servers::{Headers, Kind, Server},
    store::Remote,
};

pub(crate) type Remotely = BoxCloneService<Request<()>, Response<()>, Infallible>;

pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// The server, and what came to it.
#[derive(Clone, Debug)]
pub(crate) struct World(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    server: Server,
    n: u32,
    window: Duration,
    start: Instant,
    arrivals: Vec<Arrival>,
    random: SmallRng,
    refuses: u32,
    /// How long each way takes, in ms.
    ways: Range<u64>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    pub(crate) at: Instant,
    pub(crate) process: usize,
    pub(crate) allowed: bool,
}

/// A limiter, and those who send by it; dropped, it is gone.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) handle: RateLimitHandle,
    _workers: JoinSet<()>,
}

impl World {
    pub(crate) fn new(kind: Kind, n: u32, window: Duration) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            server: Server::new(kind, n, window, 3 * SECOND),
            n,
            window,
            start: Instant::now(),
            arrivals: Vec::new(),
            random: SmallRng::seed_from_u64(7),
            refuses: 0,
            ways: 2..25,
        })))
    }

    /// It takes as long as this to come to the server, and back, in ms.
    pub(crate) fn far(self, ways: Range<u64>) -> Self {
        self.0.lock().unwrap().ways = ways;
        self
    }

    /// Answers carry no rate headers.
    pub(crate) fn without_headers(self) -> Self {
        let mut inner = self.0.lock().unwrap();
        inner.server = inner.server.clone().headers(Headers::Never);
        drop(inner);
        self
    }

    /// The next request is refused, whatever is left.
    pub(crate) fn refuse_one(&self) {
        self.0.lock().unwrap().refuses += 1;
    }

    /// A request comes to the server.
    pub(crate) fn answer(&self, process: usize) -> Response<()> {
        let mut inner = self.0.lock().unwrap();
        let now = Instant::now();
        let shown = Duration::from_secs(1_800_000_000) + (now - inner.start);
        let mut reply = inner.server.arrive(shown);
        if inner.refuses > 0 {
            inner.refuses -= 1;
            reply.allowed = false;
        }
        inner.arrivals.push(Arrival {
            at: now,
            process,
            allowed: reply.allowed,
        });
        let status = if reply.allowed { 200 } else { 429 };
        let mut response = Response::builder().status(status);
        if let Some(said) = reply.said {
            response = response
                .header("x-ratelimit-limit", said.limit)
                .header("x-ratelimit-remaining", said.remaining)
                .header("x-ratelimit-reset", said.reset);
        }
        if !reply.allowed {
            response = response.header("retry-after", 3);
        }
        response.body(()).unwrap()
    }

    fn way(&self) -> Duration {
        let inner = &mut *self.0.lock().unwrap();
        let way = inner.random.random_range(inner.ways.clone());
        Duration::from_millis(way)
    }

    pub(crate) fn limit(&self, store: impl SharedStore) -> PlotonRateLimit {
        let inner = self.0.lock().unwrap();
        let plan = Plan::Enterprise {
            requests_per_minute: NonZeroU32::new(inner.n).unwrap(),
            concurrent_tasks: NonZeroU32::MIN,
        };
        PlotonRateLimit::new(plan)
            .window(inner.window)
            .shared(store)
    }

    /// `many` processes of several workers each, and the store as each of them reaches it.
    pub(crate) fn fleet(
        &self,
        many: usize,
        store: &Remote,
        outage: Outage,
    ) -> Vec<(Process, Remote)> {
        let process = |number| {
            let store = store.another();
            let limit = self.limit(store.clone()).on_outage(outage);
            let workers = if many > 10 { 4 } else { 16 };
            (self.process(number, workers, limit), store)
        };
        (0..many).map(process).collect()
    }

    /// The way to the server.
    pub(crate) fn remote(&self, number: usize) -> Remotely {
        let world = self.clone();
        BoxCloneService::new(service_fn(move |_: Request<()>| {
            let world = world.clone();
            async move {
                sleep(world.way()).await;
                let response = world.answer(number);
                sleep(world.way()).await;
                Ok(response)
            }
        }))
    }

    /// A process of `workers` that send one request after the other.
    pub(crate) fn process(&self, number: usize, workers: usize, limit: PlotonRateLimit) -> Process {
        let service = limit.layer(self.remote(number));
        let mut tasks = JoinSet::new();
        for _ in 0..workers {
            let service = service.clone();
            tasks.spawn(async move {
                loop {
                    let request = Request::get("/v1/tasks").body(()).unwrap();
                    drop(service.clone().oneshot(request).await);
                }
            });
        }
        Process {
            handle: limit.handle(),
            _workers: tasks,
        }
    }

    pub(crate) fn arrivals(&self) -> Vec<Arrival> {
        self.0.lock().unwrap().arrivals.clone()
    }

    pub(crate) fn refused(&self) -> usize {
        let inner = self.0.lock().unwrap();
        inner
            .arrivals
            .iter()
            .filter(|arrival| !arrival.allowed)
            .count()
    }

    /// Requests that arrived between two instants, by process.
    pub(crate) fn shares(&self, from: Instant, to: Instant, processes: usize) -> Vec<usize> {
        let mut shares = vec![0; processes];
        let arrivals = self.arrivals();
        for arrival in arrivals.iter().filter(|one| from <= one.at && one.at < to) {
            shares[arrival.process] += 1;
        }
        shares
    }

    /// What part of the plan arrived between two instants.
    pub(crate) fn used(&self, from: Instant, to: Instant) -> f64 {
        let arrivals = self.arrivals();
        let arrived = arrivals
            .iter()
            .filter(|one| from <= one.at && one.at < to)
            .count();
        let inner = self.0.lock().unwrap();
        let windows = (to - from).as_secs_f64() / inner.window.as_secs_f64();
        arrived as f64 / (windows * f64::from(inner.n))
    }

    /// The most that arrived in any window, wherever it begins.
    pub(crate) fn most_in_a_window(&self) -> usize {
        let window = self.0.lock().unwrap().window;
        let arrivals = self.arrivals();
        let mut first = 0;
        let mut most = 0;
        for (last, arrival) in arrivals.iter().enumerate() {
            while arrival.at - arrivals[first].at > window {
                first += 1;
            }
            most = most.max(last + 1 - first);
        }
        most
    }
}

/// The window of most tests.
pub(crate) const WINDOW: Duration = Duration::from_secs(10);
/// The plan of most tests, a window.
pub(crate) const N: u32 = 300;
