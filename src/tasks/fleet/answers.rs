//! What the store's answers change.

use std::{collections::BTreeSet, mem, time::Duration};

use tokio::time::Instant;

use super::{Down, Errand, Fleet, KEEP, is_of, later};
use crate::tasks::store::{
    Binding, Release, Renewal, Renewed, SlotName, SlotRequest, SlotsTaken, Standing,
};

impl Fleet {
    pub(super) fn taken(
        &mut self,
        ask: SlotRequest,
        answer: SlotsTaken,
        asked: Instant,
        now: Instant,
        random: f64,
    ) {
        self.pending = None;
        let until = later(asked, ask.keep);
        let granted = answer.granted.min(ask.wanted);
        let numbers = (ask.first..).zip(0..granted);
        self.spares
            .extend(numbers.map(|(number, _)| (number, until)));
        // The others come at other times.
        let jitter = answer.wait.min(LONGEST_WAIT).mul_f64(random / 4.0);
        let wait = answer.wait.saturating_add(jitter);
        let wait = wait.clamp(SHORTEST_LINE, LONGEST_LINE);
        self.come = (granted < ask.wanted).then(|| later(now, wait));
        // A place in line is no news of what is held.
        self.renewed = self.renewed.or(Some(asked));
        self.stands(answer.standing, now);
    }

    /// Returns since when the store had been away, if it was.
    pub(super) fn renewed(
        &mut self,
        renewal: &Renewal,
        answer: &Renewed,
        asked: Instant,
        now: Instant,
    ) -> Option<Instant> {
        self.pending = None;
        let names: BTreeSet<&SlotName> = renewal.held.iter().map(|(name, _)| name).collect();
        for told in self.told.values_mut() {
            told.is_stored |= names.contains(&told.name);
        }
        for (number, until) in &mut self.spares {
            if names.contains(&SlotName::Reserved(*number)) {
                *until = later(asked, KEEP);
            }
        }
        let ended = |name: &SlotName| answer.ended.iter().any(|task| is_of(name, task));
        self.told.retain(|_, told| !ended(&told.name));
        self.renewed = Some(asked);
        if !renewal.waits {
            self.come = None;
        }
        self.stands(answer.standing, now);
        self.down.take().map(|down| down.since)
    }

    /// Whether the task may run.
    pub(super) fn bound(&mut self, binding: &Binding, runs: bool) {
        self.pending = None;
        let reserved = SlotName::Reserved(binding.number);
        if runs {
            if let Some(told) = self.told.values_mut().find(|told| told.name == reserved) {
                told.name = SlotName::Task(binding.task.clone());
            }
        } else {
            self.told.retain(|_, told| told.name != reserved);
        }
    }

    pub(super) fn released(&mut self, now: Instant) {
        self.pending = None;
        // What came free may be for those who wait here.
        self.come = self.come.map(|_| now);
    }

    /// It gave no answer. Returns whether it did before.
    pub(super) fn failed(&mut self, now: Instant) -> bool {
        if let Some(errand) = self.pending.take() {
            self.undo(errand);
        }
        let row = self.down.map_or(0, |down| down.row.saturating_add(1));
        let again = later(now, wait(row));
        let is_new = self.down.is_none();
        let down = self.down.get_or_insert(Down {
            since: now,
            again,
            row,
            began: false,
        });
        (down.again, down.row) = (again, row);
        is_new
    }

    /// A call may have been carried out, or not.
    pub(super) fn undo(&mut self, errand: Errand) {
        match errand {
            Errand::Take(ask) => {
                let numbers = (ask.first..).zip(0..ask.wanted);
                self.free
                    .extend(numbers.map(|(number, _)| SlotName::Reserved(number)));
            }
            Errand::Release(release) => {
                self.free.extend(release.slots);
                self.ended.extend(release.ended);
            }
            // Each is made again by itself.
            Errand::Renew(_) | Errand::Bind(_) => {}
        }
    }

    fn stands(&mut self, standing: Standing, now: Instant) {
        self.standing = standing;
        let most = self.most.filter(|(_, at)| later(*at, REMEMBERED) > now);
        if most.is_none_or(|(most, _)| most <= standing.processes) {
            self.most = Some((standing.processes, now));
        }
    }

    /// It ends: what no task is in is free.
    pub(super) fn leave(&mut self) -> Release {
        if let Some(errand) = self.pending.take() {
            self.undo(errand);
        }
        let spares = self.spares.drain(..);
        self.free
            .extend(spares.map(|(number, _)| SlotName::Reserved(number)));
        Release {
            process: self.process,
            slots: mem::take(&mut self.free).into_iter().collect(),
            ended: mem::take(&mut self.ended).into_iter().collect(),
            leaves: true,
        }
    }
}

/// Until the next try, after so many in vain.
fn wait(tries: u32) -> Duration {
    LONGEST_WAIT.min(FIRST_WAIT.saturating_mul(2_u32.saturating_pow(tries)))
}

/// So many processes count for so long, where a store knows fewer.
const REMEMBERED: Duration = Duration::from_secs(60);
/// Whatever a store says, it is asked for a slot no sooner again, and no later.
const SHORTEST_LINE: Duration = Duration::from_millis(50);
const LONGEST_LINE: Duration = Duration::from_secs(15);
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(1);
