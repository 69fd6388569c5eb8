//! How much of the configured rate is used where there is always someone who waits.

use std::{
    convert::Infallible,
    num::NonZeroU32,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::{Request, Response};
use tokio::{
    runtime,
    task::JoinSet,
    time::{Instant, sleep},
};
use tower::{Layer, ServiceExt, service_fn};
use tower_ploton::{Plan, PlotonRateLimit};

use crate::support::print::{Table, Values};

pub(crate) fn measure(values: &mut Values) {
    let title = "always someone who waits, answers after 20 ms";
    let columns = ["sent", "of the pace", "of the plan"];
    let mut table = Table::new(title, &columns);
    let mut least = f64::INFINITY;
    for (plan, minutes) in [(100, 60), (1_000, 20), (100_000, 2)] {
        let sent = sent(plan, Duration::from_secs(60 * minutes));
        let took = sent.last.duration_since(sent.first).as_secs_f64();
        // From the first to the last there is one step less than there are requests.
        let steps = sent.count.saturating_sub(1) as f64;
        let of_pace = steps * STEPS_TAKE / f64::from(plan) / took;
        let of_plan = steps * 60.0 / f64::from(plan) / took;
        least = least.min(of_pace);
        table.row(
            &format!("{plan} a minute, {minutes} minutes"),
            [
                sent.count.to_string(),
                format!("{of_pace:.4}"),
                format!("{of_plan:.4}"),
            ],
        );
    }
    table.print();
    println!(
        "\nThe pace is one request in each step of {STEPS_TAKE} s ÷ the plan: a minute, and what the delays to the server \
         may differ by."
    );
    values.add("limiter.rate_achieved", least);
}

/// How long as many steps take as the plan allows requests a minute: `docs/rate-limit.md`.
const STEPS_TAKE: f64 = 60.262;
const WORKERS: usize = 200;

struct Sent {
    count: u64,
    first: Instant,
    last: Instant,
}

/// What is sent by many workers that send without a pause for so long, on a clock that jumps from timer to timer.
fn sent(plan: u32, time: Duration) -> Sent {
    let runtime = runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let start = Instant::now();
        let sent = Arc::new(Mutex::new(Sent {
            count: 0,
            first: start,
            last: start,
        }));
        let seen = sent.clone();
        let server = service_fn(move |_: Request<()>| {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.last = Instant::now();
            if seen.count == 0 {
                seen.first = seen.last;
            }
            seen.count += 1;
            async {
                sleep(Duration::from_millis(20)).await;
                Ok::<_, Infallible>(Response::new(()))
            }
        });
        let service = PlotonRateLimit::new(Plan::Enterprise {
            requests_per_minute: NonZeroU32::new(plan).expect("not 0"),
            concurrent_tasks: NonZeroU32::MIN,
        })
        .layer(server);
        let mut workers = JoinSet::new();
        for _ in 0..WORKERS {
            let service = service.clone();
            workers.spawn(async move {
                while Instant::now().duration_since(start) < time {
                    let answer = service.clone().oneshot(Request::new(())).await;
                    answer.expect("an answer");
                }
            });
        }
        workers.join_all().await;
        let sent = sent.lock().unwrap_or_else(PoisonError::into_inner);
        Sent { ..*sent }
    })
}
