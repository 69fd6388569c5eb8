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
