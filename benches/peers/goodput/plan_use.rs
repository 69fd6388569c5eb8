//! One client alone with each kind of server: how much of the plan it uses, what is refused, how long requests wait.

use tokio::time::Instant;

use super::{
    clients::Setup,
    load::{Fates, MINUTE, groups, paused, saturate},
    network::{Delays, Tally, World},
    parallel::in_parallel,
    servers::{Headers, Kind},
    support::print::{Table, cell},
    wire::Wire,
};

const MINUTES: u32 = 20;
/// How often a client is run: groups are random, and the fewer they are the more so.
const fn times(n: u32, load: Load) -> u64 {
    match (n, load) {
        (..=100, Load::Full) => 3,
        (_, Load::Full) => 1,
        (..=100, Load::Part(_)) => 20,
        (_, Load::Part(_)) => 2,
    }
}

/// A kind of server, as it stands in the printed names and for a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Model {
    pub(crate) name: &'static str,
    pub(crate) title: [&'static str; 2],
    kind: Kind,
    headers: Headers,
}

pub(crate) const MODELS: [Model; 8] = [
    model("fixed", ["fixed", "windows"], Kind::Fixed, Headers::Always),
    model(
        "fixed_quiet",
        ["the same, headers", "on 429s only"],
        Kind::Fixed,
        Headers::OnRefusal,
    ),
    model(
        "anchored",
        ["windows from the", "first request"],
        Kind::AnchoredUp,
        Headers::Always,
    ),
    model("log", ["sliding", "log"], Kind::LogOldest, Headers::Always),
    model(
        "counter",
        ["sliding counter,", "rounded down"],
        Kind::CounterFloored,
        Headers::Always,
    ),
    model(
        "counter_strict",
        ["sliding counter,", "strict"],
        Kind::CounterStrict,
        Headers::Always,
    ),
    model(
        "bucket",
        ["token bucket", "of N"],
        Kind::BucketFull,
        Headers::Always,
    ),
    model(
        "bucket_small",
        ["token bucket", "of N/10"],
        Kind::SmallBucketFull,
        Headers::Always,
    ),
];

const fn model(
    name: &'static str,
    title: [&'static str; 2],
    kind: Kind,
    headers: Headers,
) -> Model {
    Model {
        name,
        title,
        kind,
        headers,
    }
}

impl Model {
    pub(crate) fn world(self, n: u32, seed: u64) -> World {
        World {
            kind: self.kind,
            headers: self.headers,
            n,
            delays: Delays::Far,
            skew: 0,
            drift: 0,
            faults: false,
            seed,
        }
    }
}

/// How much is asked for.
#[derive(Clone, Copy, Debug)]
enum Load {
    Full,
    /// Of the plan, in groups.
    Part(f64),
}

#[derive(Clone, Copy, Debug)]
struct Run {
    model: Model,
    n: u32,
    setup: Setup,
    load: Load,
    seed: u64,
}

/// What runs of one kind came to, all seeds together.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Outcome {
    tally: Tally,
    fates: Fates,
    runs: u32,
}

impl Outcome {
    /// Of what the plan names for the time, as a fraction.
    pub(crate) fn used(&self, n: u32) -> f64 {
        f64::from(self.tally.allowed) / f64::from(n * MINUTES * self.runs)
    }

    /// 429s in one run, on average.
    pub(crate) fn refused(&self) -> f64 {
        f64::from(self.tally.refused) / f64::from(self.runs)
    }

    /// Of what was sent, as a fraction.
    pub(crate) fn refused_part(&self) -> f64 {
        f64::from(self.tally.refused) / f64::from(self.tally.sent().max(1))
    }

    /// Requests that ended without a success in one run, on average.
    fn lost(&self) -> f64 {
        f64::from(self.fates.lost) / f64::from(self.runs)
    }

    fn add(&mut self, tally: Tally, fates: Fates) {
        self.tally.allowed += tally.allowed;
        self.tally.refused += tally.refused;
        self.fates.add(fates);
        self.runs += 1;
    }
}

/// One client with one kind of server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub(crate) model: Model,
    pub(crate) n: u32,
    pub(crate) setup: Setup,
    pub(crate) full: Outcome,
    third: Outcome,
    most: Outcome,
}

impl Run {
    fn run(self) -> (Tally, Fates) {
        paused().block_on(async {
            let remote = self.model.world(self.n, self.seed).begin();
            let client = self.setup.client(Wire::new(remote.clone()), self.n);
            let end = Instant::now() + MINUTE * MINUTES;
            // More callers than can ever be on their way.
            let callers = self.n / 10 + 10;
            let fates = match self.load {
                Load::Full => saturate(client, callers, end).await,
                Load::Part(load) => groups(client, self.n, load, self.seed, end).await,
            };
            (remote.tally(), fates)
        })
    }
}

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    let mut runs = Vec::new();
    for n in [100, 1_000] {
        for model in MODELS {
            for setup in Setup::ALL {
                rows.push(Row {
                    model,
                    n,
                    setup,
                    full: Outcome::default(),
                    third: Outcome::default(),
                    most: Outcome::default(),
                });
                for load in [Load::Full, Load::Part(0.3), Load::Part(0.6)] {
                    for seed in 0..times(n, load) {
                        let run = Run {
                            model,
                            n,
                            setup,
                            load,
                            seed,
                        };
                        runs.push((rows.len() - 1, run));
                    }
                }
            }
        }
    }
    let outcomes = in_parallel(&runs, |(_, run)| run.run());
    for ((row, run), (tally, fates)) in runs.into_iter().zip(outcomes) {
        let row = &mut rows[row];
        let outcome = match run.load {
            Load::Full => &mut row.full,
            Load::Part(load) if load < 0.5 => &mut row.third,
            Load::Part(_) => &mut row.most,
        };
        outcome.add(tally, fates);
    }
    rows
}

pub(crate) fn print(rows: &[Row]) {
    for n in [100, 1_000] {
        let title = format!("{MINUTES} minutes, a plan of {n} a minute");
        let columns = [
            "client",
            "full load: used",
            "429s",
            "lost",
            "wait",
            "30 %: 429s",
            "lost",
            "wait",
            "60 %: 429s",
            "lost",
            "wait",
        ];
        let mut table = Table::new(&title, &columns);
        for row in rows.iter().filter(|row| row.n == n) {
            let mut cells = vec![
                row.setup.name().to_owned(),
                format!("{:.2} %", row.full.used(n) * 100.0),
            ];
            for outcome in [&row.full, &row.third, &row.most] {
                let wait = outcome.fates.mean_wait();
                cells.extend([cell(outcome.refused()), cell(outcome.lost())]);
                cells.push(format!("{} s", cell(wait)));
            }
            table.row(row.model.name, cells);
        }
        table.print();
        println!(
            "\nMeans of {} runs at full load and of {} with groups of requests that ask for a part of the plan.",
            times(n, Load::Full),
            times(n, Load::Part(0.3)),
        );
    }
    println!(
        "Lost: requests whose caller got an error or a 429 in the end. Wait: all their time but the last attempt's own."
    );
}

/// The figures by name.
pub(crate) fn figures(rows: &[Row]) -> Vec<(String, f64)> {
    let mut figures = Vec::new();
    for row in rows {
        let name = format!("goodput.{}_{}.{}", row.model.name, row.n, row.setup.name());
        figures.push((format!("{name}.utilisation"), row.full.used(row.n)));
        figures.push((format!("{name}.rejected"), row.full.refused()));
    }
    figures
}
