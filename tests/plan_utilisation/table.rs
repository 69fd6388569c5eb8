//! What was run and what came of it, for those who read, and whether it is as promised.

use super::*;

/// Prints one line for each server, headers and plan, whatever the network.
pub(super) fn print(title: &str, worlds: &[World], outcomes: &[Outcome]) {
    let mut table = format!(
        "{title}\n{:<18} {:<10} {:>5} {:>7} {:>5} {:>16} {:>10}\n",
        "server", "headers", "N", "sent", "429s", "use of the plan", "mean wait"
    );
    let mut rows: Vec<(World, Vec<Outcome>)> = Vec::new();
    for (world, outcome) in worlds.iter().zip(outcomes) {
        let key = |world: &World| (world.kind, world.headers, world.n);
        match rows.last_mut() {
            Some((last, row)) if key(last) == key(world) => row.push(*outcome),
            _ => rows.push((*world, vec![*outcome])),
        }
    }
    for (world, row) in rows {
        let Outcome { tally, used, waits } = sum(&row);
        writeln!(
            table,
            "{:<18} {:<10} {:>5} {:>7} {:>5} {:>14.2} % {:>8.2} s",
            world.kind.name(),
            world.headers.name(),
            world.n,
            tally.sent(),
            tally.refused,
            used / row.len() as f64 * 100.0,
            waits.mean(),
        )
        .unwrap();
    }
    println!("{table}");
}

/// All that is not as promised, at once.
pub(super) fn assert_promised(
    worlds: &[World],
    outcomes: &[Outcome],
    promised: impl Fn(&World, &Outcome) -> bool,
) {
    let broken: Vec<String> = worlds
        .iter()
        .zip(outcomes)
        .filter(|(world, outcome)| !promised(world, outcome))
        .map(|(world, outcome)| format!("{world:?}: {outcome:?}"))
        .collect();
    assert!(
        broken.is_empty(),
        "{} of {}:\n{}",
        broken.len(),
        worlds.len(),
        broken.join("\n")
    );
}
