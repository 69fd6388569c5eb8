//! How many connections a client opens that has to send again: each third answer is a 429.

use std::time::Duration;

use super::{
    drive::{self, Post},
    loopback::{Refusal, Server},
    support::print::{Table, Values},
};

const TASKS: usize = 16;
const REQUESTS: usize = 2_000;

/// The refusals that cost connections where their bodies are not read.
const REFUSALS: [(&str, Refusal); 2] = [
    (
        "64 KiB",
        Refusal {
            bytes: 64 * 1_024,
            late: Duration::ZERO,
        },
    ),
    (
        "2 KiB, 2 ms late",
        Refusal {
            bytes: 2 * 1_024,
            late: Duration::from_millis(2),
        },
    ),
];

/// A client against each of the refusals.
pub(crate) struct Reuse {
    name: &'static str,
    connections: Vec<usize>,
    created: Vec<usize>,
}

impl Reuse {
    pub(crate) fn measure<C: Post>(name: &'static str, client: impl Fn(&Server) -> C) -> Self {
        let mut reuse = Self {
            name,
            connections: Vec::new(),
            created: Vec::new(),
        };
        for (_, refusal) in REFUSALS {
            let server = Server::start(Some(refusal));
            let created = drive::runtime().block_on(async {
                let client = client(&server);
                drive::send(&client, TASKS, REQUESTS).await
            });
            reuse.connections.push(server.connections());
            reuse.created.push(created);
        }
        reuse
    }

    /// The most connections, and the fewest requests that ended in a 201, as `http.reuse.…`, or beneath that as `part`.
    pub(crate) fn add_to(&self, values: &mut Values, part: &str) {
        let most = self
            .connections
            .iter()
            .max()
            .map_or(0, |&count| count as u64);
        let fewest = self.created.iter().min().map_or(0, |&count| count as u64);
        values.count(&format!("http.reuse.{part}connections"), most);
        values.count(&format!("http.reuse.{part}created"), fewest);
    }
}

pub(crate) fn print(all: &[Reuse]) {
    let title =
        format!("{REQUESTS} requests, {TASKS} at once, each third answer a 429 with a body of");
    let columns: Vec<String> = REFUSALS
        .iter()
        .flat_map(|(name, _)| [format!("{name}: connections"), "ended in 201".to_owned()])
        .collect();
    let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
    let mut table = Table::new(&title, &columns);
    for reuse in all {
        let pairs = reuse.connections.iter().zip(&reuse.created);
        table.row(
            reuse.name,
            pairs.flat_map(|(connections, created)| [connections.to_string(), created.to_string()]),
        );
    }
    table.print();
}
