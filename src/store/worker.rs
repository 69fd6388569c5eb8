//! The life of the task that makes the calls of a store: started by the first who has something for it to do, on its runtime,
//! woken by a bell, and over with the last who shares the store.

use std::{
    pin::Pin,
    sync::{Arc, PoisonError},
    time::Duration,
};

use tokio::{
    runtime::Handle,
    sync::Notify,
    time::{Instant, timeout_at},
};

use crate::sync::Mutex;

/// What those who share a store know of the task. `F` is what it does last.
#[derive(Debug)]
pub(crate) struct Worker<F> {
    bell: Arc<Bell<F>>,
    at: At,
    /// When it was last given something to do.
    since: Instant,
}

/// Where the task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// It was not started yet, or its runtime ended.
    Nowhere,
    /// It looks for itself when it has done what it does.
    Work,
    /// It sleeps until then, or until the bell rings.
    Rest(Option<Instant>),
}

/// The task is to be started, or woken: once the lock is released.
#[must_use]
pub(crate) enum Call<F> {
    Start(Pin<Box<dyn Future<Output = ()> + Send>>, Handle),
    Ring(Arc<Bell<F>>),
}

impl<F> Call<F> {
    pub(crate) fn make(self) {
        match self {
            Self::Start(task, runtime) => drop(runtime.spawn(task)),
            Self::Ring(bell) => bell.rung.notify_one(),
        }
    }
}

impl<F> Worker<F> {
    pub(crate) fn new() -> Self {
        Self {
            bell: Bell::new(),
            at: At::Nowhere,
            since: Instant::now(),
        }
    }

    /// Whether the task need not be told of a change: it looks for itself.
    pub(crate) fn is_at_work(&self, now: Instant) -> bool {
        self.at == At::Work && !self.is_stuck(now)
    }

    /// Whether what the task has to do is long overdue: nobody drives its runtime.
    fn is_stuck(&self, now: Instant) -> bool {
        let due = match self.at {
            At::Work => self.since,
            At::Rest(Some(by_itself)) => by_itself,
            At::Nowhere | At::Rest(None) => return false,
        };
        now.saturating_duration_since(due) > STUCK
    }

    /// There is something to be done at `at`, by the task that `run` makes if there is none.
    pub(crate) fn is_due<R>(
        &mut self,
        at: Instant,
        now: Instant,
        run: impl FnOnce(Arc<Bell<F>>) -> R,
    ) -> Option<Call<F>>
    where
        R: Future<Output = ()> + Send + 'static,
    {
        if self.is_stuck(now) && Handle::try_current().is_ok() {
            // Whenever that one goes on, it sees that there is another.
            self.bell = Bell::new();
            self.at = At::Nowhere;
        }
        match self.at {
            At::Work => None,
            At::Rest(Some(by_itself)) if by_itself <= at => None,
            At::Rest(_) => {
                self.works(now);
                Some(Call::Ring(self.bell.clone()))
            }
            At::Nowhere => {
                // Without a runtime, as where a handle is used outside of it, it waits for somebody who has one.
                let runtime = Handle::try_current().ok()?;
                self.works(now);
                Some(Call::Start(Box::pin(run(self.bell.clone())), runtime))
            }
        }
    }

    /// Whether it is the task with that bell: it may be an earlier one, or another store's.
    pub(crate) fn is(&self, bell: &Arc<Bell<F>>) -> bool {
        Arc::ptr_eq(&self.bell, bell)
    }

    pub(crate) const fn works(&mut self, now: Instant) {
        self.at = At::Work;
        self.since = now;
    }

    pub(crate) const fn rests(&mut self, until: Option<Instant>) {
        self.at = At::Rest(until);
    }

    /// Its runtime ends: the next who is there starts another.
    pub(crate) const fn is_gone(&mut self) {
        self.at = At::Nowhere;
    }

    /// Nobody is there any more. It is told when this value is dropped.
    pub(crate) fn leave(&self, farewell: impl FnOnce() -> F) {
        if self.at != At::Nowhere {
            *self
                .bell
                .farewell
                .lock()
                .unwrap_or_else(PoisonError::into_inner) = Some(farewell());
        }
    }
}

impl<F> Drop for Worker<F> {
    fn drop(&mut self) {
        self.bell.rung.notify_one();
    }
}

/// What wakes the task.
#[derive(Debug)]
pub(crate) struct Bell<F> {
    rung: Notify,
    /// The last thing to be done; `Some` when all who shared the store are gone.
    farewell: Mutex<Option<F>>,
}

impl<F> Bell<F> {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            rung: Notify::new(),
            farewell: Mutex::new(None),
        })
    }

    /// Sleeps until it rings, or until then: either is a reason to look again.
    pub(crate) async fn rest(&self, until: Option<Instant>) {
        let rung = self.rung.notified();
        match until {
            Some(until) => drop(timeout_at(until, rung).await),
            None => rung.await,
        }
    }

    pub(crate) fn farewell(&self) -> Option<F> {
        self.farewell
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}

/// A task that is so much later than its timer, or at work for so long, may never go on.
const STUCK: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use std::future::{self, Ready};

    use tokio::{sync::mpsc, time::timeout};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn nothing(_: Arc<Bell<u32>>) -> Ready<()> {
        future::ready(())
    }

    #[tokio::test(start_paused = true)]
    async fn the_bell_wakes_the_task_for_what_is_due_sooner_and_when_all_are_gone() {
        let (tell, mut told) = mpsc::unbounded_channel();
        let mut worker = Worker::new();
        let now = Instant::now();
        let call = worker.is_due(now, now, |bell| async move {
            loop {
                bell.rest(None).await;
                let farewell = bell.farewell();
                tell.send(farewell).unwrap();
                if farewell.is_some() {
                    return;
                }
            }
        });
        call.unwrap().make();
        assert!(worker.is_at_work(now));
        assert!(worker.is_due(now, now, nothing).is_none());

        worker.rests(Some(now + SECOND));
        assert!(worker.is_due(now + SECOND, now, nothing).is_none());
        worker.is_due(now, now, nothing).unwrap().make();
        assert_eq!(timeout(SECOND, told.recv()).await, Ok(Some(None)));

        worker.rests(None);
        worker.leave(|| 7);
        drop(worker);
        assert_eq!(timeout(SECOND, told.recv()).await, Ok(Some(Some(7))));
    }

    #[tokio::test(start_paused = true)]
    async fn another_is_started_where_the_runtime_of_the_last_ended_or_stands_still() {
        let mut worker = Worker::new();
        let now = Instant::now();
        let is_started = |call| matches!(call, Some(Call::Start(..)));
        assert!(is_started(worker.is_due(now, now, nothing)));
        worker.is_gone();
        assert!(is_started(worker.is_due(now, now, nothing)));

        let bell = worker.bell.clone();
        let soon = now + STUCK;
        assert!(worker.is_at_work(soon));
        assert!(worker.is_due(soon, soon, nothing).is_none());
        let late = soon + Duration::from_millis(1);
        assert!(!worker.is_at_work(late));
        assert!(is_started(worker.is_due(late, late, nothing)));
        assert!(!worker.is(&bell), "the last one sees that it is not wanted");
    }

    #[test]
    fn without_a_runtime_none_is_started_and_nothing_is_left_to_do() {
        let mut worker = Worker::new();
        let now = Instant::now();
        assert!(worker.is_due(now, now, nothing).is_none());
        worker.leave(|| 7);
        assert_eq!(worker.bell.farewell(), None);
    }
}
