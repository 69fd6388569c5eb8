//! One process that sends as much as it may.

use super::{
    table::{assert_promised, print},
    *,
};

/// A counter estimates its window, and may refuse what was sent at an even pace; one that counts to the fraction of a
/// request does so more than once before the pace is low enough.
fn most_refused(kind: Kind) -> u32 {
    match kind {
        Kind::CounterFloored => 2,
        Kind::CounterStrict => 4,
        _ => 0,
    }
}

/// The least part of the plan that a saturated run uses. The count starts with the first request: the first minute is
/// always paced, since nothing is known of the server yet. After that a server with windows and headers gives N in each
/// of its windows, and one that begins within the run counts whole, as nothing is left for its end.
fn least_used(world: &World) -> f64 {
    match world.kind {
        // The probe that opens a window may take a second more, and the window is not used meanwhile.
        kind if kind.has_windows() && world.headers == Headers::Always => match world.delays {
            Delays::Uneven => 0.998,
            _ => 0.999,
        },
        // Steps are longer while its estimate looks like others, which answers that are late make it do more often.
        Kind::CounterFloored if world.delays == Delays::Uneven => 0.975,
        Kind::CounterFloored => 0.98,
        // A refusal pauses for as long as a minute where no header says less: 90 % on average, and one more or less is 5 %.
        Kind::CounterStrict => 0.80,
        // The step has room for delays that differ by 250 ms; these differ by more than a second.
        _ if world.delays == Delays::Uneven => 0.985,
        _ => 0.99,
    }
}

/// A short run has more of the first minute in it, which is paced, and where a pause costs more.
fn nobody_is_refused_and_the_plan_is_used(title: &str, worlds: &[World], minutes: u32) {
    let outcomes = in_parallel(worlds, |world| saturated(world, minutes));
    print(title, worlds, &outcomes);
    let short = if minutes < 20 { 0.005 } else { 0.0 };
    assert_promised(worlds, &outcomes, |world, outcome| {
        let is_used = match world.kind {
            Kind::CounterStrict if minutes < 20 => outcome.used >= 0.6,
            // A few longer steps are a hundredth of five minutes.
            Kind::CounterFloored if minutes < 20 => outcome.used >= least_used(world) - 0.03,
            _ => outcome.used >= least_used(world) - short,
        };
        outcome.tally.refused <= most_refused(world.kind) && is_used
    });
}

#[test]
fn a_saturated_plan_of_100_is_used_and_nobody_is_refused() {
    let title = "20 minutes saturated, each network";
    nobody_is_refused_and_the_plan_is_used(title, &worlds(100, 0), 20);
    for seed in 1..=3 {
        let title = format!("5 minutes saturated, each network, seed {seed}");
        nobody_is_refused_and_the_plan_is_used(&title, &worlds(100, seed), 5);
    }
}

/// Ten times the requests take ten times as long to run, so the networks come in turn.
#[test]
fn a_saturated_plan_of_1000_is_used_and_nobody_is_refused() {
    let in_turn = |seed| {
        let of_the_turn = |(turn, world)| ((turn / 3 + turn + seed) % 3 == 0).then_some(world);
        let worlds = worlds(1_000, seed as u64).into_iter().enumerate();
        worlds.filter_map(of_the_turn).collect::<Vec<_>>()
    };
    let title = "20 minutes saturated, one network in turn";
    nobody_is_refused_and_the_plan_is_used(title, &in_turn(0), 20);
    for seed in 1..=2 {
        let title = format!("3 minutes saturated, the next network in turn, seed {seed}");
        nobody_is_refused_and_the_plan_is_used(&title, &in_turn(seed), 3);
    }
}

#[test]
fn answers_that_are_lost_or_come_without_headers_make_no_refusals() {
    let mut worlds = worlds(100, 0);
    worlds.iter_mut().for_each(|world| world.faults = true);
    let outcomes = in_parallel(&worlds, |world| saturated(world, 20));
    print("20 minutes saturated, with faults", &worlds, &outcomes);
    assert_promised(&worlds, &outcomes, |world, outcome| {
        outcome.tally.refused <= most_refused(world.kind) && outcome.used >= 0.9
    });
}

/// Five minutes saturated, begun when another process has used `part` of the plan 20 s ago.
fn restarted(world: World, part: f64) -> Outcome {
    paused().block_on(async {
        let remote = world.begin();
        remote.used_by_others((f64::from(world.n) * part) as u32);
        sleep(Duration::from_secs(20)).await;
        let service = PlotonRateLimit::new(plan(world.n)).layer(remote.clone());
        let end = Instant::now() + MINUTE * 5;
        outcome(&remote, saturate(service, &world, end).await, world.n * 5)
    })
}

#[test]
fn a_restart_in_a_used_window_makes_no_refusals_once_headers_told() {
    for (seed, part) in [(0, 0.6), (1, 1.0), (2, 0.3), (3, 0.9)] {
        let mut worlds = worlds(100, seed);
        worlds.retain(|world| world.headers == Headers::Always);
        let outcomes = in_parallel(&worlds, |world| restarted(world, part));
        print(
            &format!("5 minutes, restarted with {part} used"),
            &worlds,
            &outcomes,
        );
        assert_promised(&worlds, &outcomes, |world, outcome| {
            // A strict counter refuses an even pace too.
            let most = if world.kind == Kind::CounterStrict {
                2
            } else {
                0
            };
            outcome.tally.refused_though_told <= most
        });
    }
}
