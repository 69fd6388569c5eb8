//! What only the system knows: the time a thread has run, and where it runs.

use std::time::Duration;

/// A core for each side, so that neither moves about nor takes the other's time.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Core {
    Client = 0,
    Server = 1,
}

/// Keeps this thread on `core`, where there is more than one and the system allows it.
#[cfg(target_os = "linux")]
pub(crate) fn pin(core: Core) {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

    let Ok(allowed) = sched_getaffinity(None) else {
        return;
    };
    let mut cores = (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core));
    if let (true, Some(core)) = (allowed.count() > 1, cores.nth(core as usize)) {
        let mut one = CpuSet::new();
        one.set(core);
        // Where it can't be, the numbers only differ more from run to run.
        let _ = sched_setaffinity(None, &one);
    }
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn pin(_: Core) {}

/// How long this thread has run; none where nothing tells.
#[cfg(target_os = "linux")]
pub(crate) fn cpu_time() -> Option<Duration> {
    use rustix::time::{ClockId, clock_gettime};

    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).ok()
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn cpu_time() -> Option<Duration> {
    None
}
