//! Which slots are taken, and by what. Pure: it is given the time.
#![warn(clippy::arithmetic_side_effects)]

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use crate::idempotency_key::IdempotencyKey;

/// The slots that are taken.
#[derive(Debug)]
pub(super) struct Slots {
    capacity: u32,
    time_limit: Duration,
    /// By number: whichever was taken first is first. Numbers are never used again, so an old handle changes nothing.
    held: BTreeMap<u64, Held>,
    by_task: HashMap<Arc<str>, u64>,
    by_key: HashMap<IdempotencyKey, u64>,
    ended: Ended,
    next: u64,
}

/// A slot that is taken.
#[derive(Debug)]
struct Held {
    /// Requests on their way that would create its task: more than one where they have the same idempotency key.
    calls: u32,
    fate: TaskFate,
    /// `Some` once it is known.
    task: Option<Arc<str>>,
    /// `Some` where a request took it.
    key: Option<IdempotencyKey>,
    /// When it was last heard of.
    news: Instant,
}

/// What is known of a slot's task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TaskFate {
    /// No request was answered yet, or all were refused.
    None,
    /// It may have been created.
    Unknown,
    /// It was created.
    Created,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It surely created nothing.
    Refused,
    Created,
    Unknown,
}

impl Slots {
    pub(super) fn new(capacity: u32) -> Self {
        Self {
            capacity,
            time_limit: TIME_LIMIT,
            held: BTreeMap::new(),
            by_task: HashMap::new(),
            by_key: HashMap::new(),
            ended: Ended::default(),
            next: 0,
        }
    }

    pub(super) const fn capacity(&self) -> u32 {
        self.capacity
    }

    pub(super) const fn set_capacity(&mut self, capacity: u32) {
        self.capacity = capacity;
    }

    pub(super) const fn set_time_limit(&mut self, limit: Duration) {
        self.time_limit = limit;
    }

    /// How many are taken.
    pub(super) fn taken(&self) -> usize {
        self.held.len()
    }

    /// How many more can be taken.
    pub(super) fn free(&self) -> usize {
        // Fits: usize is no smaller than u32 where tokio runs.
        (self.capacity as usize).saturating_sub(self.held.len())
    }

    /// How many have no task that is known, with no request on its way.
    pub(super) fn unsettled(&self) -> usize {
        let unsettled = |slot: &&Held| slot.calls == 0 && slot.task.is_none();
        self.held.values().filter(unsettled).count()
    }

    /// Takes a slot for a request. Whether one is free is asked before.
    pub(super) fn take(&mut self, key: IdempotencyKey, now: Instant) -> u64 {
        self.by_key.insert(key.clone(), self.next);
        self.insert(Held {
            calls: 1,
            fate: TaskFate::None,
            task: None,
            key: Some(key),
            news: now,
        })
    }

    /// The slot of an earlier request with this key, for one more: both would create the same task.
    pub(super) fn join(&mut self, key: &IdempotencyKey) -> Option<u64> {
        let number = *self.by_key.get(key)?;
        let slot = self.held.get_mut(&number)?;
        slot.calls = slot.calls.saturating_add(1);
        Some(number)
    }

    /// A request came to its end.
    pub(super) fn end(&mut self, number: u64, end: End, now: Instant) {
        let Some(slot) = self.held.get_mut(&number) else {
            return;
        };
        slot.calls = slot.calls.saturating_sub(1);
        match end {
            End::Created => slot.fate = TaskFate::Created,
            End::Unknown if slot.fate == TaskFate::None => slot.fate = TaskFate::Unknown,
            End::Unknown => {}
            // It says nothing of the others.
            End::Refused => {
                if slot.calls == 0 && slot.fate == TaskFate::None {
                    self.free_slot(number);
                }
                return;
            }
        }
        slot.news = now;
    }

    /// The task in a slot is known. Whatever else was taken for it is free then.
    pub(super) fn bind(&mut self, number: u64, task: &str, now: Instant) {
        let Some(slot) = self.held.get_mut(&number) else {
            return;
        };
        if self.ended.contains(task) {
            // Another task is in it where a list put it there.
            if slot.task.is_none() {
                self.free_slot(number);
            }
            return;
        }
        let task: Arc<str> = task.into();
        let other = self.by_task.insert(task.clone(), number);
        slot.fate = TaskFate::Created;
        slot.news = now;
        if other == Some(number) {
            return;
        }
        let before = slot.task.replace(task);
        match (other, before) {
            (None, None) => {}
            // A list could not tell which task is in which slot.
            (Some(other), Some(before)) => {
                if let Some(slot) = self.held.get_mut(&other) {
                    slot.task = Some(before.clone());
                }
                self.by_task.insert(before, other);
            }
            (Some(other), None) => {
                if let Some(slot) = self.held.get_mut(&other) {
                    slot.task = None;
                }
                self.free_slot(other);
            }
            // It may run all the same.
            (None, Some(before)) => self.adopt(before, now),
        }
    }

    pub(super) fn bind_key(&mut self, key: &IdempotencyKey, task: &str, now: Instant) {
        if let Some(number) = self.by_key.get(key) {
            self.bind(*number, task, now);
        }
    }

    /// Gives a slot back, whatever is in it.
    pub(super) fn release(&mut self, number: u64) {
        let slot = self.held.get(&number);
        // Without a key it is a list's guess which task is in it: another may have ended.
        let task = slot.filter(|slot| slot.key.is_some());
        if let Some(task) = task.and_then(|slot| slot.task.clone()) {
            self.ended.insert(task);
        }
        self.free_slot(number);
    }

    /// A task came to its end. The answer that names it may still be on its way. Returns whether that is new.
    pub(super) fn finished(&mut self, task: &str) -> bool {
        let is_new = self.ended.insert(task.into());
        if let Some(number) = self.by_task.get(task) {
            self.free_slot(*number);
        }
        is_new
    }

    /// A task was seen running.
    pub(super) fn running(&mut self, task: &str, now: Instant) {
        if self.ended.contains(task) {
            return;
        }
        match self.by_task.get(task) {
            Some(number) => {
                if let Some(slot) = self.held.get_mut(number) {
                    slot.news = now;
                }
            }
            None => self.adopt(task.into(), now),
        }
    }

    /// Whether a task has a slot.
    #[cfg(feature = "json")]
    pub(super) fn holds(&self, task: &str) -> bool {
        self.by_task.contains_key(task)
    }

    /// All tasks that ran at `asked`, or later. Those that it lacks have ended; those that nobody knew are in the slots
    /// that wait for an answer to that.
    pub(super) fn listed<'a>(
        &mut self,
        tasks: impl Iterator<Item = &'a str>,
        asked: Instant,
        now: Instant,
    ) {
        let tasks: BTreeSet<&str> = tasks.filter(|task| !self.ended.contains(task)).collect();
        let is_older = |slot: &Held| slot.calls == 0 && slot.arrived() < Some(asked);
        let mut gone = Vec::new();
        let mut unbound = VecDeque::new();
        for (number, slot) in &self.held {
            match &slot.task {
                Some(task) if tasks.contains(&**task) => {}
                Some(task) if is_older(slot) => gone.push(task.clone()),
                None if is_older(slot) => unbound.push_back(*number),
                _ => {}
            }
        }
        for task in gone {
            self.finished(&task);
        }
        for task in tasks {
            if let Some(number) = self.by_task.get(task) {
                self.bind(*number, task, now);
            } else if let Some(number) = unbound.pop_front() {
                self.bind(number, task, now);
                // Which task is in which slot is a guess, so a later request with the key must not rely on it.
                self.forget_key(number);
            } else {
                self.adopt(task.into(), now);
            }
        }
        for number in unbound {
            self.free_slot(number);
        }
    }

    /// Frees every slot that was not heard of for too long.
    pub(super) fn expire(&mut self, now: Instant) {
        let limit = self.time_limit;
        let is_due = |slot: &Held| slot.ends(limit).is_some_and(|end| end <= now);
        let due: Vec<u64> = self
            .held
            .iter()
            .filter_map(|(number, slot)| is_due(slot).then_some(*number))
            .collect();
        for number in due {
            self.free_slot(number);
        }
    }

    /// When the next slot ends by its time limit.
    pub(super) fn next_end(&self) -> Option<Instant> {
        let ends = |slot: &Held| slot.ends(self.time_limit);
        self.held.values().filter_map(ends).min()
    }

    /// The slots that are taken, and the task in each if it is known.
    pub(super) fn claims(&self) -> impl Iterator<Item = (u64, Option<&Arc<str>>)> {
        let claims = self.held.iter();
        claims.map(|(number, slot)| (*number, slot.task.as_ref()))
    }

    pub(super) fn is_taken(&self, number: u64) -> bool {
        self.held.contains_key(&number)
    }

    pub(super) fn task(&self, number: u64) -> Option<&Arc<str>> {
        self.held.get(&number)?.task.as_ref()
    }

    /// When a slot ends if nothing is heard of it.
    pub(super) fn ends(&self, number: u64) -> Option<Instant> {
        self.held.get(&number)?.ends(self.time_limit)
    }

    /// For how long a slot would be kept if this process were gone: `least` while a request is on its way.
    pub(super) fn keep(&self, number: u64, least: Duration, now: Instant) -> Option<Duration> {
        let slot = self.held.get(&number)?;
        let left = || {
            let since = now.saturating_duration_since(slot.news);
            self.time_limit.saturating_sub(since)
        };
        Some(match (slot.calls, &slot.task) {
            (0, _) => left(),
            (_, Some(_)) => left().max(least),
            (_, None) => least,
        })
    }

    pub(super) fn has_ended(&self, task: &str) -> bool {
        self.ended.contains(task)
    }

    /// Each index names what is there, and nothing twice.
    #[cfg(test)]
    pub(super) fn check(&self) {
        let bound = self.held.iter().filter(|(_, slot)| slot.task.is_some());
        assert_eq!(bound.count(), self.by_task.len(), "{self:?}");
        for (task, number) in &self.by_task {
            assert_eq!(self.held[number].task.as_ref(), Some(task), "{self:?}");
        }
        for (key, number) in &self.by_key {
            assert_eq!(self.held[number].key.as_ref(), Some(key), "{self:?}");
        }
    }

    fn adopt(&mut self, task: Arc<str>, now: Instant) {
        self.by_task.insert(task.clone(), self.next);
        self.insert(Held {
            calls: 0,
            fate: TaskFate::Created,
            task: Some(task),
            key: None,
            news: now,
        });
    }

    fn insert(&mut self, slot: Held) -> u64 {
        let number = self.next;
        self.next = number.wrapping_add(1);
        self.held.insert(number, slot);
        number
    }

    fn forget_key(&mut self, number: u64) {
        let slot = self.held.get_mut(&number);
        if let Some(key) = slot.and_then(|slot| slot.key.take()) {
            self.by_key.remove(&key);
        }
    }

    fn free_slot(&mut self, number: u64) {
        self.forget_key(number);
        let Some(slot) = self.held.remove(&number) else {
            return;
        };
        if let Some(task) = &slot.task {
            self.by_task.remove(task);
        }
    }
}

impl Held {
    /// When all that is told of it was true at the server, at the latest.
    fn arrived(&self) -> Option<Instant> {
        match self.fate {
            TaskFate::Unknown => self.news.checked_add(MAY_STILL_ARRIVE),
            TaskFate::None | TaskFate::Created => Some(self.news),
        }
    }

    /// When it ends if nothing is heard of it; `None` while a request is on its way.
    fn ends(&self, limit: Duration) -> Option<Instant> {
        (self.calls == 0)
            .then(|| self.news.checked_add(limit))
            .flatten()
    }
}

/// The tasks that ended last: an older answer may still show one of them running.
#[derive(Debug, Default)]
struct Ended {
    tasks: HashSet<Arc<str>>,
    order: VecDeque<Arc<str>>,
}

impl Ended {
    fn contains(&self, task: &str) -> bool {
        self.tasks.contains(task)
    }

    /// Returns whether that is new.
    fn insert(&mut self, task: Arc<str>) -> bool {
        if !self.tasks.insert(task.clone()) {
            return false;
        }
        self.order.push_back(task);
        if self.order.len() > ENDED_KEPT {
            if let Some(oldest) = self.order.pop_front() {
                self.tasks.remove(&oldest);
            }
        }
        true
    }
}

/// How long after its end a request may still reach the server: a list that was asked for before says nothing of it.
const MAY_STILL_ARRIVE: Duration = Duration::from_secs(1);
/// How long a slot is kept that is not heard of.
const TIME_LIMIT: Duration = Duration::from_secs(60 * 60);
/// Far more than answers are on their way at once.
const ENDED_KEPT: usize = 10_000;
