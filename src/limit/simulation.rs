//! The bucket against model servers, in virtual time and without a runtime: events in the order of their time.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, VecDeque},
    num::NonZeroU32,
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::SmallRng};
use tokio::time::Instant;

use super::{
    bucket::{Bucket, Sent},
    rule::{Mode, Verdict},
    said::Said,
};

#[path = "../../tests/support/servers.rs"]
mod servers;
#[path = "simulation_tests.rs"]
mod tests;

use self::servers::{Clock, Headers, Kind, Reply, Server};

/// How long a request or an answer is on its way.
#[derive(Clone, Copy, Debug)]
enum Network {
    /// 0.5 to 20 ms.
    Near,
    /// 10 to 250 ms.
    Far,
    /// As near, but one in a hundred takes a second more.
    Spikes,
}

impl Network {
    fn delay(self, random: &mut SmallRng) -> Duration {
        let (micros, spike) = match self {
            Self::Near => (500..20_000, 0),
            Self::Far => (10_000..250_000, 0),
            Self::Spikes => (500..20_000, 100),
        };
        let more = if spike > 0 && random.random_range(0..spike) == 0 {
            SECOND
        } else {
            Duration::ZERO
        };
        Duration::from_micros(random.random_range(micros)) + more
    }
}

/// When requests come.
#[derive(Clone, Copy, Debug)]
enum Load {
    /// Always more than may leave.
    Saturated,
    /// Groups of up to this many at once, so that this percentage of the plan is used.
    Groups { most: u32, percent: u32 },
}

/// One run.
#[derive(Clone, Copy, Debug)]
struct Case {
    kind: Kind,
    headers: Headers,
    n: u32,
    window: Duration,
    network: Network,
    load: Load,
    clients: usize,
    length: Duration,
    skew: i64,
    drift: i64,
    /// One in so many requests is dropped before its answer comes, and one answer in so many has no headers.
    faults: Option<u32>,
    /// When the first client is restarted: what it knew is gone.
    restart: Option<Duration>,
    /// How many are used by somebody before the run begins.
    used_before: u32,
    seed: u64,
}

impl Case {
    fn new(kind: Kind, headers: Headers, n: u32) -> Self {
        Self {
            kind,
            headers,
            n,
            window: 60 * SECOND,
            network: Network::Near,
            load: Load::Saturated,
            clients: 1,
            length: 1_200 * SECOND,
            skew: 0,
            drift: 0,
            faults: None,
            restart: None,
            used_before: 0,
            seed: 1,
        }
    }

    fn run(self) -> Outcome {
        World::new(self).run()
    }
}

/// What came of a run.
#[derive(Debug, Default)]
struct Outcome {
    sent: u64,
    allowed: u64,
    refused: u64,
    /// When the server refused a request.
    refusals: Vec<Duration>,
    /// What each client was allowed.
    shares: Vec<u64>,
    waited: Duration,
    came: u64,
    /// In which window mode the first client was at the end, and for how long since the beginning.
    mode: Option<Mode>,
    time_in_window_mode: Duration,
    /// Events at which nothing happened.
    idle_wakes: u64,
}

impl Outcome {
    /// In thousandths of what the plan allows in the time.
    fn used(&self, case: Case) -> f64 {
        let windows = case.length.as_secs_f64() / case.window.as_secs_f64();
        self.allowed as f64 / (f64::from(case.n) * windows) * 1_000.0
    }

    fn mean_wait(&self) -> f64 {
        self.waited.as_secs_f64() / self.sent.max(1) as f64
    }
}

#[derive(Debug)]
struct Client {
    bucket: Bucket,
    waiting: VecDeque<Duration>,
    /// When the first in the queue became that.
    first_since: Duration,
    wake: Option<Duration>,
    /// Requests on their way: an answer to another is one from before a restart.
    out: BTreeMap<u64, Sent>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrive {
        client: usize,
        request: u64,
        dropped: bool,
    },
    Answer {
        client: usize,
        request: u64,
        answer: Answer,
    },
    Lose {
        client: usize,
        request: u64,
    },
    Wake {
        client: usize,
    },
    Come {
        client: usize,
    },
    Restart,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Answer {
    allowed: bool,
    date: u64,
    said: Option<(u32, u32, u64, Option<u64>)>,
}

#[derive(Debug)]
struct World {
    case: Case,
    start: Instant,
    clock: Clock,
    server: Server,
    clients: Vec<Client>,
    events: BinaryHeap<Reverse<(Duration, u64, Event)>>,
    next: u64,
    random: SmallRng,
    outcome: Outcome,
}

impl World {
    fn new(case: Case) -> Self {
        let mut random = SmallRng::seed_from_u64(case.seed);
        let start_ms = random.random_range(1_800_000_000_000..1_800_000_060_000);
        let phase = Duration::from_secs(random.random_range(0..60));
        let clock = Clock {
            start: Duration::from_millis(start_ms),
            skew: case.skew,
            drift: case.drift,
        };
        let mut server = Server::new(case.kind, case.n, case.window, phase).headers(case.headers);
        for _ in 0..case.used_before {
            server.arrive(clock.at(Duration::ZERO));
        }
        let mut world = Self {
            case,
            start: Instant::now(),
            clock,
            server,
            clients: Vec::new(),
            events: BinaryHeap::new(),
            next: 0,
            random,
            outcome: Outcome::default(),
        };
        for client in 0..case.clients {
            let new = world.client();
            world.clients.push(new);
            world.outcome.shares.push(0);
            let at = Duration::from_millis(world.random.random_range(0..2_000));
            world.at(at, Event::Come { client });
        }
        if let Some(at) = case.restart {
            world.at(at, Event::Restart);
        }
        world
    }

    fn client(&self) -> Client {
        let plan = NonZeroU32::new(self.case.n).unwrap();
        Client {
            bucket: Bucket::new(plan, self.case.window),
            waiting: VecDeque::new(),
            first_since: Duration::ZERO,
            wake: None,
            out: BTreeMap::new(),
        }
    }

    fn at(&mut self, time: Duration, event: Event) {
        self.next += 1;
        self.events.push(Reverse((time, self.next, event)));
    }

    fn run(mut self) -> Outcome {
        let mut last = Duration::ZERO;
        while let Some(Reverse((now, _, event))) = self.events.pop() {
            if now > self.case.length {
                break;
            }
            if self.clients[0].bucket.mode(self.start + last) == Mode::Window {
                self.outcome.time_in_window_mode += now - last;
            }
            last = now;
            let client = self.happen(event, now);
            self.send_all(client, now);
        }
        self.outcome.mode = Some(self.clients[0].bucket.mode(self.start + last));
        self.outcome
    }

    fn happen(&mut self, event: Event, now: Duration) -> usize {
        let at = self.start + now;
        match event {
            Event::Come { client } => {
                match self.case.load {
                    Load::Saturated => self.clients[client].waiting.push_back(now),
                    Load::Groups { most, percent } => self.group(client, most, percent, now),
                }
                client
            }
            Event::Wake { client } => {
                if self.clients[client].wake == Some(now) {
                    self.clients[client].wake = None;
                }
                client
            }
            Event::Restart => {
                let mut new = self.client();
                new.waiting = std::mem::take(&mut self.clients[0].waiting);
                new.first_since = now;
                self.clients[0] = new;
                0
            }
            Event::Arrive {
                client,
                request,
                dropped,
            } => {
                let reply = self.server.arrive(self.clock.at(now));
                if reply.allowed {
                    self.outcome.allowed += 1;
                    self.outcome.shares[client] += 1;
                } else {
                    self.outcome.refused += 1;
                    self.outcome.refusals.push(now);
                }
                if !dropped {
                    let delay = self.case.network.delay(&mut self.random);
                    let answer = self.answer(reply);
                    self.at(
                        now + delay,
                        Event::Answer {
                            client,
                            request,
                            answer,
                        },
                    );
                }
                client
            }
            Event::Answer {
                client,
                request,
                answer,
            } => {
                let random = self.random.random();
                let this = &mut self.clients[client];
                let Some(sent) = this.out.remove(&request) else {
                    return client;
                };
                let date = Some(Duration::from_secs(answer.date));
                let said = answer.said.map(|(limit, remaining, reset, _)| Said {
                    limit,
                    remaining,
                    reset: Some(Duration::from_secs(reset)),
                    date,
                    window: None,
                });
                if answer.allowed {
                    this.bucket.answered(sent, said, at);
                } else {
                    let hint = answer.said.and_then(|(.., hint)| hint);
                    let hint = hint.map(Duration::from_secs);
                    this.bucket.refused(sent, hint, said, at, random);
                }
                client
            }
            Event::Lose { client, request } => {
                let this = &mut self.clients[client];
                if let Some(sent) = this.out.remove(&request) {
                    this.bucket.lost(sent, at);
                }
                client
            }
        }
    }

    fn answer(&mut self, reply: Reply) -> Answer {
        let said = reply
            .said
            .filter(|_| !self.fault() || !reply.allowed)
            .map(|said| (said.limit, said.remaining, said.reset, said.retry_after));
        Answer {
            allowed: reply.allowed,
            date: reply.date,
            said,
        }
    }

    fn fault(&mut self) -> bool {
        let faults = self.case.faults;
        faults.is_some_and(|one_in| self.random.random_range(0..one_in) == 0)
    }

    fn group(&mut self, client: usize, most: u32, percent: u32, now: Duration) {
        let count = self.random.random_range(1..=most);
        let this = &mut self.clients[client];
        if this.waiting.is_empty() {
            this.first_since = now;
        }
        this.waiting.extend((0..count).map(|_| now));
        self.outcome.came += u64::from(count);
        // The time in which the plan allows as many, longer by the percentage, and spread evenly around it.
        let fair = self.case.window.as_secs_f64() * f64::from(count) / f64::from(self.case.n);
        let share = f64::from(percent) / 100.0 / self.case.clients as f64;
        let pause = fair / share * self.random.random_range(0.5..1.5);
        self.at(now + Duration::from_secs_f64(pause), Event::Come { client });
    }

    fn send_all(&mut self, client: usize, now: Duration) {
        let at = self.start + now;
        let mut promised = 0;
        loop {
            let this = &mut self.clients[client];
            let Some(&came) = this.waiting.front() else {
                return;
            };
            let verdict = this.bucket.verdict(at);
            match verdict {
                Verdict::Now(count) => promised = promised.max(count),
                Verdict::Later(_, None) => {
                    assert!(!this.out.is_empty(), "{verdict:?} with nothing on its way");
                    return;
                }
                Verdict::Later(_, Some(until)) => {
                    assert!(until > at, "{verdict:?} at {at:?}");
                    let late = Duration::from_micros(self.random.random_range(0..1_000));
                    let wake = until - self.start + late;
                    if self.clients[client].wake.is_none_or(|old| old > wake) {
                        self.clients[client].wake = Some(wake);
                        self.at(wake, Event::Wake { client });
                    }
                    return;
                }
            }
            let waited = (this.first_since < now).then(|| self.start + this.first_since);
            let sent = this.bucket.send(at, waited);
            this.first_since = now;
            if !matches!(self.case.load, Load::Saturated) {
                this.waiting.pop_front();
                self.outcome.waited += now - came;
            }
            self.next += 1;
            let request = self.next;
            this.out.insert(request, sent);
            self.outcome.sent += 1;
            let delay = self.case.network.delay(&mut self.random);
            let dropped = self.fault();
            self.at(
                now + delay,
                Event::Arrive {
                    client,
                    request,
                    dropped,
                },
            );
            if dropped {
                // At the latest a second before it arrives.
                let early = delay.saturating_sub(SECOND);
                let lost = self.random.random_range(early..=delay + SECOND);
                self.at(now + lost, Event::Lose { client, request });
            }
        }
    }
}

const SECOND: Duration = Duration::from_secs(1);
