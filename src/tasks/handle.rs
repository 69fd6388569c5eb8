//! A look at the slots, and a hand on them.

use std::{fmt, num::NonZeroU32, sync::Arc};

use tokio::time::Instant;

use super::{fleet::Fleet, shared::Shared};
use crate::{
    idempotency_key::IdempotencyKey,
    plan::Plan,
    store::{Outage, StoreError},
};

/// Tells a [`PlotonTaskLimit`](crate::PlotonTaskLimit) what becomes of tasks, shows its slots, and changes its capacity.
///
/// Whoever reads answers feeds it. Repeated and late news do no harm: a task that has ended never runs again, and two
/// slots are never kept for one task.
///
/// # Example
///
/// ```
/// use std::num::NonZeroU32;
/// use tower_ploton::{Plan, PlotonTaskLimit};
///
/// let handle = PlotonTaskLimit::new(Plan::Prototyping).handle();
/// handle.running("task_8xK2mP"); // from an earlier run of the program
/// assert_eq!(handle.snapshot().running, 1);
///
/// handle.finished("task_8xK2mP");
/// handle.set_capacity(NonZeroU32::new(25).unwrap());
/// assert_eq!((handle.snapshot().running, handle.snapshot().capacity), (0, 25));
/// ```
#[derive(Clone, Debug)]
pub struct TaskLimitHandle {
    pub(super) shared: Arc<Shared>,
}

impl TaskLimitHandle {
    /// The task that the request with this idempotency key created. [`TaskSlot::bind`] is the same where the answer is at
    /// hand.
    pub fn bind(&self, key: &IdempotencyKey, task: &str) {
        self.shared
            .change(|state, now, _| state.slots.bind_key(key, task, now));
    }

    /// A task came to its end: its slot is free, also where the answer that names it is still on its way.
    pub fn finished(&self, task: &str) {
        self.shared.change(|state, _, _| state.finished(task));
    }

    /// A task was seen running. It keeps its slot for another [time limit](crate::PlotonTaskLimit::time_limit); one that
    /// has none, of an earlier run or of another program, takes one, even beyond the capacity.
    pub fn running(&self, task: &str) {
        self.shared
            .change(|state, now, _| state.slots.running(task, now));
    }

    /// The whole list of running tasks, asked for at `asked` (before its first page). It settles what is unclear: a task
    /// that it lacks has ended; one that has no slot gets that of a request that may have created it, else one of its own;
    /// and a request that is over and created none of them gives its slot back. Of one that ended unclearly less than a second
    /// before `asked` it says nothing: that may still have been on its way.
    ///
    /// # Example
    ///
    /// ```
    /// use tokio::time::Instant;
    /// use tower_ploton::{Plan, PlotonTaskLimit};
    ///
    /// let handle = PlotonTaskLimit::new(Plan::Prototyping).handle();
    /// let asked = Instant::now();
    /// handle.listed(["task_8xK2mP", "task_1aB3cD"], asked);
    /// assert_eq!(handle.snapshot().running, 2);
    /// ```
    pub fn listed<'a>(&self, tasks: impl IntoIterator<Item = &'a str>, asked: Instant) {
        // Foreign code is not run under the lock.
        let tasks: Vec<&str> = tasks.into_iter().collect();
        self.shared
            .change(|state, now, _| state.slots.listed(tasks.into_iter(), asked, now));
    }

    /// Whether a task has a slot.
    #[cfg(feature = "json")]
    pub(crate) fn holds(&self, task: &str) -> bool {
        self.shared.change(|state, _, _| state.slots.holds(task))
    }

    /// Changes how many tasks may run at once, for those who wait too. Where more run already, none starts until enough
    /// have ended.
    pub fn set_capacity(&self, capacity: NonZeroU32) {
        self.shared
            .change(|state, _, _| state.slots.set_capacity(capacity.get()));
    }

    /// Changes the capacity to that of `plan`.
    pub fn set_plan(&self, plan: Plan) {
        self.set_capacity(plan.concurrent_tasks());
    }

    /// Why the [shared store](crate::PlotonTaskLimit::shared) gave no answer; `None` while it does, and without one.
    #[must_use]
    pub fn store_error(&self) -> Option<Arc<StoreError>> {
        let error = self.shared.with_sharing(|sharing| sharing.clerk.error());
        error.flatten()
    }

    /// The slots as they are now.
    #[must_use]
    pub fn snapshot(&self) -> TaskLimitSnapshot {
        self.shared.snapshot()
    }
}

/// A [`PlotonTaskLimit`](crate::PlotonTaskLimit) at one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TaskLimitSnapshot {
    /// How many tasks may run at once.
    pub capacity: u32,
    /// Slots that are taken: by tasks that run, and by requests that may create one. With a
    /// [store](crate::PlotonTaskLimit::shared) those that this process knows of.
    pub running: usize,
    /// How many of them belong to a request that is over, of which nobody knows whether it created a task, or which one. A
    /// [list](TaskLimitHandle::listed) settles them.
    pub unsettled: usize,
    /// Requests that wait for a slot.
    pub waiting: usize,
    /// What is between the task limit and the store that it shares its capacity by; `None` without one.
    pub store: Option<StoreState>,
}

/// A task limit's side of its [`SharedSlots`](super::SharedSlots).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreState {
    /// Processes that were there when the store last answered, with this one; 0 if it never did.
    pub processes: u32,
    /// Slots that were taken then, by all of them.
    pub taken: u32,
    /// Since when it gives no answer; `None` while it does. [`TaskLimitHandle::store_error`] tells why.
    pub away_since: Option<Instant>,
    /// When it is tried again; `Some` while it gives no answer.
    pub tried_at: Option<Instant>,
    /// What becomes of requests while it gives no answer.
    pub on_outage: Outage,
}

impl StoreState {
    pub(super) fn new(fleet: &Fleet) -> Self {
        let standing = fleet.standing();
        Self {
            processes: standing.processes,
            taken: standing.taken,
            away_since: fleet.down().map(|down| down.since),
            tried_at: fleet.down().map(|down| down.again),
            on_outage: fleet.outage(),
        }
    }
}

/// A handle to the slot of one task, in the extensions of the answer that created it, and of every other answer after
/// which a task may exist.
///
/// It is only a handle: dropping it, or the answer, frees nothing. The slot is free when the task has ended
/// ([`TaskLimitHandle::finished`]), by [`release`](Self::release), or by its time limit.
#[derive(Clone)]
pub struct TaskSlot {
    pub(super) shared: Arc<Shared>,
    pub(super) number: u64,
}

impl TaskSlot {
    /// Says which task is in the slot.
    pub fn bind(&self, task: &str) {
        self.shared
            .change(|state, now, _| state.slots.bind(self.number, task, now));
    }

    /// Gives the slot back: its task has ended, or was never created. A second time does nothing.
    pub fn release(&self) {
        self.shared
            .change(|state, _, _| state.slots.release(self.number));
    }
}

impl fmt::Debug for TaskSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TaskSlot({})", self.number)
    }
}
