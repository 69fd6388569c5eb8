//! What an even pace can't use of the server's window leaves at once, where the answers prove that it is one.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use http::Request;
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use tokio::time::{Instant, sleep};
use tower::{Layer, Service, ServiceExt};
use tower_ploton::limit::{LeaseRequest, Outage, RateLimitService, SharedStore};

use crate::{
    servers::Kind,
    shares::assert_fair,
    store::{Failure, Remote},
    world::{Remotely, SECOND, World},
};

const MINUTE: Duration = Duration::from_secs(60);
const N: u32 = 600;

/// How long requests waited for their turn.
#[derive(Clone, Copy, Debug, Default)]
struct Waits {
    count: u32,
    sum: Duration,
}

impl Waits {
    fn add(&mut self, wait: Duration) {
        self.count += 1;
        self.sum += wait;
    }

    fn mean(self) -> f64 {
        self.sum.as_secs_f64() / f64::from(self.count)
    }
}

/// Groups of requests at random instants, each in one of the processes, in geometric sizes: `load` of the plan on average.
async fn groups(
    services: &[RateLimitService<Remotely>],
    load: f64,
    end: Instant,
    seed: u64,
) -> Waits {
    let mut random = SmallRng::seed_from_u64(seed);
    let waits = Arc::new(Mutex::new(Waits::default()));
    let size = f64::from(N) / 14.0;
    let gap = size / (load * f64::from(N) / MINUTE.as_secs_f64());
    while Instant::now() < end {
        let mut exponential = || -(1.0 - random.random::<f64>()).ln();
        sleep(Duration::from_secs_f64(gap * exponential())).await;
        let count = 1 + (exponential() / -(1.0 - 1.0 / size).ln()) as u32;
        let service = &services[random.random_range(0..services.len())];
        for _ in 0..count {
            let (mut service, waits) = (service.clone(), waits.clone());
            tokio::spawn(async move {
                let asked = Instant::now();
                service.ready().await.unwrap();
                waits.lock().unwrap().add(Instant::now() - asked);
                drop(service.call(Request::new(())).await);
            });
        }
    }
    *waits.lock().unwrap()
}

/// Processes whose requests come in groups, for a while from `start` on.
struct Bursty {
    world: World,
    store: Remote,
    stores: Vec<Remote>,
    services: Vec<RateLimitService<Remotely>>,
}

impl Bursty {
    fn new(world: World, many: usize) -> Self {
        let store = Remote::new(&[1, 4, 2]);
        let stores: Vec<_> = (0..many).map(|_| store.another()).collect();
        let service = |(number, store): (usize, &Remote)| {
            let limit = world.limit(store.clone()).on_outage(Outage::Share);
            limit.layer(world.remote(number))
        };
        let services = stores.iter().enumerate().map(service).collect();
        Self {
            world,
            store,
            stores,
            services,
        }
    }

    /// Returns how long requests waited on average, in s.
    async fn run(&self, minutes: u32, load: f64) -> f64 {
        let end = Instant::now() + minutes * MINUTE;
        let seed = self.world.arrivals().len();
        groups(&self.services, load, end, seed as u64).await.mean()
    }

    /// How often the store was called for a request.
    fn calls(&self) -> f64 {
        let calls: u32 = self.stores.iter().map(Remote::calls).sum();
        f64::from(calls) / self.world.arrivals().len() as f64
    }

    /// Whether the store takes the server for one that counts in windows.
    async fn is_proved(&self) -> bool {
        let mut ask = LeaseRequest::default();
        ask.interval = Duration::from_millis(100);
        ask.max_wait = SECOND;
        self.store.lease(ask).await.unwrap().windows
    }
}

#[tokio::test(start_paused = true)]
async fn groups_wait_far_less_where_the_server_counts_in_windows() {
    for (kind, many, ways, times) in [
        (Kind::Fixed, 4, 2..25, 4.0),
        (Kind::Fixed, 50, 10..250, 4.0),
        (Kind::AnchoredUp, 4, 10..250, 4.0),
        (Kind::AnchoredDown, 50, 2..25, 4.0),
    ] {
        let world = || World::new(kind, N, MINUTE).far(ways.clone());
        let paced = Bursty::new(world().without_headers(), many);
        let even = paced.run(60, 0.3).await;
        let fleet = Bursty::new(world(), many);
        fleet.run(10, 0.3).await;
        let wait = fleet.run(60, 0.3).await;
        let calls = (fleet.calls(), paced.calls());
        println!(
            "{kind:?}, {many} processes: {wait:.3} s, paced {even:.3} s; calls a request: {calls:.3?}"
        );
        assert!(wait * times < even);
        assert!(calls.0 < calls.1 * 1.02 && calls.0 < 2.3);
        assert_eq!(fleet.world.refused(), 0);
        assert!(fleet.is_proved().await);
        assert!(!paced.is_proved().await);
    }
}

#[tokio::test(start_paused = true)]
async fn no_other_server_is_taken_for_one_that_counts_in_windows() {
    for (kind, load) in [
        (Kind::LogOldest, 0.3),
        (Kind::LogOldest, 0.9),
        (Kind::LogNow, 0.3),
        (Kind::LogNow, 0.9),
        (Kind::CounterFloored, 0.3),
        (Kind::CounterStrict, 0.3),
        (Kind::BucketFull, 0.3),
        (Kind::SmallBucketNext, 0.3),
    ] {
        for many in [4, 50] {
            let fleet = Bursty::new(World::new(kind, N, MINUTE), many);
            fleet.run(20, load).await;
            assert_eq!(fleet.world.refused(), 0, "{kind:?}");
            assert!(!fleet.is_proved().await, "{kind:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_have_more_to_send_than_the_plan_share_it_evenly_as_ever() {
    for many in [4, 30] {
        let world = World::new(Kind::Fixed, N, MINUTE);
        let store = Remote::new(&[1, 2]);
        let fleet = world.fleet(many, &store, Outage::Share);
        let start = Instant::now();
        sleep(10 * MINUTE).await;
        let (from, to) = (start + 2 * MINUTE, start + 10 * MINUTE);
        let used = world.used(from, to);
        println!("{many} processes: {used:.4} used");
        assert!(used >= 0.99);
        assert_eq!(world.refused(), 0);
        assert_fair(&world.shares(from, to, many));
        let mut ask = LeaseRequest::default();
        (ask.interval, ask.max_wait) = (Duration::from_millis(100), SECOND);
        assert!(store.lease(ask).await.unwrap().windows);
        drop(fleet);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_ends_it_and_so_do_others_who_use_the_key() {
    let fleet = Bursty::new(World::new(Kind::Fixed, N, MINUTE), 4);
    fleet.run(10, 0.3).await;
    assert!(fleet.is_proved().await);
    fleet.world.refuse_one();
    fleet.run(4, 0.3).await;
    assert!(!fleet.is_proved().await, "a refusal");
    fleet.run(10, 0.3).await;
    assert!(fleet.is_proved().await, "it is proved again");

    let world = fleet.world.clone();
    let stranger = tokio::spawn(async move {
        loop {
            sleep(2 * SECOND).await;
            world.answer(4);
        }
    });
    fleet.run(4, 0.3).await;
    stranger.abort();
    assert!(!fleet.is_proved().await, "others");
    assert_eq!(fleet.world.refused(), 1);
}

/// Without the record the pace goes on, and no window was used so far that it could not.
#[tokio::test(start_paused = true)]
async fn a_store_that_loses_all_or_goes_away_brings_no_refusal() {
    for seed in 0..6 {
        let fleet = Bursty::new(World::new(Kind::Fixed, N, MINUTE), 4);
        fleet.run(4, 0.4).await;
        assert!(fleet.is_proved().await);
        sleep(seed * 9 * SECOND).await;
        let now = Instant::now();
        if seed % 2 == 0 {
            fleet.store.forget();
        } else {
            for store in &fleet.stores {
                store.away(now, now + 20 * SECOND, Failure::Refused);
            }
        }
        fleet.run(3, 2.0).await;
        assert_eq!(fleet.world.refused(), 0);
    }
}
