//! Whatever requests, answers and news do, in whatever order they come.

use std::{collections::BTreeMap, task::Waker, time::Duration};

use proptest::prelude::*;
use tokio::time::Instant;

use crate::{
    idempotency_key::IdempotencyKey,
    tasks::{
        queue::{Outlook, Queue, Turn, Wakers},
        slots::{End, Slots},
    },
};

#[derive(Clone, Copy, Debug)]
enum Op {
    /// A request comes, with one of a few keys or with one of its own.
    Come(Option<u8>),
    /// One who waits asks, or goes.
    Ask(usize),
    Go(usize),
    /// A request ends, and may have created its task.
    Answer(usize, End),
    /// An unclear end; whether the server created the task.
    Break(usize, bool),
    /// The answer's body is read.
    Bind(usize),
    /// A task ends on the server, and somebody may see that.
    Finish(usize, bool),
    /// Somebody tells that a task runs, which it did a while ago.
    See(usize),
    /// All running tasks are listed; the answer comes later.
    List,
    Listed,
    Wait(u8),
}

fn op() -> impl Strategy<Value = Op> {
    let one = || 0_usize..50;
    prop_oneof![
        3 => prop::option::weighted(0.5, 0_u8..4).prop_map(Op::Come),
        4 => one().prop_map(Op::Ask),
        1 => one().prop_map(Op::Go),
        3 => one().prop_map(|n| Op::Answer(n, End::Created)),
        1 => one().prop_map(|n| Op::Answer(n, End::Refused)),
        1 => (one(), any::<bool>()).prop_map(|(n, created)| Op::Break(n, created)),
        3 => one().prop_map(Op::Bind),
        2 => (one(), any::<bool>()).prop_map(|(n, seen)| Op::Finish(n, seen)),
        1 => one().prop_map(Op::See),
        1 => Just(Op::List),
        1 => Just(Op::Listed),
        1 => (1_u8..100).prop_map(Op::Wait),
    ]
}

/// A server that creates one task for a key, and those who ask it.
struct World {
    slots: Slots,
    queue: Queue,
    capacity: usize,
    now: Instant,
    /// By key: the task, and whether it runs.
    server: BTreeMap<String, bool>,
    waiting: Vec<(u64, IdempotencyKey)>,
    calls: Vec<(u64, IdempotencyKey)>,
    unread: Vec<(u64, IdempotencyKey)>,
    /// What a list said, and when it was asked for.
    list: Option<(Vec<String>, Instant)>,
}

impl World {
    fn new(capacity: u32) -> Self {
        Self {
            slots: Slots::new(capacity),
            queue: Queue::default(),
            capacity: capacity as usize,
            now: Instant::now(),
            server: BTreeMap::new(),
            waiting: Vec::new(),
            calls: Vec::new(),
            unread: Vec::new(),
            list: None,
        }
    }

    fn outlook(&self) -> Outlook {
        Outlook {
            now: self.now,
            free: self.slots.free(),
            next_end: self.slots.next_end(),
        }
    }

    fn running(&self) -> impl Iterator<Item = &String> {
        self.server
            .iter()
            .filter_map(|(task, runs)| runs.then_some(task))
    }

    fn create(&mut self, key: &IdempotencyKey) {
        self.server.entry(task(key)).or_insert(true);
    }

    /// One who waits asks; whether it got a slot.
    fn ask(&mut self, place: usize) -> bool {
        let (ticket, key) = self.waiting[place].clone();
        let mut wakers = Wakers::default();
        let joined = self.slots.join(&key);
        let number = joined.or_else(|| {
            let outlook = self.outlook();
            match self.queue.ask(ticket, Waker::noop(), outlook, &mut wakers) {
                Turn::Now => {
                    assert!(self.slots.taken() < self.capacity, "more than fit");
                    Some(self.slots.take(key.clone(), self.now))
                }
                Turn::Later(until) => {
                    assert!(until > self.now, "it would spin");
                    None
                }
            }
        });
        let Some(number) = number else {
            return false;
        };
        self.queue.leave(ticket, &mut wakers);
        self.waiting.remove(place);
        self.calls.push((number, key));
        true
    }

    fn end(&mut self, place: usize, end: End) {
        let (number, key) = self.calls.remove(place);
        self.slots.end(number, end, self.now);
        if end == End::Created {
            self.unread.push((number, key));
        }
    }

    fn listed(&mut self) {
        if let Some((tasks, asked)) = self.list.take() {
            let tasks = tasks.iter().map(String::as_str);
            self.slots.listed(tasks, asked, self.now);
        }
    }

    fn list(&mut self) {
        self.list = Some((self.running().cloned().collect(), self.now));
        self.now += Duration::from_millis(1);
    }

    fn act(&mut self, op: Op) {
        let of = |n: usize, all: usize| n.checked_rem(all);
        match op {
            Op::Come(key) => {
                let ticket = self.queue.join();
                let key = key.map_or(format!("own-{ticket}"), |key| format!("key-{key}"));
                let key = IdempotencyKey::parse(&key).unwrap();
                self.waiting.push((ticket, key));
            }
            Op::Ask(n) => {
                if let Some(place) = of(n, self.waiting.len()) {
                    self.ask(place);
                }
            }
            Op::Go(n) => {
                if let Some(place) = of(n, self.waiting.len()) {
                    let (ticket, _) = self.waiting.remove(place);
                    self.queue.leave(ticket, &mut Wakers::default());
                }
            }
            Op::Answer(n, end) => {
                if let Some(place) = of(n, self.calls.len()) {
                    let key = self.calls[place].1.clone();
                    if end == End::Created {
                        self.create(&key);
                    }
                    self.end(place, end);
                }
            }
            Op::Break(n, created) => {
                if let Some(place) = of(n, self.calls.len()) {
                    let key = self.calls[place].1.clone();
                    if created {
                        self.create(&key);
                    }
                    self.end(place, End::Unknown);
                }
            }
            Op::Bind(n) => {
                if let Some(place) = of(n, self.unread.len()) {
                    let (number, key) = self.unread.remove(place);
                    self.slots.bind(number, &task(&key), self.now);
                }
            }
            Op::Finish(n, seen) => {
                let running: Vec<String> = self.running().cloned().collect();
                if let Some(place) = of(n, running.len()) {
                    self.server.insert(running[place].clone(), false);
                    if seen {
                        self.slots.finished(&running[place]);
                    }
                }
            }
            Op::See(n) => {
                if let Some(place) = of(n, self.server.len()) {
                    let task = self.server.keys().nth(place).unwrap();
                    self.slots.running(task, self.now);
                }
            }
            Op::List => self.list(),
            Op::Listed => self.listed(),
            Op::Wait(millis) => self.now += Duration::from_millis(millis.into()),
        }
        let outlook = self.outlook();
        self.queue.serve(outlook, &mut Wakers::default());
    }
}

fn task(key: &IdempotencyKey) -> String {
    format!("task_{key}")
}

proptest! {
    /// A task that runs always has a slot, and after the last news none is left over.
    #[test]
    fn no_slot_is_lost_and_none_is_doubled(
        capacity in 1_u32..6,
        ops in prop::collection::vec(op(), 1..200),
    ) {
        let mut world = World::new(capacity);
        for op in ops {
            world.act(op);
            world.slots.check();
            let running = world.running().count();
            prop_assert!(running <= world.slots.taken(), "{running} run after {op:?}");
        }
        // Everybody who waits gets a slot, in turn, as soon as tasks end.
        world.listed();
        let mut rounds = 0;
        while !(world.waiting.is_empty() && world.calls.is_empty()) {
            rounds += 1;
            prop_assert!(rounds < 1_000, "somebody waits for ever");
            while !world.calls.is_empty() {
                world.act(Op::Answer(0, End::Created));
            }
            while !world.unread.is_empty() {
                world.act(Op::Bind(0));
            }
            while world.running().next().is_some() {
                world.act(Op::Finish(0, true));
            }
            world.now += Duration::from_millis(1_100);
            world.act(Op::List);
            world.act(Op::Listed);
            prop_assert_eq!(world.slots.taken(), 0, "a slot is left over");
            for place in (0..world.waiting.len()).rev() {
                world.act(Op::Ask(place));
            }
        }
        prop_assert_eq!(world.queue.waiting(), 0);
    }
}
