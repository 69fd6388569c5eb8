//! What a store of slots counts. Pure, given the store's time.
#![warn(clippy::arithmetic_side_effects)]

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::tasks::store::{
    Binding, Release, Renewal, Renewed, SlotName, SlotRequest, SlotsTaken, Standing,
};

/// The slots of all processes, and the line of those that want one; times in µs by the store's clock. Every other
/// implementation of a store does the same, step by step.
#[derive(Clone, Debug, Default)]
pub(super) struct Ledger {
    /// Until when each is kept.
    slots: BTreeMap<Name, u64>,
    /// The order of those in line.
    line: BTreeMap<u64, u64>,
    /// Until when each of them keeps its place.
    waits: BTreeMap<u64, u64>,
    /// Until when each process counts as there.
    there: BTreeMap<u64, u64>,
    /// Tasks that ended, and until when that is known.
    ended: BTreeMap<Arc<str>, u64>,
    /// Nobody takes a slot before; `None` where all was lost.
    open: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Name {
    Reserved(u64, u64),
    Task(Arc<str>),
}

impl Name {
    fn new(process: u64, name: SlotName) -> Self {
        match name {
            SlotName::Reserved(number) => Self::Reserved(process, number),
            SlotName::Task(task) => Self::Task(task),
        }
    }
}

impl Ledger {
    /// One that nobody used before.
    pub(super) fn new() -> Self {
        Self {
            open: Some(0),
            ..Self::default()
        }
    }

    pub(super) fn take(&mut self, ask: SlotRequest, now: u64) -> SlotsTaken {
        self.is_there(ask.process, now);
        let granted = self.grants(ask, now);
        for number in (ask.first..).take(granted) {
            let until = now.saturating_add(micros(ask.keep));
            self.slots
                .insert(Name::Reserved(ask.process, number), until);
        }
        let granted = u32::try_from(granted).unwrap_or(u32::MAX);
        let mut wait = 0;
        if granted >= ask.wanted {
            self.leave_line(ask.process);
        } else {
            if granted > 0 || !self.line.contains_key(&ask.process) {
                let last = self.line.values().max().copied().unwrap_or(0);
                self.line.insert(ask.process, last.saturating_add(1));
            }
            let ahead = u64::try_from(self.ahead(ask.process)).unwrap_or(u64::MAX);
            let turns = POLL.saturating_mul(ahead.saturating_add(8)) / 8;
            let open = self.open.map_or(0, |open| open.saturating_sub(now));
            wait = open.saturating_add(turns.min(LONGEST_POLL));
            let until = wait.saturating_mul(2).saturating_add(SECOND);
            self.waits.insert(ask.process, now.saturating_add(until));
        }
        SlotsTaken {
            granted,
            wait: Duration::from_micros(wait),
            standing: self.standing(),
        }
    }

    pub(super) fn renew(&mut self, renewal: Renewal, now: u64) -> Renewed {
        self.is_there(renewal.process, now);
        let mut ended = Vec::new();
        for (name, keep) in renewal.held {
            match name {
                SlotName::Task(task) if self.ended.contains_key(&task) => ended.push(task),
                name => self.keep(Name::new(renewal.process, name), keep, now),
            }
        }
        if !renewal.waits {
            self.leave_line(renewal.process);
        }
        if renewal.hold {
            self.open = self.open.max(Some(now.saturating_add(HOLD)));
        }
        Renewed {
            ended,
            standing: self.standing(),
        }
    }

    pub(super) fn bind(&mut self, binding: Binding, now: u64) -> bool {
        self.is_there(binding.process, now);
        self.slots
            .remove(&Name::Reserved(binding.process, binding.number));
        if self.ended.contains_key(&binding.task) {
            return false;
        }
        self.keep(Name::Task(binding.task), binding.keep, now);
        true
    }

    pub(super) fn release(&mut self, release: Release, now: u64) {
        self.is_there(release.process, now);
        for name in release.slots {
            self.slots.remove(&Name::new(release.process, name));
        }
        for task in release.ended {
            self.slots.remove(&Name::Task(task.clone()));
            self.ended.insert(task, now.saturating_add(ENDED));
        }
        if release.leaves {
            self.leave_line(release.process);
            self.there.remove(&release.process);
        }
    }

    fn grants(&self, ask: SlotRequest, now: u64) -> usize {
        // Fits: usize is no smaller than u32 where tokio runs.
        let (wanted, capacity) = (ask.wanted as usize, ask.capacity as usize);
        if self.open.is_some_and(|open| open > now) {
            return 0;
        }
        let free = capacity.saturating_sub(self.slots.len());
        let is_in_line = self.line.contains_key(&ask.process);
        let others = self.line.len().saturating_sub(usize::from(is_in_line));
        if others == 0 {
            return wanted.min(free);
        }
        let all = others.saturating_add(1);
        let share = free.checked_div(all).map_or(1, |share| share.max(1));
        let left = free.saturating_sub(self.ahead(ask.process));
        wanted.min(share).min(left)
    }

    /// How many are before it in the line, or would be.
    fn ahead(&self, process: u64) -> usize {
        let own = self.line.get(&process).copied().unwrap_or(u64::MAX);
        self.line.values().filter(|order| **order < own).count()
    }

    fn keep(&mut self, name: Name, keep: Duration, now: u64) {
        let until = now.saturating_add(micros(keep));
        let before = match name {
            // Others may have heard of the task later.
            Name::Task(_) => self.slots.get(&name).copied(),
            Name::Reserved(..) => None,
        };
        self.slots
            .insert(name, before.max(Some(until)).unwrap_or(until));
    }

    fn leave_line(&mut self, process: u64) {
        self.line.remove(&process);
        self.waits.remove(&process);
    }

    /// Brings all up to `now`.
    fn look(&mut self, now: u64) {
        let latest = now.saturating_add(HOLD);
        self.open = Some(self.open.map_or(latest, |open| open.min(latest)));
        self.slots.retain(|_, until| *until > now);
        self.ended.retain(|_, until| *until > now);
        self.there.retain(|_, until| *until > now);
        self.waits.retain(|_, until| *until > now);
        let waits = &self.waits;
        self.line.retain(|process, _| waits.contains_key(process));
    }

    fn is_there(&mut self, process: u64, now: u64) {
        self.look(now);
        self.there.insert(process, now.saturating_add(PRESENCE));
    }

    pub(super) fn standing_at(&mut self, now: u64) -> Standing {
        self.look(now);
        self.standing()
    }

    fn standing(&self) -> Standing {
        Standing {
            taken: u32::try_from(self.slots.len()).unwrap_or(u32::MAX),
            processes: u32::try_from(self.there.len()).unwrap_or(u32::MAX),
        }
    }
}

/// No time is longer than a year.
pub(in crate::tasks) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).map_or(YEAR, |micros| micros.min(YEAR))
}

const SECOND: u64 = 1_000_000;
const YEAR: u64 = 31_536_000_000_000;
/// How soon the first in line asks again; the others later, by an eighth of it for each one before them.
const POLL: u64 = 200_000;
const LONGEST_POLL: u64 = 5_000_000;
/// Whoever holds a slot has told of it within so long: it does so each second, and tries a connection anew each three.
const HOLD: u64 = 6_000_000;
/// A process counts as there for so long after it was heard of.
const PRESENCE: u64 = 30_000_000;
/// For so long all are told that a task has ended.
const ENDED: u64 = 300_000_000;
