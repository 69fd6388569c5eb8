//! One capacity, many processes: each starts tasks in slots that it takes from a shared store. Pure, given the time and what
//! the store answers; [`clerk`] makes the calls.
#![warn(clippy::arithmetic_side_effects)]

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    mem,
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use super::{
    slots::Slots,
    store::{Binding, Release, Renewal, SlotName, SlotRequest, Standing},
};
use crate::store::Outage;

mod answers;
pub(super) mod clerk;
mod ledger;
mod memory;

#[cfg(feature = "redis")]
pub(super) use self::ledger::micros;
pub use self::memory::MemorySlots;

/// What one process knows of the store, and the slots that it has from it.
#[derive(Debug)]
pub(super) struct Fleet {
    /// A number of its own.
    process: u64,
    outage: Outage,
    /// The next reserved slot's number: none is used twice, so a call that was carried out late harms nobody.
    next: u64,
    /// Reserved slots that no request has yet, and until when each is surely ours.
    spares: VecDeque<(u64, Instant)>,
    /// What the store is told of each slot that is taken here.
    told: BTreeMap<u64, Told>,
    /// What the store is to be told is free, and which tasks have ended.
    free: BTreeSet<SlotName>,
    ended: BTreeSet<Arc<str>>,
    /// When to ask for more; `None` where it is not in line.
    come: Option<Instant>,
    /// When the store was last told of all that is held.
    renewed: Option<Instant>,
    standing: Standing,
    /// The most processes that were lately, and when: a store that lost all knows only those who called since.
    most: Option<(u32, Instant)>,
    down: Option<Down>,
    /// The call that is under way.
    pending: Option<Errand>,
}

#[derive(Debug)]
struct Told {
    name: SlotName,
    /// Whether the store knows it.
    is_stored: bool,
    /// When it ends if nothing is heard of it.
    until: Option<Instant>,
}

/// The time without the store.
#[derive(Clone, Copy, Debug)]
pub(super) struct Down {
    pub(super) since: Instant,
    /// When the store is to be tried again.
    pub(super) again: Instant,
    /// Failures in a row.
    row: u32,
    /// Whether a task was started without the store.
    began: bool,
}

impl Down {
    fn is_long(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= LONG_AWAY
    }
}

/// A call of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Errand {
    Take(SlotRequest),
    Renew(Renewal),
    Bind(Binding),
    Release(Release),
}

/// Which call is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Due {
    Take(u32),
    Renew,
    Bind(Binding),
    Release,
}

/// Who wants a slot.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Demand {
    pub(super) slots: usize,
    pub(super) capacity: u32,
    /// When it becomes less by itself, if it does.
    pub(super) until: Option<Instant>,
}

impl Fleet {
    pub(super) const fn new(process: u64, outage: Outage) -> Self {
        Self {
            process,
            outage,
            next: 0,
            spares: VecDeque::new(),
            told: BTreeMap::new(),
            free: BTreeSet::new(),
            ended: BTreeSet::new(),
            come: None,
            renewed: None,
            standing: Standing {
                taken: 0,
                processes: 0,
            },
            most: None,
            down: None,
            pending: None,
        }
    }

    pub(super) const fn set_outage(&mut self, outage: Outage) {
        self.outage = outage;
    }

    /// How many slots may be taken now, of which `taken` are already.
    pub(super) fn available(&self, taken: usize, capacity: u32, now: Instant) -> usize {
        let spares = self.spares.iter().filter(|(_, until)| *until > now).count();
        // Who is away for a moment only must not begin what others may begin too.
        if self.down.is_none_or(|down| !down.is_long(now)) {
            return spares;
        }
        let share = self.outage.share(capacity, self.sharers());
        // Fits: usize is no smaller than u32 where tokio runs.
        spares.max((share as usize).saturating_sub(taken))
    }

    /// A request takes a slot.
    pub(super) fn take(&mut self, slot: u64, now: Instant) {
        self.drop_old_spares(now);
        let spare = self.spares.pop_front();
        let number = spare.map(|(number, _)| number);
        if let (None, Some(down)) = (number, &mut self.down) {
            down.began = true;
        }
        let told = Told {
            name: SlotName::Reserved(number.unwrap_or_else(|| self.numbers(1))),
            is_stored: number.is_some(),
            until: None,
        };
        self.told.insert(slot, told);
    }

    /// A task was seen to end, whoever started it.
    pub(super) fn saw_end(&mut self, task: &str) {
        self.ended.insert(task.into());
    }

    /// What is to be done next: a call now, or else to look again, at an instant or when something has changed.
    pub(super) fn next(
        &mut self,
        slots: &Slots,
        demand: Demand,
        now: Instant,
    ) -> Result<Due, Option<Instant>> {
        if let Some(lost) = self.pending.take() {
            // The task that made it is gone.
            self.undo(lost);
        }
        self.look(slots, now);
        if let Some(down) = &self.down {
            return if now < down.again {
                Err(Some(down.again))
            } else {
                Ok(Due::Renew)
            };
        }
        self.drop_old_spares(now);
        while self.spares.len() > demand.slots {
            let surplus = self.spares.pop_back();
            self.free
                .extend(surplus.map(|(number, _)| SlotName::Reserved(number)));
        }
        if !(self.free.is_empty() && self.ended.is_empty()) {
            return Ok(Due::Release);
        }
        for (slot, told) in &self.told {
            if let (SlotName::Reserved(number), Some(task)) = (&told.name, slots.task(*slot)) {
                let keep = slots.keep(*slot, KEEP, now).unwrap_or(KEEP);
                let binding = Binding::new(self.process, *number, task.clone(), keep);
                return Ok(Due::Bind(binding));
            }
        }
        let wanted = demand.slots.saturating_sub(self.spares.len());
        let renew = self.renew_at(wanted, now);
        if renew.is_some_and(|at| at <= now) {
            return Ok(Due::Renew);
        }
        let guard = demand.until.filter(|_| !self.spares.is_empty());
        if wanted == 0 {
            return Err(renew.into_iter().chain(guard).min());
        }
        match self.come {
            Some(at) if at > now => Err(renew.into_iter().chain(guard).chain([at]).min()),
            _ => Ok(Due::Take(demand.capacity)),
        }
    }

    /// The call is made now.
    pub(super) fn begin(
        &mut self,
        due: Due,
        slots: &Slots,
        demand: Demand,
        now: Instant,
    ) -> Errand {
        let process = self.process;
        let errand = match due {
            Due::Take(capacity) => {
                let wanted = demand.slots.saturating_sub(self.spares.len());
                let wanted = u32::try_from(wanted).unwrap_or(u32::MAX).min(MOST_AT_ONCE);
                Errand::Take(SlotRequest {
                    process,
                    first: self.numbers(wanted.into()),
                    wanted,
                    capacity,
                    keep: KEEP,
                })
            }
            Due::Renew => Errand::Renew(Renewal {
                process,
                held: self.held(slots, now),
                waits: self.come.is_some() && demand.slots > self.spares.len(),
                hold: self.down.is_some_and(|down| self.may_have_begun(down, now)),
            }),
            Due::Bind(binding) => Errand::Bind(binding),
            Due::Release => Errand::Release(Release {
                process,
                slots: mem::take(&mut self.free).into_iter().collect(),
                ended: mem::take(&mut self.ended).into_iter().collect(),
                leaves: false,
            }),
        };
        self.pending = Some(errand.clone());
        errand
    }

    /// Others may have started tasks while the store was away, too, that it has not heard of.
    fn may_have_begun(&self, down: Down, now: Instant) -> bool {
        down.began || (self.outage != Outage::Wait && down.is_long(now))
    }

    fn held(&self, slots: &Slots, now: Instant) -> Vec<(SlotName, Duration)> {
        let told = self.told.iter().filter_map(|(slot, told)| {
            let keep = slots.keep(*slot, KEEP, now)?;
            Some((told.name.clone(), keep))
        });
        let spares = self.spares.iter();
        let spares = spares.map(|(number, _)| (SlotName::Reserved(*number), KEEP));
        told.chain(spares).collect()
    }

    /// When the store is to be told of all that is held; `None` where it was never asked for anything.
    fn renew_at(&self, wanted: usize, now: Instant) -> Option<Instant> {
        let leaves_line = self.come.is_some() && wanted == 0;
        if leaves_line || self.told.values().any(|told| !told.is_stored) {
            return Some(now);
        }
        let every = if self.told.is_empty() && self.spares.is_empty() {
            SHOWN_EVERY
        } else {
            HEARTBEAT
        };
        self.renewed.map(|at| later(at, every))
    }

    /// Compares what the store is told with what is taken.
    fn look(&mut self, slots: &Slots, now: Instant) {
        let (free, ended) = (&mut self.free, &mut self.ended);
        self.told.retain(|slot, told| {
            if slots.is_taken(*slot) {
                return true;
            }
            match &told.name {
                SlotName::Task(task) if slots.has_ended(task) => {
                    ended.insert(task.clone());
                }
                // By its time limit, which the store knows; others may have heard of the task since.
                _ if told.until.is_some_and(|until| until <= now) => {}
                name => {
                    free.insert(name.clone());
                }
            }
            false
        });
        for (slot, task) in slots.claims() {
            let until = slots.ends(slot);
            if let Some(told) = self.told.get_mut(&slot) {
                told.until = until;
                if let Some(task) = task {
                    let is_bound_by_the_store =
                        told.is_stored && matches!(told.name, SlotName::Reserved(_));
                    if !is_bound_by_the_store && !is_of(&told.name, task) {
                        told.name = SlotName::Task(task.clone());
                        told.is_stored = false;
                    }
                }
                continue;
            }
            let name = match task {
                Some(task) => SlotName::Task(task.clone()),
                None => SlotName::Reserved(self.numbers(1)),
            };
            let told = Told {
                name,
                is_stored: false,
                until,
            };
            self.told.insert(slot, told);
        }
    }

    fn drop_old_spares(&mut self, now: Instant) {
        while let Some((number, _)) = self.spares.front().filter(|(_, until)| *until <= now) {
            self.free.insert(SlotName::Reserved(*number));
            self.spares.pop_front();
        }
    }

    fn numbers(&mut self, many: u64) -> u64 {
        let first = self.next;
        self.next = first.wrapping_add(many);
        first
    }
}

/// What it is like now.
impl Fleet {
    /// How many share the capacity, as far as is known; 0 where the store never answered.
    pub(super) fn sharers(&self) -> u32 {
        self.most.map_or(0, |(most, _)| most)
    }

    pub(super) const fn standing(&self) -> Standing {
        self.standing
    }

    pub(super) const fn outage(&self) -> Outage {
        self.outage
    }

    pub(super) const fn down(&self) -> Option<&Down> {
        self.down.as_ref()
    }
}

fn is_of(name: &SlotName, task: &Arc<str>) -> bool {
    matches!(name, SlotName::Task(its) if its == task)
}

fn later(instant: Instant, by: Duration) -> Instant {
    instant.checked_add(by).unwrap_or(instant)
}

/// The slots of a process that is gone are free after so long, but for those whose task is known or may have been created.
pub(super) const KEEP: Duration = Duration::from_secs(30);
/// How often the store is told of what is held.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// How often a process that holds nothing shows that it is there.
const SHOWN_EVERY: Duration = Duration::from_secs(10);
/// From then on tasks are begun without a store that is away.
const LONG_AWAY: Duration = Duration::from_secs(1);
/// A call takes no more slots than that.
const MOST_AT_ONCE: u32 = 100;
