//! A token that is there: by one thread, and by two that contend for it.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    hint::black_box,
    num::NonZeroU32,
    pin::pin,
    sync::{Arc, Barrier, LazyLock},
    task::{Context, Poll, Waker},
    thread,
    time::Duration,
};

use governor::{Quota, RateLimiter, clock::MonotonicClock};
use http::{Request, Response};
use ratelimit::Ratelimiter;
use tokio::{
    runtime::{self, Handle, Runtime},
    time::Instant,
};
use tower::{
    Layer, Service,
    limit::{RateLimit, rate::Rate},
};
use tower_ploton::{Plan, PlotonRateLimit};

use crate::support::{
    print::{Table, Values, cell, spread},
    rounds::{self, Paired, Variant},
};

/// Takes a token and calls the service, once.
type Acquire = Box<dyn FnMut() + Send>;

/// A limiter: its name, and what makes another user of it, for another thread. `None` where there can be only one.
struct Limiter {
    name: &'static str,
    user: Box<dyn Fn() -> Acquire>,
}

impl Limiter {
    fn new<A: FnMut() + Send + 'static>(
        name: &'static str,
        user: impl Fn() -> A + 'static,
    ) -> Self {
        let user = Box::new(move || Box::new(user()) as Acquire);
        Self { name, user }
    }
}

/// Only takes tokens, by one limiter and one thread: for a profiler.
pub(crate) fn only(name: &str, batches: &str) {
    let runtime = runtime();
    let _entered = runtime.enter();
    let limiters = limiters(true);
    let mut named = limiters.iter().filter(|limiter| limiter.name == name);
    let mut acquire = (named.next().expect("the name of a limiter").user)();
    for _ in 0..batches.parse().expect("how many batches") {
        one_thread(&mut acquire);
    }
}

pub(crate) fn measure(values: &mut Values) {
    let runtime = runtime();
    let _entered = runtime.enter();
    let handle = runtime.handle();

    let alone = limiters(true);
    let variants = alone.iter().map(|limiter| {
        let mut acquire = (limiter.user)();
        Variant::new(limiter.name, move || [one_thread(&mut acquire)])
    });
    let [alone] = rounds::run(1_001, variants.collect());

    let contended = limiters(false);
    let variants = contended.iter().map(|limiter| {
        let name = limiter.name;
        Variant::new(name, move || [two_threads(limiter, handle)])
    });
    let [contended] = rounds::run(101, variants.collect());

    let mut table = Table::new(
        "ns for a token and a call of the service, over the call alone",
        &["one thread", "two threads"],
    );
    for name in alone.names().filter(|&name| name != BARE) {
        let both = [&alone, &contended].map(|times| spread(times.added(name, BARE)));
        let both = both.map(|cell| {
            if cell.contains("NaN") {
                "–".into()
            } else {
                cell
            }
        });
        table.row(name, both);
    }
    table.print();
    println!(
        "\nOur own does what the others don't: it looks whether its turn has come before it takes the token, and it notes when \
         the answer came. The call alone takes {} ns; two threads, which also contend for the processor, are measured by the \
         slower of both.",
        cell(alone.of(BARE).middle)
    );
    let ratio = |times: &Paired| times.added_ratio((OURS, BARE), (GOVERNOR, BARE)).middle;
    values.add("limiter.uncontended_vs_governor", ratio(&alone));
    values.add("limiter.contended_vs_governor", ratio(&contended));
}

fn runtime() -> Runtime {
    runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime")
}

/// None of them ever has to wait.
fn limiters(with_tower: bool) -> Vec<Limiter> {
    let bare = || {
        let mut bare = Bare;
        move || call(&mut bare)
    };
    let ours = PlotonRateLimit::new(Plan::Enterprise {
        requests_per_minute: NonZeroU32::MAX,
        concurrent_tasks: NonZeroU32::MIN,
    });
    let ours = ours.layer(Bare);
    let quota = Quota::per_second(NonZeroU32::new(1_000_000_000).expect("not 0"));
    // Its clock is measured when it is made, for a while.
    let quanta = LazyLock::new(move || Arc::new(RateLimiter::direct(quota)));
    let std = RateLimiter::direct_with_clock(quota, MonotonicClock);
    let std = Arc::new(std);
    let leaky = leaky_bucket::RateLimiter::builder()
        .max(1 << 40)
        .initial(1 << 40)
        .build();
    let leaky = Arc::new(leaky);
    let scaled = Ratelimiter::builder(1_000_000_000)
        .initial_available(1_000_000_000)
        .build()
        .expect("a rate");
    let scaled = Arc::new(scaled);

    let mut limiters = vec![
        Limiter::new(BARE, bare),
        Limiter::new(OURS, move || {
            let mut service = ours.clone();
            move || call(&mut service)
        }),
        Limiter::new("governor, quanta's clock", move || {
            let (limiter, mut bare) = (Arc::clone(&quanta), Bare);
            move || {
                limiter.check().expect("a token");
                call(&mut bare);
            }
        }),
        Limiter::new(GOVERNOR, move || {
            let (limiter, mut bare) = (std.clone(), Bare);
            move || {
                limiter.check().expect("a token");
                call(&mut bare);
            }
        }),
        Limiter::new("leaky-bucket", move || {
            let (limiter, mut bare) = (leaky.clone(), Bare);
            move || {
                until_ready(limiter.acquire_one());
                call(&mut bare);
            }
        }),
        Limiter::new("ratelimit", move || {
            let (limiter, mut bare) = (scaled.clone(), Bare);
            move || {
                limiter.try_wait().expect("a token");
                call(&mut bare);
            }
        }),
    ];
    if with_tower {
        // It can't be cloned, and so not be shared.
        limiters.push(Limiter::new("tower's RateLimit", || {
            let rate = Rate::new(u64::MAX, Duration::from_secs(1));
            let mut service = RateLimit::new(Bare, rate);
            move || call(&mut service)
        }));
    }
    limiters
}

/// Ready at any time, and answers at once.
#[derive(Clone)]
struct Bare;

impl Service<Request<()>> for Bare {
    type Response = Response<()>;
    type Error = Infallible;
    type Future = Ready<Result<Response<()>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<()>) -> Self::Future {
        black_box(&request);
        ready(Ok(Response::new(())))
    }
}

fn call<S>(service: &mut S)
where
    S: Service<Request<()>, Response = Response<()>>,
{
    until_ready(std::future::poll_fn(|cx| service.poll_ready(cx).map(drop)));
    until_ready(service.call(Request::new(())));
}

/// Polls what is ready at once, unless another process had its turn meanwhile.
fn until_ready<F: Future>(future: F) {
    let mut future = pin!(future);
    let mut cx = Context::from_waker(Waker::noop());
    while future.as_mut().poll(&mut cx).is_pending() {
        thread::yield_now();
    }
}

const TOKENS: u32 = 200;
const TOKENS_OF_TWO: u32 = 2_000;

fn one_thread(acquire: &mut Acquire) -> f64 {
    timed(acquire, TOKENS)
}

fn timed(acquire: &mut Acquire, tokens: u32) -> f64 {
    let start = Instant::now();
    for _ in 0..tokens {
        acquire();
    }
    let took = Instant::now().duration_since(start);
    took.as_secs_f64() * 1e9 / f64::from(tokens)
}

/// What a token takes on the slower of two threads.
fn two_threads(limiter: &Limiter, runtime: &Handle) -> f64 {
    let barrier = Barrier::new(2);
    let run = |mut acquire: Acquire| {
        let _entered = runtime.enter();
        acquire();
        barrier.wait();
        timed(&mut acquire, TOKENS_OF_TWO)
    };
    let users = [(limiter.user)(), (limiter.user)()];
    thread::scope(|scope| {
        let threads = users.map(|acquire| scope.spawn(|| run(acquire)));
        let took = threads.map(|thread| thread.join().expect("no panic"));
        took.into_iter().fold(0.0, f64::max)
    })
}

const BARE: &str = "bare";
const OURS: &str = "PlotonRateLimit";
const GOVERNOR: &str = "governor, std's clock";
