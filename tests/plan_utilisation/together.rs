//! Several processes with one key.

use super::{
    table::{assert_promised, print},
    *,
};

/// An hour saturated, by `clients` of one key that know nothing of each other.
fn neighbours(world: World, clients: u32) -> Vec<Outcome> {
    paused().block_on(async {
        let mut remotes = vec![world.begin()];
        for _ in 1..clients {
            remotes.push(remotes[0].another_client());
        }
        let end = Instant::now() + MINUTE * 60;
        let mut running = JoinSet::new();
        for (turn, remote) in remotes.into_iter().enumerate() {
            running.spawn(async move {
                sleep(Duration::from_millis(1_700 * turn as u64)).await;
                let service = PlotonRateLimit::new(plan(world.n)).layer(remote.clone());
                let waits = saturate(service, &world, end).await;
                outcome(&remote, waits, world.n * 60)
            });
        }
        running.join_all().await
    })
}

#[test]
fn processes_with_one_key_share_a_server_with_windows_by_its_headers() {
    let mut worlds = worlds(100, 0);
    worlds.retain(|world| world.headers == Headers::Always && world.kind.has_windows());
    for clients in [2, 4] {
        let each = in_parallel(&worlds, |world| neighbours(world, clients));
        let together: Vec<Outcome> = each.iter().map(|outcomes| sum(outcomes)).collect();
        print(
            &format!("an hour of {clients} processes"),
            &worlds,
            &together,
        );
        assert_promised(&worlds, &together, |world, outcome| {
            // What arrives a second late finds less than was left when it was sent.
            let most = match world.delays {
                Delays::Uneven => 0.003,
                Delays::Near | Delays::Far => 0.002,
            };
            f64::from(outcome.tally.refused) <= most * f64::from(outcome.tally.sent())
                && outcome.used >= 0.95
        });
        for (world, outcomes) in worlds.iter().zip(&each) {
            let used = outcomes.iter().map(|outcome| outcome.used);
            let (poorest, richest) = (used.clone().fold(1.0, f64::min), used.fold(0.0, f64::max));
            assert!(poorest >= 0.8 * richest, "{world:?}: {outcomes:?}");
        }
    }
}
