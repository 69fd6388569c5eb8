//! A store in another region: a call takes 150 ms and more, and may.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tower_ploton::limit::Outage;

use crate::{
    servers::Kind,
    store::{Failure, Remote},
    world::{N, Process, SECOND, WINDOW, World},
};

/// Processes of so many workers, and the store as each of them reaches it.
fn fleet(world: &World, many: usize, workers: usize, store: &Remote) -> Vec<(Process, Remote)> {
    let process = |number| {
        let store = store.another();
        (
            world.process(number, workers, world.limit(store.clone())),
            store,
        )
    };
    (0..many).map(process).collect()
}

#[tokio::test(start_paused = true)]
async fn a_fleet_uses_the_whole_plan_by_a_store_that_is_far() {
    for (many, workers, ways, timeout) in [
        (1, 16, &[75][..], 500),
        (1, 16, &[60, 100, 75], 500),
        (1, 100, &[150], 500),
        (4, 16, &[75], 500),
        (4, 16, &[60, 100, 75], 500),
        (4, 100, &[150], 500),
        (30, 4, &[75], 500),
        (100, 4, &[75, 85], 500),
        // More than it may be: as 750.
        (4, 16, &[75], u64::MAX),
    ] {
        let world = World::new(Kind::LogOldest, N, WINDOW);
        let store = Remote::new(ways).timeout(Duration::from_millis(timeout));
        let fleet = fleet(&world, many, workers, &store);
        let start = Instant::now();
        sleep(35 * SECOND).await;
        let used = world.used(start + 5 * SECOND, start + 35 * SECOND);
        let calls: u32 = fleet.iter().map(|(_, remote)| remote.calls()).sum();
        let calls = f64::from(calls) / world.arrivals().len() as f64;
        let story =
            format!("{many} processes, {ways:?} ms: {used:.4} used, {calls:.2} calls a request");
        println!("{story}");
        assert_eq!(world.refused(), 0, "{story}");
        assert!(used >= 0.98 && calls < 2.3, "{story}");
    }
}

/// A store that answers once it is given up says nothing; one that is near does, however short its time was set.
#[tokio::test(start_paused = true)]
async fn a_store_that_is_too_far_is_one_that_is_away() {
    for timeout in [100, 0] {
        let world = World::new(Kind::LogOldest, N, WINDOW);
        let store = Remote::new(&[75]).timeout(Duration::from_millis(timeout));
        let fleet = fleet(&world, 4, 16, &store);
        sleep(20 * SECOND).await;
        assert_eq!(world.arrivals().len(), 0);
        for (process, _) in &fleet {
            let state = process.handle.snapshot().store.unwrap();
            assert_eq!(state.on_outage, Outage::Share);
            assert!(state.away_since.is_some());
        }
        let near = Remote::new(&[3]).timeout(Duration::from_millis(timeout));
        let world = World::new(Kind::LogOldest, N, WINDOW);
        let _fleet = self::fleet(&world, 4, 16, &near);
        let start = Instant::now();
        sleep(20 * SECOND).await;
        assert!(
            world.used(start + 5 * SECOND, start + 20 * SECOND) >= 0.98,
            "10 ms at least"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_a_store_that_is_far_brings_no_refusal() {
    for failure in [Failure::Refused, Failure::Silent, Failure::Answerless] {
        let world = World::new(Kind::LogOldest, N, WINDOW);
        let store = Remote::new(&[75, 90, 60]).timeout(Duration::from_millis(500));
        let fleet = fleet(&world, 4, 16, &store);
        let start = Instant::now();
        for (_, remote) in &fleet {
            remote.away(start + 10 * SECOND, start + 16 * SECOND, failure);
        }
        sleep(40 * SECOND).await;
        let meanwhile = world.used(start + 10 * SECOND, start + 16 * SECOND);
        let after = world.used(start + 20 * SECOND, start + 40 * SECOND);
        println!("{failure:?}: {meanwhile:.3} used meanwhile, {after:.3} after");
        assert_eq!(world.refused(), 0, "{failure:?}");
        assert!(world.most_in_a_window() <= N as usize);
        assert!(meanwhile >= 0.6 && after >= 0.98, "{failure:?}");
    }
}

/// Each sees the store's clock as late as its answers are.
#[tokio::test(start_paused = true)]
async fn who_is_near_and_who_is_far_bring_no_refusal_together() {
    for kind in [Kind::Fixed, Kind::LogOldest] {
        let world = World::new(kind, N, WINDOW);
        let near = Remote::new(&[1, 3]).timeout(Duration::from_millis(500));
        let mut processes = fleet(&world, 2, 16, &near);
        for ways in [&[75, 70][..], &[10, 140]] {
            let (process, remote) = fleet(&world, 1, 16, &near.by(ways)).remove(0);
            processes.push((process, remote));
        }
        let start = Instant::now();
        sleep(45 * SECOND).await;
        let used = world.used(start + 5 * SECOND, start + 45 * SECOND);
        println!("{kind:?}: {used:.4} used by those near and far");
        assert_eq!(world.refused(), 0);
        assert!(world.most_in_a_window() <= N as usize);
        assert!(used >= 0.98, "{used}");
    }
}
