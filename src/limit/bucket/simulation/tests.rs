//! What the rules reach, by the server that counts.

use proptest::prelude::*;

use super::*;

/// The `index`-th of a series of runs: another network, clock and seed each time.
fn vary(case: Case, index: usize) -> Case {
    let skews = [0, 5, -5, 3_600, -3_600];
    let drifts = [0, 200, -200];
    Case {
        network: Network::ALL[index % 3],
        skew: skews[index % 5],
        drift: drifts[index / 3 % 3],
        seed: index as u64,
        ..case
    }
}

/// Saturated for 20 minutes.
fn whole_plan(n: u32, runs: usize) {
    for (kind, headers) in all() {
        for index in 0..runs {
            let case = vary(Case::new(kind, headers, n), index + kind as usize);
            let outcome = case.run();
            let (refused, used) = (outcome.refusals.len(), outcome.used(case));
            let told = format!("{case:?}: {refused} refused, {used:.4} used");
            let in_window_mode = outcome.in_window_mode > 1_000 * SECOND;
            let windows = kind.has_windows() && headers == Headers::Always;
            assert_eq!(in_window_mode, windows, "{told}");
            let (most_refused, least_used) = match kind {
                Kind::CounterStrict => (2, 0.9),
                Kind::CounterFloored => (2, 0.98),
                _ if windows => (0, 0.999),
                _ => (0, 0.989),
            };
            assert!(refused <= most_refused, "{told}");
            assert!(used >= least_used, "{told}");
        }
    }
}

fn all() -> impl Iterator<Item = (Kind, Headers)> {
    let with = |kind| Headers::ALL.map(|headers| (kind, headers));
    Kind::ALL.into_iter().flat_map(with)
}

#[test]
fn a_hundred_a_minute_are_used_and_none_is_refused() {
    whole_plan(100, 2);
}

#[test]
fn a_thousand_a_minute_are_used_and_none_is_refused() {
    whole_plan(1_000, 1);
}

/// Runs `case` `runs` times; the refused, the sent and the mean of `what`.
fn series(case: Case, runs: usize, what: impl Fn(Case, &Outcome) -> f64) -> (u64, u64, f64) {
    let (mut refused, mut sent, mut sum) = (0, 0, 0.0);
    for index in 0..runs {
        let case = vary(case, index);
        let outcome = case.run();
        refused += outcome.refusals.len() as u64;
        sent += outcome.sent;
        sum += what(case, &outcome);
    }
    (refused, sent, sum / runs as f64)
}

fn mean_wait(kind: Kind, headers: Headers, percent: u32) -> f64 {
    let case = Case {
        load: Load::Groups { most: 40, percent },
        length: 3_600 * SECOND,
        ..Case::new(kind, headers, 100)
    };
    let (refused, _, wait) = series(case, 4, |_, outcome| outcome.mean_wait());
    assert_eq!(refused, 0, "{case:?}");
    wait
}

#[test]
fn groups_leave_at_once_where_idleness_earned_it() {
    for kind in [
        Kind::LogOldest,
        Kind::LogNow,
        Kind::BucketFull,
        Kind::BucketNext,
    ] {
        let wait = mean_wait(kind, Headers::Always, 30);
        assert!(wait < 0.6, "{kind:?}: {wait}");
        let without_headers = mean_wait(kind, Headers::Never, 30);
        assert!(without_headers > 5.0 * wait, "{kind:?}: {without_headers}");
    }
    for kind in [
        Kind::Fixed,
        Kind::FixedTtl,
        Kind::AnchoredUp,
        Kind::AnchoredDown,
    ] {
        let wait = mean_wait(kind, Headers::Always, 60);
        assert!(wait < 0.2, "{kind:?}: {wait}");
    }
    for kind in [
        Kind::SmallBucketFull,
        Kind::SmallBucketNext,
        Kind::CounterFloored,
    ] {
        mean_wait(kind, Headers::Always, 60);
    }
}

#[test]
fn lost_requests_and_answers_without_headers_lead_to_no_refusal() {
    for (kind, headers) in all().filter(|(_, headers)| *headers != Headers::OnRefusal) {
        let case = Case {
            faults: Some(100),
            ..Case::new(kind, headers, 100)
        };
        let (refused, _, used) = series(case, 2, |case, outcome| outcome.used(case));
        let most = match kind {
            Kind::CounterStrict => 4,
            Kind::CounterFloored => 2,
            _ => 0,
        };
        assert!(refused <= most, "{kind:?}, {headers:?}: {refused}");
        assert!(used > 0.9, "{kind:?}, {headers:?}: {used}");
    }
}

/// What was known is gone, and the window is used: the first request may be refused, and nothing after it.
#[test]
fn a_restart_in_a_used_window_costs_one_refusal_at_most() {
    let counters = [Kind::CounterFloored, Kind::CounterStrict];
    for kind in Kind::ALL
        .into_iter()
        .filter(|kind| !counters.contains(kind))
    {
        for index in 0..3 {
            let restart = Duration::from_millis(400_000 + 17_700 * index as u64);
            let case = Case {
                restart: Some(restart),
                ..vary(Case::new(kind, Headers::Always, 100), index)
            };
            let refusals = case.run().refusals;
            let told = format!("{case:?}: {refusals:?}");
            assert!(refusals.len() <= 1, "{told}");
            let soon = restart..restart + 3 * SECOND;
            assert!(refusals.iter().all(|at| soon.contains(at)), "{told}");
        }
    }
}

#[test]
fn processes_that_share_a_key_share_its_windows_fairly() {
    for kind in Kind::ALL.into_iter().filter(|kind| kind.has_windows()) {
        for clients in [2, 4] {
            let case = Case {
                clients,
                length: 3_600 * SECOND,
                ..Case::new(kind, Headers::Always, 100)
            };
            let (refused, sent, used) = series(case, 3, |case, outcome| {
                let fairness = outcome.fairness();
                assert!(fairness >= 0.8, "{case:?}: {fairness}");
                outcome.used(case)
            });
            assert!(refused * 500 <= sent, "{case:?}: {refused} of {sent}");
            assert!(used >= 0.95, "{case:?}: {used}");
        }
    }
}

/// The second comes when the first has been in window mode for long.
#[test]
fn a_second_process_is_seen_in_the_first_window() {
    for kind in Kind::ALL.into_iter().filter(|kind| kind.has_windows()) {
        let case = Case {
            clients: 2,
            ..vary(Case::new(kind, Headers::Always, 100), 0)
        };
        let mut world = World::new(case);
        world
            .events
            .retain(|Reverse((_, _, client, _))| *client == 0);
        world.at(600 * SECOND, 1, Event::Come);
        let outcome = world.run();
        let refused = outcome.refusals.len();
        assert!(refused <= 4, "{kind:?}: {refused}");
        let alone = 600.0 / 1_200.0 * 2_000.0;
        let shared = outcome.shares[1] as f64 / (outcome.shares[0] as f64 - alone);
        assert!(shared > 0.7, "{kind:?}: {shared}");
    }
}

#[test]
fn nothing_is_special_about_a_minute() {
    for (kind, headers) in all() {
        for seconds in [2, 10, 600] {
            let case = Case {
                window: seconds * SECOND,
                length: 20 * seconds * SECOND,
                ..Case::new(kind, headers, 100)
            };
            let refused = case.run().refusals.len();
            let most = match kind {
                Kind::CounterFloored | Kind::CounterStrict => 3,
                _ => 0,
            };
            assert!(refused <= most, "{case:?}: {refused}");
        }
    }
}

fn case() -> impl Strategy<Value = Case> {
    let kind = prop::sample::select(&Kind::ALL[..]);
    let headers = prop::sample::select(&Headers::ALL[..]);
    let network = prop::sample::select(&Network::ALL[..]);
    let load = prop_oneof![
        Just(Load::Saturated),
        (1_u32..200, 20_u32..120).prop_map(|(most, percent)| Load::Groups { most, percent }),
    ];
    let faults = prop::option::of(20_u32..200);
    let clock = (-4_000_i64..4_000, -200_i64..200);
    (
        kind,
        headers,
        network,
        load,
        faults,
        clock,
        1_u32..80,
        any::<u64>(),
    )
        .prop_map(
            |(kind, headers, network, load, faults, (skew, drift), n, seed)| {
                // A bucket of one token refuses whatever the network brings too early.
                let small = matches!(kind, Kind::SmallBucketFull | Kind::SmallBucketNext);
                let n = if small { n + 19 } else { n };
                Case {
                    network,
                    load,
                    skew,
                    drift,
                    faults,
                    length: 600 * SECOND,
                    seed,
                    ..Case::new(kind, headers, n)
                }
            },
        )
}

proptest! {
    /// In any traffic on any server that counts what it says: nobody is refused, and the rules hold at each step.
    #[test]
    fn no_server_that_counts_what_it_says_refuses(case in case()) {
        let refused = case.run().refusals.len();
        let counter = matches!(case.kind, Kind::CounterFloored | Kind::CounterStrict);
        prop_assert!(refused == 0 || counter, "{} refused", refused);
    }
}
