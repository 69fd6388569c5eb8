//! The bucket against model servers, in virtual time and without a runtime: events in the order of their time. At each
//! step it is checked that the rules hold.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, VecDeque},
    num::NonZeroU32,
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::SmallRng};
use tokio::time::Instant;

use super::{Bucket, Sent};
use crate::limit::{
    rule::{Mode, Rule, Verdict},
    said::Said,
};

mod case;
#[path = "../../../tests/support/servers.rs"]
mod servers;
mod tests;

use self::{
    case::{Case, Load, Network, Outcome},
    servers::{Clock, Headers, Kind, Reply, Server},
};

#[derive(Debug)]
struct Client {
    bucket: Bucket,
    waiting: VecDeque<Duration>,
    /// When the first in the queue became that.
    first_since: Duration,
    wake: Option<Duration>,
    /// Requests on their way: an answer to another is one from before a restart.
    out: BTreeMap<u64, Sent>,
    /// When those ended that still count, the latest last.
    ended: VecDeque<Duration>,
}

impl Client {
    fn end(&mut self, at: Duration) {
        let place = self.ended.partition_point(|&ended| ended <= at);
        self.ended.insert(place, at);
    }
}

/// Compared only to break a tie of two times, which the number before it has done.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Come,
    Wake,
    Restart,
    Arrive { request: u64, dropped: bool },
    Answer { request: u64, reply: Answer },
    Lose { request: u64 },
}

/// Limit, remaining, reset and retry-after.
type Headed = (u32, u32, u64, Option<u64>);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Answer {
    allowed: bool,
    date: u64,
    said: Option<Headed>,
}

#[derive(Debug)]
struct World {
    case: Case,
    start: Instant,
    clock: Clock,
    server: Server,
    clients: Vec<Client>,
    events: BinaryHeap<Reverse<(Duration, u64, usize, Event)>>,
    /// The number of the next event or request.
    next: u64,
    random: SmallRng,
    outcome: Outcome,
}

impl World {
    fn new(case: Case) -> Self {
        let mut random = SmallRng::seed_from_u64(case.seed);
        let clock = Clock {
            start: Duration::from_millis(random.random_range(1_800_000_000_000..1_800_000_060_000)),
            skew: case.skew,
            drift: case.drift,
        };
        let phase = Duration::from_secs(random.random_range(0..60));
        let server = Server::new(case.kind, case.n, case.window, phase).headers(case.headers);
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
            world
                .clients
                .push(world.client(VecDeque::new(), Duration::ZERO));
            world.outcome.shares.push(0);
            let at = Duration::from_millis(world.random.random_range(0..500));
            world.at(at, client, Event::Come);
        }
        if let Some(at) = case.restart {
            world.at(at, 0, Event::Restart);
        }
        world
    }

    fn client(&self, waiting: VecDeque<Duration>, now: Duration) -> Client {
        let plan = NonZeroU32::new(self.case.n).unwrap();
        Client {
            bucket: Bucket::new(plan, self.case.window),
            waiting,
            first_since: now,
            wake: None,
            out: BTreeMap::new(),
            ended: VecDeque::new(),
        }
    }

    fn at(&mut self, time: Duration, client: usize, event: Event) {
        self.next += 1;
        self.events.push(Reverse((time, self.next, client, event)));
    }

    fn run(mut self) -> Outcome {
        let mut last = Duration::ZERO;
        while let Some(Reverse((now, _, client, event))) = self.events.pop() {
            if now > self.case.length {
                break;
            }
            if self.clients[0].bucket.mode(self.start + last) == Mode::Window {
                self.outcome.in_window_mode += now - last;
            }
            last = now;
            self.happen(client, event, now);
            self.check(client, now);
            self.send_all(client, now);
        }
        self.outcome
    }

    fn happen(&mut self, client: usize, event: Event, now: Duration) {
        match event {
            Event::Come => match self.case.load {
                Load::Saturated => self.clients[client].waiting.push_back(now),
                Load::Groups { most, percent } => self.group(client, most, percent, now),
            },
            Event::Wake => {
                // Another was set for an earlier time since.
                let this = &mut self.clients[client];
                this.wake = this.wake.filter(|&wake| wake != now);
            }
            Event::Restart => {
                let waiting = std::mem::take(&mut self.clients[client].waiting);
                self.clients[client] = self.client(waiting, now);
            }
            Event::Arrive { request, dropped } => {
                let reply = self.server.arrive(self.clock.at(now));
                if reply.allowed {
                    self.outcome.allowed += 1;
                    self.outcome.shares[client] += 1;
                } else {
                    self.outcome.refusals.push(now);
                }
                if !dropped {
                    let reply = self.answer(reply);
                    let at = now + self.case.network.delay(&mut self.random);
                    self.at(at, client, Event::Answer { request, reply });
                }
            }
            Event::Answer { request, reply } => self.answered(client, request, &reply, now),
            Event::Lose { request } => {
                let this = &mut self.clients[client];
                if let Some(sent) = this.out.remove(&request) {
                    this.bucket.lost(sent, self.start + now);
                    this.end(now + SECOND);
                }
            }
        }
    }

    fn group(&mut self, client: usize, most: u32, percent: u32, now: Duration) {
        let count = self.random.random_range(1..=most);
        let this = &mut self.clients[client];
        if this.waiting.is_empty() {
            this.first_since = now;
        }
        this.waiting.extend((0..count).map(|_| now));
        // The time in which the plan allows as many, longer by the percentage, and evenly spread around it.
        let fair = self.case.window.as_secs_f64() * f64::from(count) / f64::from(self.case.n);
        let share = f64::from(percent) / 100.0 / self.case.clients as f64;
        let pause = fair / share * self.random.random_range(0.5..1.5);
        self.at(now + Duration::from_secs_f64(pause), client, Event::Come);
    }

    fn answer(&mut self, reply: Reply) -> Answer {
        let said = reply.said.filter(|_| !reply.allowed || !self.is_fault());
        Answer {
            allowed: reply.allowed,
            date: reply.date,
            said: said.map(|said| (said.limit, said.remaining, said.reset, said.retry_after)),
        }
    }

    fn is_fault(&mut self) -> bool {
        let faults = self.case.faults;
        faults.is_some_and(|one_in| self.random.random_range(0..one_in) == 0)
    }

    fn answered(&mut self, client: usize, request: u64, reply: &Answer, now: Duration) {
        let this = &mut self.clients[client];
        let Some(sent) = this.out.remove(&request) else {
            return;
        };
        let said = reply.said.map(|(limit, remaining, reset, _)| Said {
            limit,
            remaining,
            reset: Some(Duration::from_secs(reset)),
            date: Some(Duration::from_secs(reply.date)),
            window: None,
        });
        if reply.allowed {
            this.bucket.answered(sent, said, self.start + now);
            this.end(now);
        } else {
            let hint = reply.said.and_then(|(.., hint)| hint);
            let hint = hint.map(Duration::from_secs);
            let random = self.random.random();
            this.bucket
                .refused(sent, hint, said, self.start + now, random);
        }
    }

    /// What holds after each event.
    fn check(&self, client: usize, now: Duration) {
        let this = &self.clients[client];
        assert_eq!(this.bucket.in_flight() as usize, this.out.len());
        let alone = self.case.clients == 1 && self.case.restart.is_none();
        if alone && !self.case.kind.has_windows() {
            assert_ne!(this.bucket.mode(self.start + now), Mode::Window);
        }
        let counter = matches!(self.case.kind, Kind::CounterFloored | Kind::CounterStrict);
        if alone && !counter {
            assert_eq!(this.bucket.others(), 0, "at {now:?}");
        }
    }

    fn send_all(&mut self, client: usize, now: Duration) {
        let at = self.start + now;
        while let Some(&came) = self.clients[client].waiting.front() {
            let this = &mut self.clients[client];
            match this.bucket.verdict(at) {
                Verdict::Now(count) => assert!(count > 0),
                Verdict::Later(rule, None) => {
                    assert!(!this.out.is_empty(), "{rule}, and nothing on its way");
                    break;
                }
                Verdict::Later(rule, Some(until)) => {
                    self.check_wait(client, rule, until, at);
                    let late = Duration::from_micros(self.random.random_range(0..1_000));
                    let wake = until - self.start + late;
                    if self.clients[client].wake.is_none_or(|old| old > wake) {
                        self.clients[client].wake = Some(wake);
                        self.at(wake, client, Event::Wake);
                    }
                    break;
                }
            }
            self.check_send(client, now);
            let this = &mut self.clients[client];
            let waited = (this.first_since < now).then(|| self.start + this.first_since);
            let sent = this.bucket.send(at, waited);
            this.first_since = now;
            if !matches!(self.case.load, Load::Saturated) {
                this.waiting.pop_front();
                self.outcome.waited += now - came;
            }
            self.next += 1;
            self.clients[client].out.insert(self.next, sent);
            self.travel(client, self.next, now);
        }
    }

    fn travel(&mut self, client: usize, request: u64, now: Duration) {
        self.outcome.sent += 1;
        let delay = self.case.network.delay(&mut self.random);
        let dropped = self.is_fault();
        self.at(now + delay, client, Event::Arrive { request, dropped });
        if dropped {
            // It arrives a second later at the latest.
            let early = delay.saturating_sub(SECOND);
            let lost = self.random.random_range(early..=delay + SECOND);
            self.at(now + lost, client, Event::Lose { request });
        }
    }

    /// With no event, a request is never held longer than until the instant that was named.
    fn check_wait(&mut self, client: usize, rule: Rule, until: Instant, at: Instant) {
        assert!(until > at, "{rule}");
        let between = (until - at).mul_f64(self.random.random());
        let bucket = &self.clients[client].bucket;
        for later in [at + between, until] {
            match bucket.verdict(later) {
                Verdict::Now(_) => {}
                Verdict::Later(next, Some(next_until)) if later < until => {
                    assert!(next_until <= until, "{rule}, then {next}");
                }
                held => panic!("{rule}, then {held:?}"),
            }
        }
    }

    /// Paced, never more than the plan are unanswered or were answered within a window.
    fn check_send(&mut self, client: usize, now: Duration) {
        let window = self.case.window;
        let this = &mut self.clients[client];
        if this.bucket.mode(self.start + now) != Mode::Window {
            let counting = this.ended.partition_point(|&ended| ended + window <= now);
            this.ended.drain(..counting);
            assert!(this.out.len() + this.ended.len() < self.case.n as usize);
        }
    }
}

const SECOND: Duration = Duration::from_secs(1);
