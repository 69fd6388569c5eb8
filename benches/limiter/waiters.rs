//! Ten thousand who wait: how often each is woken, what a grant takes, and what each holds.

use std::{
    convert::Infallible,
    future::{Ready, poll_fn, ready},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use http::{Request, Response};
use leaky_bucket::RateLimiter;
use tokio::{
    runtime::{self, Runtime},
    task::JoinSet,
};
use tower::{BoxError, Layer, ServiceExt, service_fn};
use tower_ploton::{Plan, PlotonRateLimit};

use crate::support::{
    allocations,
    print::{Table, Values, cell},
};

const WAITERS: usize = 10_000;

type Waiter = Pin<Box<dyn Future<Output = ()> + Send>>;

pub(crate) fn measure(values: &mut Values) {
    let title = "of 10,000 who wait, at 1,000 a minute";
    let columns = ["wake-ups a grant", "µs a grant", "bytes a waiter"];
    let mut table = Table::new(title, &columns);
    let ours = Waited::of(ours);
    table.row("PlotonRateLimit", ours.cells());
    table.row("leaky-bucket", Waited::of(leaky_bucket).cells());
    table.print();
    println!(
        "\nOn a clock that jumps from timer to timer. A grant's time is the whole run's: the runtime, its timers and the \
         service. A waiter's bytes are those of its future and of all that it holds."
    );
    values.add("limiter.wakeups_per_grant", ours.wake_ups);
    values.add("limiter.bytes_per_waiter", ours.bytes);
}

/// What one waiter took.
struct Waited {
    wake_ups: f64,
    micros: f64,
    bytes: f64,
}

impl Waited {
    /// `waiters` makes a limiter, and then its waiters.
    fn of<W: Fn() -> Waiter>(waiters: impl Fn() -> W) -> Self {
        let paused = || {
            runtime::Builder::new_current_thread()
                .enable_time()
                .start_paused(true)
                .build()
                .expect("a runtime")
        };
        let (wake_ups, micros) = served(&paused(), &waiters);
        let bytes = held(&paused(), &waiters);
        Self {
            wake_ups,
            micros,
            bytes,
        }
    }

    fn cells(&self) -> [String; 3] {
        [self.wake_ups, self.micros, self.bytes].map(cell)
    }
}

/// Wake-ups and microseconds a grant.
#[allow(
    clippy::disallowed_types,
    reason = "tokio's clock is the one that jumps here"
)]
fn served<W: Fn() -> Waiter>(runtime: &Runtime, waiters: impl Fn() -> W) -> (f64, f64) {
    let polls = Arc::new(AtomicUsize::new(0));
    let start = std::time::Instant::now();
    runtime.block_on(async {
        let waiter = waiters();
        let counted = |_| Counted {
            inner: waiter(),
            polls: polls.clone(),
        };
        let all: JoinSet<()> = (0..WAITERS).map(counted).collect();
        all.join_all().await;
    });
    let micros = start.elapsed().as_secs_f64() * 1e6;
    // All are polled once to begin with.
    let woken = polls.load(Ordering::Relaxed).saturating_sub(WAITERS);
    (each(woken as f64), each(micros))
}

/// The bytes that a waiter holds.
fn held<W: Fn() -> Waiter>(runtime: &Runtime, waiters: impl Fn() -> W) -> f64 {
    let _entered = runtime.enter();
    let waiter = waiters();
    let mut cx = Context::from_waker(Waker::noop());
    let mut all = Vec::with_capacity(WAITERS);
    let held = allocations::of(|| {
        for _ in 0..WAITERS {
            let mut one = waiter();
            // The first does not wait, and holds nothing.
            let _ = one.as_mut().poll(&mut cx);
            all.push(one);
        }
    });
    each(held.kept as f64)
}

fn each(all: f64) -> f64 {
    all / WAITERS as f64
}

fn ours() -> impl Fn() -> Waiter {
    fn answer(_: Request<()>) -> Ready<Result<Response<()>, Infallible>> {
        ready(Ok(Response::new(())))
    }
    let service = PlotonRateLimit::new(Plan::Production).layer(service_fn(answer));
    move || {
        // An async block would hold it twice: as what it captured, and as what it waits for.
        let mut call = Box::pin(service.clone().oneshot(Request::new(())));
        Box::pin(poll_fn(move |cx| {
            let answered = call.as_mut().poll(cx);
            answered.map(|answer: Result<_, BoxError>| drop(answer.expect("an answer")))
        }))
    }
}

fn leaky_bucket() -> impl Fn() -> Waiter {
    let limiter = RateLimiter::builder()
        .interval(Duration::from_millis(60))
        .refill(1)
        .initial(1)
        .max(1)
        .build();
    let limiter = Arc::new(limiter);
    move || Box::pin(limiter.clone().acquire_owned(1))
}

/// Counts how often it is polled.
struct Counted {
    inner: Waiter,
    polls: Arc<AtomicUsize>,
}

impl Future for Counted {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.polls.fetch_add(1, Ordering::Relaxed);
        self.inner.as_mut().poll(cx)
    }
}
