//! The store is away, slow, or forgets; and the server refuses.

use http::Request;
use tokio::time::{Instant, sleep};
use tower::{Layer, ServiceExt, service_fn};
use tower_ploton::limit::{Outage, WaitTooLong};

use crate::{
    servers::Kind,
    store::{Failure, Remote},
    world::{N, Process, SECOND, WINDOW, World},
};

const FAILURES: [Failure; 3] = [Failure::Refused, Failure::Silent, Failure::Answerless];

/// Four processes, the store away from 20 s to 30 s, until 50 s.
async fn away_for_ten_seconds(
    outage: Outage,
    failure: Failure,
    many: usize,
) -> (World, Instant, Vec<(Process, Remote)>) {
    let world = World::new(Kind::LogOldest, N, WINDOW);
    let fleet = world.fleet(many, &Remote::new(&[1, 2]), outage);
    let start = Instant::now();
    sleep(20 * SECOND).await;
    for (_, remote) in &fleet {
        remote.away(start + 20 * SECOND, start + 30 * SECOND, failure);
    }
    sleep(5 * SECOND).await;
    for (process, _) in &fleet {
        let state = process.handle.snapshot().store.unwrap();
        let since = state.away_since.unwrap() - start;
        assert!(since >= 20 * SECOND && since < 22 * SECOND, "{since:?}");
        assert!(state.tried_at.unwrap() - Instant::now() <= SECOND);
        assert!(process.handle.store_error().is_some());
    }
    sleep(25 * SECOND).await;
    for (process, _) in &fleet {
        let state = process.handle.snapshot().store.unwrap();
        assert_eq!((state.away_since, state.processes as usize), (None, many));
        assert!(process.handle.store_error().is_none());
    }
    (world, start, fleet)
}

#[tokio::test(start_paused = true)]
async fn without_the_store_each_sends_its_share() {
    for failure in FAILURES {
        let (world, start, _fleet) = away_for_ten_seconds(Outage::Share, failure, 4).await;
        let at = |second: u32| start + second * SECOND;
        let away = world.used(at(21), at(30));
        let (around, back) = (world.used(at(20), at(35)), world.used(at(34), at(50)));
        let most = world.most_in_a_window();
        println!(
            "{failure:?}: {away:.3} used while away, {around:.3} with the ends, {back:.3} then; {most} in a window"
        );
        assert_eq!(world.refused(), 0);
        assert!(most <= N as usize);
        assert!(away > 0.93 && around > 0.8 && back > 0.98);
        let shares = world.shares(at(22), at(30), 4);
        assert!(
            shares.iter().max().unwrap() - shares.iter().min().unwrap() <= 2,
            "{shares:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn without_the_store_nothing_leaves_if_so_chosen() {
    for failure in FAILURES {
        let (world, start, _fleet) = away_for_ten_seconds(Outage::Wait, failure, 4).await;
        let at = |second: u32| start + second * SECOND;
        assert_eq!(world.used(at(22), at(30)), 0.0);
        let back = world.used(at(32), at(50));
        assert!(back > 0.98, "{back}");
        assert_eq!(world.refused(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn without_the_store_one_sends_all_if_so_chosen() {
    for failure in FAILURES {
        let (world, start, _fleet) = away_for_ten_seconds(Outage::Local, failure, 1).await;
        let at = |second: u32| start + second * SECOND;
        let (away, back) = (world.used(at(21), at(30)), world.used(at(33), at(50)));
        assert!(away > 0.95 && back > 0.98, "{away} {back}");
        assert_eq!(world.refused(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_was_never_there_stops_no_one_beyond_the_bounds() {
    let store = Remote::new(&[1]);
    let start = Instant::now();
    store.away(start, start + 60 * SECOND, Failure::Silent);
    let world = World::new(Kind::LogOldest, N, WINDOW);
    let limit = world.limit(store).max_wait(2 * SECOND);
    let service = limit.layer(service_fn(async |_: Request<()>| {
        Ok::<_, tower::BoxError>(http::Response::new(()))
    }));
    let request = || Request::get("/v1/tasks").body(()).unwrap();
    let error = service.clone().oneshot(request()).await.unwrap_err();
    assert!(error.is::<WaitTooLong>(), "{error}");
    assert_eq!((Instant::now() - start).as_secs(), 2);
    sleep(60 * SECOND).await;
    service.oneshot(request()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_store_that_forgets_lets_no_burst_through() {
    for (kind, many) in [
        (Kind::Fixed, 4),
        (Kind::LogOldest, 4),
        (Kind::LogOldest, 40),
    ] {
        let world = World::new(kind, N, WINDOW);
        let store = Remote::new(&[1, 2]);
        let _fleet = world.fleet(many, &store, Outage::Share);
        let start = Instant::now();
        sleep(20 * SECOND).await;
        for _ in 0..5 {
            store.forget();
            sleep(4 * SECOND).await;
        }
        let used = world.used(start + 20 * SECOND, start + 40 * SECOND);
        store.begin_anew();
        sleep(20 * SECOND).await;
        let anew = world.used(start + 40 * SECOND, start + 60 * SECOND);
        println!(
            "{kind:?}, {many} processes, forgotten five times: {used:.3} used; clock set back: {anew:.3}"
        );
        assert_eq!(world.refused(), 0);
        assert!(used > 0.8, "{used}");
        assert!(anew > 0.8, "{anew}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_store_costs_some_of_the_plan_and_no_refusal() {
    const SLOW: &[u64] = &[
        1, 1, 1, 30, 1, 1, 1, 1, 45, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 80,
    ];
    for many in [1, 4, 30] {
        let world = World::new(Kind::LogOldest, N, WINDOW);
        let _fleet = world.fleet(many, &Remote::new(SLOW), Outage::Share);
        let start = Instant::now();
        sleep(45 * SECOND).await;
        let used = world.used(start + 5 * SECOND, start + 45 * SECOND);
        println!("{many} processes, one call in twenty fails: {used:.3} used");
        assert_eq!(world.refused(), 0);
        assert!(world.most_in_a_window() <= N as usize);
        assert!(used > 0.8, "{used}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_one_sees_pauses_all() {
    for many in [4, 40] {
        let world = World::new(Kind::LogOldest, N, WINDOW);
        let _fleet = world.fleet(many, &Remote::new(&[1, 2]), Outage::Share);
        let start = Instant::now();
        sleep(20 * SECOND).await;
        world.refuse_one();
        sleep(30 * SECOND).await;
        let arrivals = world.arrivals();
        let refused = arrivals.iter().find(|arrival| !arrival.allowed).unwrap().at;
        assert_eq!(world.refused(), 1);
        // The mock asks for three seconds.
        let (heard, over) = (refused + 1_100 * SECOND / 1_000, refused + 3 * SECOND);
        assert_eq!(world.used(heard, over), 0.0);
        let first = arrivals
            .iter()
            .find(|arrival| arrival.at > heard)
            .unwrap()
            .at;
        assert!(first < over + SECOND, "{:?}", first - over);
        let alone = arrivals
            .iter()
            .filter(|one| one.at > first && one.at < first + SECOND);
        assert_eq!(alone.count(), 0, "one goes alone");
        let used = world.used(first + 3 * SECOND, start + 50 * SECOND);
        assert!(used > 0.97, "{used}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_task_ends_with_the_last_who_shares_the_limiter() {
    let world = World::new(Kind::LogOldest, N, WINDOW);
    let store = Remote::new(&[1]);
    let (mut first, mut second) = (
        world.fleet(1, &store, Outage::Share),
        world.fleet(1, &store, Outage::Share),
    );
    sleep(5 * SECOND).await;
    let (gone, _) = first.pop().unwrap();
    let handle = gone.handle.clone();
    drop(gone);
    sleep(40 * SECOND).await;
    let (other, remote) = second.pop().unwrap();
    assert_eq!(
        other.handle.snapshot().store.unwrap().processes,
        2,
        "a handle is left"
    );
    drop(handle);
    sleep(SECOND).await;
    assert_eq!(other.handle.snapshot().store.unwrap().processes, 1);
    drop(other);
    sleep(SECOND).await;
    let calls = remote.calls();
    sleep(100 * SECOND).await;
    assert_eq!(remote.calls(), calls);
}
