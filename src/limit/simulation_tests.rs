use super::*;

fn cases(n: u32) -> Vec<Case> {
    let mut cases = Vec::new();
    for kind in Kind::ALL {
        for headers in Headers::ALL {
            cases.push(Case::new(kind, headers, n));
        }
    }
    cases
}

fn table(n: u32) {
    for case in cases(n) {
        for (seed, network) in [(1, Network::Near), (2, Network::Far), (3, Network::Spikes)] {
            let skews = [0, -5, 5, 3_600, -3_600];
            let case = Case {
                seed,
                network,
                skew: skews[seed as usize],
                drift: 100 - 100 * seed as i64,
                ..case
            };
            let outcome = case.run();
            println!(
                "{n:5} {:18} {:9} {network:6?} sent {:6} refused {:4} used {:6.1} {:?} {:4} s",
                case.kind.name(),
                format!("{:?}", case.headers),
                outcome.sent,
                outcome.refused,
                outcome.used(case),
                outcome.mode.unwrap(),
                outcome.time_in_window_mode.as_secs(),
            );
        }
    }
}

#[test]
fn table_100() {
    table(100);
}

#[test]
fn table_1000() {
    table(1000);
}

#[test]
fn scan_bursty() {
    for percent in [30, 60, 90] {
        for kind in Kind::ALL {
            for headers in [Headers::Always, Headers::Never] {
                let (mut waits, mut refused, mut sent) = (Vec::new(), 0, 0);
                for seed in 0..4 {
                    let case = Case {
                        load: Load::Groups { most: 33, percent },
                        seed,
                        length: 7_200 * SECOND,
                        ..Case::new(kind, headers, 100)
                    };
                    let outcome = case.run();
                    waits.push(outcome.mean_wait());
                    refused += outcome.refused;
                    sent += outcome.sent;
                }
                let mean = waits.iter().sum::<f64>() / waits.len() as f64;
                println!(
                    "B {percent} {:18} {headers:9?} sent {sent} refused {refused} wait {mean:.2} {waits:.2?}",
                    kind.name()
                );
            }
        }
    }
}

#[test]
fn scan_processes() {
    for n in [100, 1000] {
        for clients in [2, 4] {
            for kind in Kind::ALL {
                let (mut refused, mut sent, mut used, mut fair) = (0, 0, 0.0, 0.0);
                let seeds = 4;
                for seed in 0..seeds {
                    let case = Case {
                        clients,
                        seed,
                        network: [Network::Near, Network::Far, Network::Spikes][seed as usize % 3],
                        length: if n == 100 {
                            7_200 * SECOND
                        } else {
                            1_200 * SECOND
                        },
                        ..Case::new(kind, Headers::Always, n)
                    };
                    let outcome = case.run();
                    refused += outcome.refused;
                    sent += outcome.sent;
                    used += outcome.used(case) / seeds as f64;
                    let poorest = *outcome.shares.iter().min().unwrap() as f64;
                    let richest = *outcome.shares.iter().max().unwrap() as f64;
                    fair += poorest / richest / seeds as f64;
                }
                println!(
                    "P {n} {clients} {:18} sent {sent} refused {:.3}% used {used:.1} fair {fair:.2}",
                    kind.name(),
                    100.0 * refused as f64 / sent as f64
                );
            }
        }
    }
}

#[test]
fn scan_faults() {
    for n in [20, 100, 1000] {
        for kind in Kind::ALL {
            for headers in [Headers::Always, Headers::Never] {
                let (mut refused, mut sent, mut used) = (0, 0, 0.0);
                for seed in 0..3 {
                    let case = Case {
                        faults: Some(100),
                        seed,
                        network: [Network::Near, Network::Far, Network::Spikes][seed as usize % 3],
                        ..Case::new(kind, headers, n)
                    };
                    let outcome = case.run();
                    refused += outcome.refused;
                    sent += outcome.sent;
                    used += outcome.used(case) / 3.0;
                }
                println!(
                    "F {n} {:18} {headers:9?} sent {sent} refused {refused} used {used:.1}",
                    kind.name()
                );
            }
        }
    }
}

#[test]
fn scan_restart() {
    for n in [100, 1000] {
        for kind in Kind::ALL {
            for headers in [Headers::Always, Headers::OnRefusal, Headers::Never] {
                let (mut refused, mut sent) = (0, 0);
                let mut when = Vec::new();
                for seed in 0..6 {
                    let restart = Duration::from_millis(400_000 + 7_700 * seed);
                    let case = Case {
                        restart: Some(restart),
                        seed,
                        network: [Network::Near, Network::Far, Network::Spikes][seed as usize % 3],
                        ..Case::new(kind, headers, n)
                    };
                    let outcome = case.run();
                    refused += outcome.refused;
                    when.extend(
                        outcome
                            .refusals
                            .iter()
                            .map(|at| (at.as_secs_f64() - restart.as_secs_f64()) as i64),
                    );
                    sent += outcome.sent;
                }
                println!(
                    "R {n} {:18} {headers:9?} sent {sent} refused {refused} {when:?}",
                    kind.name()
                );
            }
        }
    }
}

#[test]
fn wide() {
    for kind in Kind::ALL {
        let (mut runs, mut refused, mut bad) = (0, 0, Vec::new());
        for network in [Network::Near, Network::Far, Network::Spikes] {
            for skew in [0, 5, -3600] {
                for drift in [-200, 0, 200] {
                    for load in [
                        Load::Saturated,
                        Load::Groups {
                            most: 300,
                            percent: 80,
                        },
                        Load::Groups {
                            most: 10,
                            percent: 90,
                        },
                    ] {
                        let seed = 1000 + runs;
                        let n = if runs % 5 == 0 { 20 } else { 100 };
                        let case = Case {
                            network,
                            skew,
                            drift,
                            seed,
                            load,
                            length: 3_600 * SECOND,
                            ..Case::new(kind, Headers::Always, n)
                        };
                        let outcome = case.run();
                        runs += 1;
                        refused += outcome.refused;
                        if outcome.refused > 0 {
                            bad.push((
                                n,
                                network,
                                skew,
                                drift,
                                load,
                                seed,
                                outcome.refused,
                                outcome.refusals[0].as_secs(),
                            ));
                        }
                    }
                }
            }
        }
        println!(
            "W {} runs {runs} refused {refused} {:?}",
            kind.name(),
            &bad[..bad.len().min(3)]
        );
    }
}
