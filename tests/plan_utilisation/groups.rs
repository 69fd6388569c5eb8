//! Requests that come in groups, with time between them.

use super::{
    table::{assert_promised, print},
    *,
};

/// Groups of requests at random instants, `load` of the plan on average, in geometric sizes around N/14: an even pace
/// makes a request wait for 5.2 s at a load of 0.3 and for 10.1 s at 0.6, as in the simulation of the rules.
async fn groups(
    service: RateLimitService<Remote>,
    world: &World,
    load: f64,
    end: Instant,
) -> (Waits, Waits) {
    let mut random = StdRng::seed_from_u64(!world.seed);
    let (n, waits) = (f64::from(world.n), Arc::new(Mutex::new(Waits::default())));
    let size = n / 14.0;
    let gap = size / (load * n / MINUTE.as_secs_f64());
    // What an even pace would make them wait.
    let step = (MINUTE + Duration::from_millis(262)) / world.n;
    let (mut even, mut free) = (Waits::default(), Instant::now());
    while Instant::now() < end {
        let mut exponential = || -(1.0 - random.random::<f64>()).ln();
        sleep(Duration::from_secs_f64(gap * exponential())).await;
        let count = 1 + (exponential() / -(1.0 - 1.0 / size).ln()) as u32;
        for _ in 0..count {
            free = free.max(Instant::now());
            even.add(free - Instant::now());
            free += step;
            let (mut service, waits) = (service.clone(), waits.clone());
            tokio::spawn(async move {
                let asked = Instant::now();
                service.ready().await.unwrap();
                waits.lock().unwrap().add(Instant::now() - asked);
                let _ = service.call(Request::new(())).await;
            });
        }
    }
    let waits = *waits.lock().unwrap();
    (waits, even)
}

/// What it came to, and what an even pace would have made them wait.
fn bursty(world: World, load: f64, hours: u32, burst: Option<u32>) -> (Outcome, Waits) {
    paused().block_on(async {
        let remote = world.begin();
        let mut limit = PlotonRateLimit::new(plan(world.n));
        if let Some(most) = burst {
            limit = limit.burst(NonZeroU32::new(most).unwrap());
        }
        let service = limit.layer(remote.clone());
        let end = Instant::now() + MINUTE * 60 * hours;
        let (waits, even) = groups(service, &world, load, end).await;
        (outcome(&remote, waits, world.n * 60 * hours), even)
    })
}

/// The mean wait is within a fifth of `wait` seconds, at logs and at buckets, whatever the network; where an even pace makes
/// them wait for `even` seconds, so that it does not matter how the groups fell.
fn assert_waits(title: &str, worlds: &[World], runs: &[(Outcome, Waits)], even: f64, wait: f64) {
    let outcomes: Vec<Outcome> = runs.iter().map(|run| run.0).collect();
    print(title, worlds, &outcomes);
    assert_promised(worlds, &outcomes, |_, outcome| outcome.tally.refused == 0);
    for (worlds, runs) in worlds.chunks(6).zip(runs.chunks(6)) {
        let (mut real, mut paced) = (Waits::default(), Waits::default());
        for (outcome, even) in runs {
            real.add_all(outcome.waits);
            paced.add_all(*even);
        }
        let mean = real.mean() * even / paced.mean();
        let off = mean / wait - 1.0;
        assert!(off.abs() <= 0.2, "{:?}: {mean} s, not {wait} s", worlds[0]);
    }
}

fn logs_and_buckets(headers: Headers, seed: u64) -> Vec<World> {
    let kinds = [
        Kind::LogOldest,
        Kind::LogNow,
        Kind::BucketFull,
        Kind::BucketNext,
    ];
    let mut worlds = worlds(100, seed);
    worlds.retain(|world| world.headers == headers && kinds.contains(&world.kind));
    worlds
}

/// The waits that the simulation of the rules gave.
#[test]
fn what_idleness_earned_lets_groups_of_requests_leave_with_little_wait() {
    for (percent, hours, even, wait) in [(30, 8, 5.2, 0.5), (60, 5, 10.1, 4.1)] {
        let worlds = logs_and_buckets(Headers::Always, 0);
        let load = f64::from(percent) / 100.0;
        let runs = in_parallel(&worlds, |world| bursty(world, load, hours, None));
        let title = format!("{hours} hours of groups of requests, {percent} % of the plan");
        assert_waits(&title, &worlds, &runs, even, wait);
    }
}

#[test]
fn without_a_burst_they_wait_as_an_even_pace_makes_them() {
    for (percent, hours, wait) in [(30, 8, 5.2), (60, 8, 10.1)] {
        let worlds = logs_and_buckets(Headers::Never, 1);
        let worlds = &worlds[..3];
        let load = f64::from(percent) / 100.0;
        let runs = in_parallel(worlds, |world| bursty(world, load, hours, Some(1)));
        let title = format!("{hours} hours of groups, {percent} % of the plan, no burst");
        assert_waits(&title, worlds, &runs, wait, wait);
    }
}
