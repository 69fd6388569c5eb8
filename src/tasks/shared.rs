//! The slots and the queue behind one short lock.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use super::{
    StoreState, TaskLimitSnapshot,
    fleet::{
        Demand, Fleet,
        clerk::{Call, Clerk},
    },
    queue::{Outlook, Queue, Wakers},
    slots::Slots,
};
use crate::{idempotency_key::IdempotencyKey, store::Outage};

/// What all services made by one layer share.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) slots: Slots,
    pub(super) queue: Queue,
    /// `Some` where the capacity is shared with other processes.
    pub(super) sharing: Option<Box<Sharing>>,
    /// For a store that comes later.
    pub(super) outage: Outage,
}

/// This process's side of a store.
#[derive(Debug)]
pub(super) struct Sharing {
    pub(super) fleet: Fleet,
    pub(super) clerk: Clerk,
}

impl Drop for Sharing {
    fn drop(&mut self) {
        self.clerk.end(&mut self.fleet);
    }
}

impl Shared {
    pub(super) fn new(capacity: u32) -> Self {
        Self {
            state: Mutex::new(State {
                slots: Slots::new(capacity),
                queue: Queue::default(),
                sharing: None,
                outage: Outage::default(),
            }),
        }
    }

    /// Changes the state, and then serves those who wait.
    pub(super) fn change<T>(
        &self,
        change: impl FnOnce(&mut State, Instant, &mut Wakers) -> T,
    ) -> T {
        let mut wakers = Wakers::default();
        let mut state = self.lock();
        // Read under the lock, so that time goes back for no thread.
        let now = Instant::now();
        state.slots.expire(now);
        let result = change(&mut state, now, &mut wakers);
        let outlook = state.outlook(now);
        state.queue.serve(outlook, &mut wakers);
        let call = state.call(now);
        drop(state);
        wakers.wake();
        if let Some(call) = call {
            call.make();
        }
        #[cfg(feature = "metrics")]
        self.publish();
        result
    }

    /// Looks at what is between the slots and their store.
    pub(super) fn with_sharing<T>(&self, look: impl FnOnce(&mut Sharing) -> T) -> Option<T> {
        self.lock().sharing.as_deref_mut().map(look)
    }

    pub(super) fn snapshot(&self) -> TaskLimitSnapshot {
        self.change(|state, _, _| state.snapshot())
    }

    /// Sets the gauges, if anybody wants them.
    #[cfg(feature = "metrics")]
    #[inline]
    fn publish(&self) {
        if crate::metrics::is_started() {
            self.set_gauges();
        }
    }

    /// A recorder is foreign code, and called without the lock on the state.
    #[cfg(feature = "metrics")]
    #[cold]
    fn set_gauges(&self) {
        crate::metrics::task_slots(|| {
            let now = self.lock().snapshot();
            crate::metrics::TaskSlots {
                capacity: now.capacity,
                taken: now.running,
                unsettled: now.unsettled,
                waiting: now.waiting,
                store_is_up: now.store.map(|store| store.away_since.is_none()),
                store_taken: now
                    .store
                    .filter(|store| store.processes > 0)
                    .map(|store| store.taken),
            }
        });
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn snapshot(&self) -> TaskLimitSnapshot {
        TaskLimitSnapshot {
            capacity: self.slots.capacity(),
            running: self.slots.taken(),
            unsettled: self.slots.unsettled(),
            waiting: self.queue.waiting(),
            store: self
                .sharing
                .as_ref()
                .map(|sharing| StoreState::new(&sharing.fleet)),
        }
    }

    pub(super) fn outlook(&self, now: Instant) -> Outlook {
        let free = match &self.sharing {
            Some(sharing) => {
                let (taken, capacity) = (self.slots.taken(), self.slots.capacity());
                sharing.fleet.available(taken, capacity, now)
            }
            None => self.slots.free(),
        };
        Outlook {
            now,
            free,
            next_end: self.slots.next_end(),
        }
    }

    /// Takes a slot for a request whose turn it is.
    pub(super) fn take(&mut self, key: IdempotencyKey, now: Instant) -> u64 {
        let number = self.slots.take(key, now);
        if let Some(sharing) = &mut self.sharing {
            sharing.fleet.take(number, now);
        }
        number
    }

    /// A task came to its end, whichever process started it.
    pub(super) fn finished(&mut self, task: &str) {
        let is_new = self.slots.finished(task);
        if let Some(sharing) = self.sharing.as_mut().filter(|_| is_new) {
            sharing.fleet.saw_end(task);
        }
    }

    /// How many tasks run, as far as is known.
    pub(super) fn running(&self) -> usize {
        let all = self.sharing.as_ref();
        // Fits: usize is no smaller than u32 where tokio runs.
        let all = all.map_or(0, |sharing| sharing.fleet.standing().taken as usize);
        all.max(self.slots.taken())
    }

    pub(super) fn demand(&self) -> Demand {
        let (slots, until) = self.queue.wanting();
        Demand {
            slots,
            capacity: self.slots.capacity(),
            until,
        }
    }

    /// What the store's task must be told, if anything: nothing without a store.
    fn call(&mut self, now: Instant) -> Option<Call> {
        let sharing = self.sharing.as_ref()?;
        if sharing.clerk.is_at_work(now) {
            return None;
        }
        let demand = self.demand();
        let sharing = self.sharing.as_mut()?;
        match sharing.fleet.next(&self.slots, demand, now) {
            Ok(_) => sharing.clerk.is_due(now, now),
            Err(at) => sharing.clerk.is_due(at?, now),
        }
    }
}
