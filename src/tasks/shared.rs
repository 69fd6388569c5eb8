//! The slots and the queue behind one short lock.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use super::{
    TaskLimitSnapshot,
    queue::{Outlook, Queue, Wakers},
    slots::Slots,
};

/// What all services made by one layer share.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    /// Held by the one that sets the gauges, so that the last to do so sets the newest.
    #[cfg(feature = "metrics")]
    publishing: Mutex<()>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) slots: Slots,
    pub(super) queue: Queue,
}

impl Shared {
    pub(super) fn new(capacity: u32) -> Self {
        Self {
            state: Mutex::new(State {
                slots: Slots::new(capacity),
                queue: Queue::default(),
            }),
            #[cfg(feature = "metrics")]
            publishing: Mutex::default(),
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
        drop(state);
        wakers.wake();
        #[cfg(feature = "metrics")]
        self.publish();
        result
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
        let _turn = self
            .publishing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let now = self.lock().snapshot();
        let gauges = crate::metrics::TaskSlots {
            capacity: now.capacity,
            taken: now.running,
            unsettled: now.unsettled,
            waiting: now.waiting,
        };
        gauges.publish();
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
        }
    }

    pub(super) fn outlook(&self, now: Instant) -> Outlook {
        Outlook {
            now,
            free: self.slots.free(),
            next_end: self.slots.next_end(),
        }
    }
}
