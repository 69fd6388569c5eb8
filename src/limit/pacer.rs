//! Pacing: requests leave in even steps.

use std::time::Duration;

use tokio::time::Instant;

/// The ground state of the limiter: one request each interval, so that no window of the server, wherever it begins, sees
/// more than the plan.
#[derive(Debug)]
pub(super) struct Pacer {
    interval: Duration,
    /// The theoretical arrival time: no request leaves before it. `None` until the first.
    tat: Option<Instant>,
}

impl Pacer {
    /// Steps that spread `n` requests over `window` and [`JITTER`], rounded up.
    pub(super) fn new(n: u32, window: Duration) -> Self {
        Self {
            interval: interval(n, window),
            tat: None,
        }
    }

    pub(super) const fn interval(&self) -> Duration {
        self.interval
    }

    /// When the next request may leave; `None` where it may at `now`.
    pub(super) fn held_until(&self, now: Instant) -> Option<Instant> {
        self.tat.filter(|&tat| tat > now)
    }

    /// A request leaves at `now`.
    pub(super) fn charge(&mut self, now: Instant) {
        let due = now.checked_sub(LATENESS).unwrap_or(now);
        let base = self.tat.map_or(now, |tat| tat.max(due));
        self.tat = Some(base + self.interval);
    }

    /// Nothing leaves before `until`.
    pub(super) fn push_to(&mut self, until: Instant) {
        self.tat = self.tat.max(Some(until));
    }

    pub(super) fn set_rate(&mut self, n: u32, window: Duration) {
        self.interval = interval(n, window);
    }
}

fn interval(n: u32, window: Duration) -> Duration {
    let nanos = (window + JITTER).as_nanos().div_ceil(u128::from(n.max(1)));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// How much the way to the server may differ from request to request.
const JITTER: Duration = Duration::from_millis(250);
/// A timer fires late, never early; what it is late is not lost.
const LATENESS: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_millis(60_012);

    #[test]
    fn the_interval_is_rounded_up() {
        assert_eq!(Pacer::new(1_000, WINDOW).interval().as_nanos(), 60_262_000);
        assert_eq!(Pacer::new(7, WINDOW).interval().as_nanos(), 8_608_857_143);
    }

    #[test]
    fn a_late_timer_costs_nothing_and_idleness_earns_nothing() {
        let start = Instant::now();
        let mut pacer = Pacer::new(100, WINDOW);
        let step = pacer.interval();
        assert_eq!(pacer.held_until(start), None);
        pacer.charge(start);
        assert_eq!(pacer.held_until(start), Some(start + step));

        let late = start + step + Duration::from_millis(3);
        assert_eq!(pacer.held_until(late), None);
        pacer.charge(late);
        assert_eq!(pacer.held_until(late), Some(start + step * 2));

        let idle = start + step * 50;
        pacer.charge(idle);
        let next = idle - LATENESS + step;
        assert_eq!(pacer.held_until(idle), Some(next));
    }
}
