//! The whole plan, no refusal, and each its share.

use tokio::time::{Instant, sleep};
use tower_ploton::limit::{Mode, Outage};

use crate::{
    servers::Kind,
    store::{Failure, Remote},
    world::{N, SECOND, WINDOW, World},
};

pub(crate) fn assert_fair(shares: &[usize]) {
    let mean = shares.iter().sum::<usize>() as f64 / shares.len() as f64;
    let most = (mean / 10.0).max(1.0);
    let is_fair = |&share: &usize| (share as f64 - mean).abs() <= most;
    assert!(shares.iter().all(is_fair), "{shares:?}");
}

#[tokio::test(start_paused = true)]
async fn a_fleet_uses_the_whole_plan_in_fair_shares() {
    let few: [(usize, &[u64]); 3] = [(1, &[1]), (4, &[1, 2, 1]), (4, &[20, 45, 30])];
    let many: [(usize, &[u64]); 2] = [(30, &[1, 5]), (100, &[1, 2, 9])];
    for (kind, fleets) in [
        (Kind::Fixed, &few[..]),
        (Kind::AnchoredUp, &few[1..2]),
        (Kind::SmallBucketNext, &few[1..2]),
        (Kind::LogOldest, &many[..]),
    ] {
        for &(many, ways) in fleets {
            let world = World::new(kind, N, WINDOW);
            let fleet = world.fleet(many, &Remote::new(ways), Outage::Share);
            let start = Instant::now();
            sleep(35 * SECOND).await;
            let (from, to) = (start + 5 * SECOND, start + 35 * SECOND);
            let used = world.used(from, to);
            let calls: u32 = fleet.iter().map(|(_, remote)| remote.calls()).sum();
            let calls = f64::from(calls) / world.arrivals().len() as f64;
            println!("{kind:?}, {many} processes: {used:.4} used, {calls:.2} calls a request");
            assert_eq!(world.refused(), 0);
            assert!(used >= 0.98, "{used}");
            assert!(calls < 2.3, "{calls}");
            assert_fair(&world.shares(from, to, many));
            for (process, _) in &fleet {
                let now = process.handle.snapshot();
                let strangers = (now.mode, now.others, now.shared_until);
                assert_eq!(strangers, (Mode::Paced, 0, None), "they are no strangers");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_comes_has_its_share_at_once_and_who_leaves_leaves_it_to_the_others() {
    for many in [4, 100] {
        let world = World::new(Kind::LogOldest, N, WINDOW);
        let store = Remote::new(&[1, 2]);
        let start = Instant::now();
        let mut fleet = world.fleet(many / 2, &store, Outage::Share);
        sleep(20 * SECOND).await;
        fleet.extend(world.fleet(many, &store, Outage::Share).split_off(many / 2));
        sleep(40 * SECOND).await;
        let (from, to) = (start + 24 * SECOND, start + 60 * SECOND);
        assert_fair(&world.shares(from, to, many));
        assert!(world.used(from, to) >= 0.98);
        fleet.truncate(many / 2);
        sleep(20 * SECOND).await;
        let (from, to) = (start + 60 * SECOND, start + 80 * SECOND);
        let used = world.used(from, to);
        println!("{many} processes, half of them leave: {used:.4} used");
        assert!(used >= 0.96, "{used}");
        let (from, to) = (start + 64 * SECOND, start + 80 * SECOND);
        assert_fair(&world.shares(from, to, many / 2));
        assert_eq!(world.refused(), 0);
        assert_eq!(
            fleet[0].0.handle.snapshot().store.unwrap().processes as usize,
            many / 2
        );
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_killed_process_had_is_lost_and_no_more() {
    for many in [4, 100] {
        let world = World::new(Kind::LogOldest, N, WINDOW);
        let mut fleet = world.fleet(many, &Remote::new(&[1, 2]), Outage::Share);
        sleep(20 * SECOND).await;
        let killed = Instant::now();
        for (_, remote) in fleet.split_off(many / 2) {
            remote.away(killed, killed + 3_600 * SECOND, Failure::Silent);
        }
        sleep(20 * SECOND).await;
        let used = world.used(killed, killed + 20 * SECOND);
        println!("{many} processes, half of them killed: {used:.4} used");
        assert!(used >= 0.9, "{used}");
        let used = world.used(killed + 5 * SECOND, killed + 20 * SECOND);
        assert!(used >= 0.98, "{used}");
        assert_eq!(world.refused(), 0);
    }
}
