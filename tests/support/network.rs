//! A network with one of the servers of `servers.rs` at its other end: an inner service in virtual time.
//!
//! A request arrives at its own instant, whatever tokio's timers round to, and also where its caller gave up.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    io,
    ops::RangeInclusive,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use http::{HeaderName, HeaderValue, Request, Response, StatusCode, header};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::time::{Instant, sleep_until};
use tower::Service;

use super::servers::{Clock, Headers, Kind, Reply, Server};

pub(crate) const WINDOW: Duration = Duration::from_secs(60);

/// A server and the way to it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct World {
    pub(crate) kind: Kind,
    pub(crate) headers: Headers,
    pub(crate) n: u32,
    pub(crate) delays: Delays,
    /// By how many seconds the server's clock is off.
    pub(crate) skew: i64,
    /// How many millionths too fast the server's clock is.
    pub(crate) drift: i64,
    /// 1 % of the requests end in a cut connection, half of them before they arrived; 1 % of the answers come from a
    /// gateway without headers.
    pub(crate) faults: bool,
    pub(crate) seed: u64,
}

/// How long a request is on its way, and an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delays {
    Near,
    Far,
    /// As far, and one in a hundred takes a second more.
    Uneven,
}

impl Delays {
    pub(crate) const ALL: [Self; 3] = [Self::Near, Self::Far, Self::Uneven];

    fn draw(self, random: &mut StdRng) -> Duration {
        let micros: RangeInclusive<u64> = match self {
            Self::Near => 500..=20_000,
            Self::Far | Self::Uneven => 10_000..=250_000,
        };
        let late = self == Self::Uneven && random.random_bool(0.01);
        Duration::from_micros(random.random_range(micros)) + Duration::from_secs(late.into())
    }
}

/// The service of one client; clones are the same client.
#[derive(Clone, Debug)]
pub(crate) struct Remote {
    network: Arc<Mutex<Network>>,
    client: usize,
}

/// What the server did for one client.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) allowed: u32,
    pub(crate) refused: u32,
    /// Of the refused, those that were sent after the client had an answer with headers.
    pub(crate) refused_though_told: u32,
    told: bool,
}

#[derive(Debug)]
struct Network {
    faults: bool,
    delays: Delays,
    started: Instant,
    clock: Clock,
    server: Server,
    random: StdRng,
    next: u64,
    /// The earliest first.
    underway: BinaryHeap<Reverse<Trip>>,
    replies: HashMap<u64, Reply>,
    tallies: Vec<Tally>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Trip {
    arrives: Instant,
    id: u64,
    client: usize,
    told: bool,
    returns: Instant,
    fault: Option<Fault>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    CutBefore,
    CutAfter,
    Gateway,
}

impl Tally {
    pub(crate) const fn sent(&self) -> u32 {
        self.allowed + self.refused
    }
}

impl World {
    /// The service of the first client, from now on.
    pub(crate) fn begin(self) -> Remote {
        let mut random = StdRng::seed_from_u64(self.seed);
        let start = today() + Duration::from_micros(random.random_range(0..1_000_000));
        let phase = today() - Duration::from_secs(random.random_range(0..60) + 24 * 60 * 60);
        let network = Network {
            faults: self.faults,
            delays: self.delays,
            started: Instant::now(),
            clock: Clock {
                start,
                skew: self.skew,
                drift: self.drift,
            },
            server: Server::new(self.kind, self.n, WINDOW, phase).headers(self.headers),
            random,
            next: 0,
            underway: BinaryHeap::new(),
            replies: HashMap::new(),
            tallies: vec![Tally::default()],
        };
        Remote {
            network: Arc::new(Mutex::new(network)),
            client: 0,
        }
    }
}

/// The limiter has no other wall clock than the real one, so that the server's has to be off against that.
#[allow(clippy::disallowed_methods, reason = "the limiter reads it too")]
fn today() -> Duration {
    let wall = SystemTime::UNIX_EPOCH.elapsed().unwrap();
    Duration::from_secs(wall.as_secs())
}

impl Remote {
    /// The service of one more client of the same key.
    pub(crate) fn another_client(&self) -> Self {
        let mut network = self.lock();
        network.tallies.push(Tally::default());
        Self {
            network: self.network.clone(),
            client: network.tallies.len() - 1,
        }
    }

    /// What the server has done so far for this client.
    pub(crate) fn tally(&self) -> Tally {
        let mut network = self.lock();
        network.arrive();
        network.tallies[self.client]
    }

    /// As many requests as `count` arrive now from somebody else.
    pub(crate) fn used_by_others(&self, count: u32) {
        let mut network = self.lock();
        let at = network.clock.at(Instant::now() - network.started);
        for _ in 0..count {
            network.server.arrive(at);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Network> {
        self.network.lock().unwrap()
    }
}

impl Network {
    fn send(&mut self, client: usize) -> Trip {
        let now = Instant::now();
        let arrives = now + self.delays.draw(&mut self.random);
        let fault = match self.faults.then(|| self.random.random_range(0..200)) {
            Some(0) => Some(Fault::CutBefore),
            Some(1) => Some(Fault::CutAfter),
            Some(2 | 3) => Some(Fault::Gateway),
            _ => None,
        };
        let trip = Trip {
            arrives,
            id: self.next,
            client,
            told: self.tallies[client].told,
            returns: arrives + self.delays.draw(&mut self.random),
            fault,
        };
        self.next += 1;
        if fault != Some(Fault::CutBefore) {
            self.underway.push(Reverse(trip));
        }
        trip
    }

    /// Lets the server answer what has arrived by now. Nothing that is sent later arrives earlier.
    fn arrive(&mut self) {
        let now = Instant::now();
        while let Some(&Reverse(trip)) = self.underway.peek() {
            if trip.arrives > now {
                return;
            }
            self.underway.pop();
            let reply = self
                .server
                .arrive(self.clock.at(trip.arrives - self.started));
            let tally = &mut self.tallies[trip.client];
            tally.allowed += u32::from(reply.allowed);
            tally.refused += u32::from(!reply.allowed);
            tally.refused_though_told += u32::from(!reply.allowed && trip.told);
            self.replies.insert(trip.id, reply);
        }
    }

    fn answer(&mut self, trip: Trip) -> io::Result<Response<()>> {
        self.arrive();
        if matches!(trip.fault, Some(Fault::CutBefore | Fault::CutAfter)) {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let reply = self.replies.remove(&trip.id).unwrap();
        if trip.fault == Some(Fault::Gateway) {
            let mut response = Response::new(());
            *response.status_mut() = StatusCode::BAD_GATEWAY;
            return Ok(response);
        }
        self.tallies[trip.client].told |= reply.said.is_some();
        Ok(response(&reply))
    }
}

fn response(reply: &Reply) -> Response<()> {
    let mut response = Response::new(());
    if !reply.allowed {
        *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
    }
    let headers = response.headers_mut();
    let date = SystemTime::UNIX_EPOCH + Duration::from_secs(reply.date);
    let date = HeaderValue::try_from(httpdate::fmt_http_date(date)).unwrap();
    headers.insert(header::DATE, date);
    if let Some(said) = reply.said {
        headers.insert(LIMIT, said.limit.into());
        headers.insert(REMAINING, said.remaining.into());
        headers.insert(RESET, said.reset.into());
        if let Some(seconds) = said.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
    }
    response
}

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

impl Service<Request<()>> for Remote {
    type Response = Response<()>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Response<()>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<()>) -> Self::Future {
        let trip = self.lock().send(self.client);
        let network = self.network.clone();
        let ends = match trip.fault {
            Some(Fault::CutBefore | Fault::CutAfter) => trip.arrives,
            _ => trip.returns,
        };
        Box::pin(async move {
            sleep_until(ends).await;
            network.lock().unwrap().answer(trip)
        })
    }
}
