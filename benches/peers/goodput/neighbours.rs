//! Several clients with one key, none of which knows of the others: processes, machines, colleagues.

use std::time::Duration;

use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{
    clients::Setup,
    load::{MINUTE, paused, saturate},
    network::{Remote, Tally},
    parallel::in_parallel,
    plan_use::{MODELS, Model},
    support::print::Table,
    wire::Wire,
};

const N: u32 = 1_000;
const MINUTES: u32 = 10;
const CLIENTS: [u32; 3] = [1, 10, 100];

/// A client's limit: the whole plan, as if it were alone, or its part of it, as if it knew how many there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Share {
    Whole,
    Part,
}

#[derive(Clone, Copy, Debug)]
struct Run {
    model: Model,
    clients: u32,
    setup: Setup,
    share: Share,
}

pub(crate) struct Together {
    run: Run,
    tallies: Vec<Tally>,
}

const SETUPS: [(Setup, Share); 6] = [
    (Setup::Ours, Share::Whole),
    (Setup::Ours, Share::Part),
    (Setup::GovernorPaced, Share::Whole),
    (Setup::GovernorPaced, Share::Part),
    (Setup::TowerResilience, Share::Whole),
    (Setup::TowerResilience, Share::Part),
];

impl Run {
    fn run(&self) -> Vec<Tally> {
        let Self {
            model,
            clients,
            setup,
            share,
        } = *self;
        let limit = match share {
            Share::Whole => N,
            Share::Part => N / clients,
        };
        // Together more than can ever be on their way, and two at least of each.
        let callers = N / 10 / clients + 2;
        paused().block_on(async {
            let mut remotes = vec![model.world(N, 0).begin()];
            for _ in 1..clients {
                remotes.push(remotes[0].another_client());
            }
            let end = Instant::now() + MINUTE * MINUTES;
            let mut running = JoinSet::new();
            for (turn, remote) in remotes.iter().cloned().enumerate() {
                running.spawn(async move {
                    sleep(Duration::from_millis(170 * turn as u64)).await;
                    let client = setup.client(Wire::new(remote), limit);
                    saturate(client, callers, end).await
                });
            }
            running.join_all().await;
            remotes.iter().map(Remote::tally).collect()
        })
    }

    fn name(&self) -> String {
        let share = match self.share {
            Share::Whole => "",
            Share::Part => "_shares",
        };
        let setup = self.setup.name();
        format!(
            "{}_{N}.clients_{}.{setup}{share}",
            self.model.name, self.clients
        )
    }
}

impl Together {
    fn used(&self) -> f64 {
        let allowed: u32 = self.tallies.iter().map(|tally| tally.allowed).sum();
        f64::from(allowed) / f64::from(N * MINUTES)
    }

    fn refused(&self) -> u32 {
        self.tallies.iter().map(|tally| tally.refused).sum()
    }

    /// What the poorest got, as a part of what the richest got.
    fn evenness(&self) -> f64 {
        let allowed = self.tallies.iter().map(|tally| f64::from(tally.allowed));
        let (poorest, richest) = (
            allowed.clone().fold(f64::MAX, f64::min),
            allowed.fold(0.0, f64::max),
        );
        poorest / richest
    }
}

pub(crate) fn together() -> Vec<Together> {
    let mut runs = Vec::new();
    for name in ["fixed", "fixed_quiet", "log"] {
        let model = MODELS.into_iter().find(|model| model.name == name).unwrap();
        for clients in CLIENTS {
            for (setup, share) in SETUPS {
                // The share of one is the whole.
                if clients > 1 || share == Share::Whole {
                    runs.push(Run {
                        model,
                        clients,
                        setup,
                        share,
                    });
                }
            }
        }
    }
    let tallies = in_parallel(&runs, Run::run);
    let together = runs.into_iter().zip(tallies);
    together
        .map(|(run, tallies)| Together { run, tallies })
        .collect()
}

pub(crate) fn print(all: &[Together]) {
    let title =
        format!("{MINUTES} minutes of several clients with one key, a plan of {N} a minute");
    let columns = [
        "clients",
        "each limits itself to",
        "client",
        "used",
        "429s",
        "poorest / richest",
    ];
    let mut table = Table::new(&title, &columns);
    for together in all {
        let run = together.run;
        let share = match run.share {
            Share::Whole => "the plan",
            Share::Part => "its share",
        };
        let cells = [
            run.clients.to_string(),
            share.to_owned(),
            run.setup.name().to_owned(),
            format!("{:.2} %", together.used() * 100.0),
            together.refused().to_string(),
            format!("{:.2}", together.evenness()),
        ];
        table.row(run.model.name, cells);
    }
    table.print();
}

/// The figures by name.
pub(crate) fn figures(all: &[Together]) -> Vec<(String, f64)> {
    let mut figures = Vec::new();
    for together in all {
        let name = format!("goodput.{}", together.run.name());
        figures.push((format!("{name}.utilisation"), together.used()));
        figures.push((format!("{name}.rejected"), f64::from(together.refused())));
    }
    figures
}
