//! Waits for a task to end.

use std::{
    fmt,
    future::{Future, IntoFuture},
    pin::Pin,
    time::Duration,
};

use bytes::Bytes;
use http_body_util::Full;
use tokio::time::Instant;

use super::{
    failure::{Error, StillRunning},
    ploton::Ploton,
    service::PlotonService,
    tasks::{Task, TaskId},
};

/// A wait for a task's end: awaiting it gives the task, complete, failed or cancelled. Made by
/// [`Ploton::wait_for`](Ploton::wait_for).
///
/// The task is looked up after a pause, and after another that is half as long again, from 1 s up to 30 s. Pauses vary by a
/// quarter, so that many waits don't ask together. Each look is a request that the plan is charged for and that a rate limit
/// holds back like any other: at the longest pause a hundred waits take 200 requests a minute.
///
/// # Errors
///
/// [`StillRunning`] where the time is up, which is after an hour by default; else as a look-up.
#[must_use = "a wait does nothing until it is awaited"]
pub struct WaitFor<S, B = Full<Bytes>> {
    ploton: Ploton<S, B>,
    id: TaskId,
    first: Duration,
    longest: Duration,
    within: Duration,
}

impl<S, B> WaitFor<S, B> {
    pub(super) const fn new(ploton: Ploton<S, B>, id: TaskId) -> Self {
        Self {
            ploton,
            id,
            first: Duration::from_secs(1),
            longest: Duration::from_secs(30),
            within: Duration::from_secs(3600),
        }
    }

    /// The pause before the first look: zero looks at once. The second is 100 ms at least, or the longest. Default: 1 s.
    pub const fn first_pause(mut self, pause: Duration) -> Self {
        self.first = pause;
        self
    }

    /// The longest pause between two looks. Default: 30 s.
    pub const fn longest_pause(mut self, pause: Duration) -> Self {
        self.longest = pause;
        self
    }

    /// How long to wait; a look that is under way then is still waited for. Default: 1 h.
    pub const fn within(mut self, time: Duration) -> Self {
        self.within = time;
        self
    }
}

impl<S, B> IntoFuture for WaitFor<S, B>
where
    S: PlotonService<B>,
    B: From<Bytes> + Send + 'static,
{
    type Output = Result<Task, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        let start = Instant::now();
        let mut pause = self.first.min(self.longest);
        Box::pin(async move {
            loop {
                let waited = Instant::now().saturating_duration_since(start);
                // The last look is at the very end.
                let left = self.within.saturating_sub(waited);
                tokio::time::sleep(varied(pause, rand::random()).min(left)).await;
                let longer = pause.saturating_add(pause / 2);
                pause = longer.max(LEAST_SECOND).min(self.longest);
                let task = self.ploton.task(&self.id).await?;
                if task.status.is_final() {
                    return Ok(task);
                }
                let waited = Instant::now().saturating_duration_since(start);
                if waited >= self.within {
                    let task = Box::new(task);
                    return Err(Error::StillRunning(StillRunning { task, waited }));
                }
            }
        })
    }
}

/// So that pauses grow from zero too.
const LEAST_SECOND: Duration = Duration::from_millis(100);

/// From three quarters of `pause` to five.
fn varied(pause: Duration, random: f64) -> Duration {
    let least = (pause / 4).saturating_mul(3);
    least.saturating_add((pause / 2).mul_f64(random))
}

impl<S, B> fmt::Debug for WaitFor<S, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitFor")
            .field("id", &self.id)
            .field("within", &self.within)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_varies_by_a_quarter() {
        let pause = Duration::from_secs(8);
        for (random, seconds) in [(0.0, 6.0), (0.5, 8.0), (1.0, 10.0)] {
            assert_eq!(varied(pause, random).as_secs_f64(), seconds);
        }
        assert!(varied(Duration::MAX, 0.999) > Duration::MAX / 2);
    }
}
