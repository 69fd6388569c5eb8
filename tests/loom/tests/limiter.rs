//! All orders in which threads may come to the lock: nobody sleeps for ever, and no token is lost.
//!
//! No timer fires here by itself, so whoever waits is woken by the others or not at all: loom calls that a deadlock.
#![cfg(loom)]
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test fails by a panic"
)]

use std::{
    convert::Infallible,
    future::Future,
    num::NonZeroU32,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use http::{Request, Response};
use loom::{future::block_on, model::Builder, sync::Mutex, thread};
use loom_tests::{Plan, PlotonRateLimit, RateLimitHandle, limit::RateLimitService};
use tokio::time::Instant;
use tower::{Layer, Service, ServiceExt};

/// Answers at once, but the first request when it is told to.
#[derive(Clone)]
struct Server(Arc<Mutex<First>>);

#[derive(Default)]
struct First {
    came: bool,
    answered: bool,
    refused: bool,
    waker: Option<Waker>,
}

impl Server {
    fn answer_first(&self) {
        self.end_first(false);
    }

    /// With a 429, for an hour.
    fn refuse_first(&self) {
        self.end_first(true);
    }

    fn end_first(&self, refused: bool) {
        let waker = {
            let mut first = self.0.lock().unwrap();
            first.answered = true;
            first.refused = refused;
            first.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Service<Request<()>> for Server {
    type Response = Response<()>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<()>) -> Answer {
        let is_first = !std::mem::replace(&mut self.0.lock().unwrap().came, true);
        Answer(is_first.then(|| self.0.clone()))
    }
}

struct Answer(Option<Arc<Mutex<First>>>);

impl Future for Answer {
    type Output = Result<Response<()>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(first) = &self.0 {
            let mut first = first.lock().unwrap();
            if !first.answered {
                first.waker = Some(cx.waker().clone());
                return Poll::Pending;
            }
            if first.refused {
                let refusal = Response::builder().status(429).header("retry-after", 3_600);
                return Poll::Ready(Ok(refusal.body(()).unwrap()));
            }
        }
        Poll::Ready(Ok(Response::new(())))
    }
}

type Limited = RateLimitService<Server>;

/// A limiter without pacing to speak of. The very first request goes alone.
fn unused() -> (Limited, Server, RateLimitHandle) {
    let limit = PlotonRateLimit::new(plan(u32::MAX));
    let server = Server(Arc::new(Mutex::new(First::default())));
    (limit.layer(server.clone()), server, limit.handle())
}

/// A limiter whose first request is on its way, so that all others wait for its answer.
fn probing() -> (Limited, Server, RateLimitHandle, impl Future<Output = ()>) {
    let (service, server, handle) = unused();
    let mut first = Box::pin(send(service.clone()));
    let poll = first.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(poll.is_pending());
    (service, server, handle, first)
}

fn plan(requests: u32) -> Plan {
    Plan::Enterprise {
        requests_per_minute: NonZeroU32::new(requests).unwrap(),
        concurrent_tasks: NonZeroU32::MIN,
    }
}

async fn send(service: Limited) {
    service.oneshot(Request::new(())).await.unwrap();
}

/// Polls it once and drops it, as one who gives up.
fn give_up(future: impl Future) {
    let _ = pin!(future).poll(&mut Context::from_waker(Waker::noop()));
}

/// Every order in which the lock is taken, up to three preemptions.
fn in_all_orders(test: impl Fn() + Send + Sync + 'static) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let _entered = runtime.enter();
    let mut builder = Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(test);
}

fn assert_empty(handle: &RateLimitHandle) {
    let snapshot = handle.snapshot();
    assert_eq!((snapshot.waiting, snapshot.in_flight), (0, 0));
}

#[test]
fn an_answer_wakes_those_who_wait() {
    in_all_orders(|| {
        let (service, server, handle, first) = probing();
        let waiters = [service.clone(), service]
            .map(|service| thread::spawn(move || block_on(send(service))));
        server.answer_first();
        block_on(first);
        for waiter in waiters {
            waiter.join().unwrap();
        }
        assert_empty(&handle);
    });
}

#[test]
fn whoever_gives_up_takes_no_wake_up_with_it() {
    in_all_orders(|| {
        let (service, server, handle, first) = probing();
        let quitter = service.clone();
        let quitter = thread::spawn(move || give_up(send(quitter)));
        let waiter = thread::spawn(move || block_on(send(service)));
        server.answer_first();
        block_on(first);
        quitter.join().unwrap();
        waiter.join().unwrap();
        assert_empty(&handle);
    });
}

#[test]
fn a_request_that_is_dropped_on_its_way_frees_those_who_wait() {
    in_all_orders(|| {
        let (service, _server, handle, first) = probing();
        let waiter = thread::spawn(move || block_on(send(service)));
        drop(first);
        // The next one is answered at once.
        waiter.join().unwrap();
        assert_empty(&handle);
    });
}

#[test]
fn a_ready_service_that_is_dropped_passes_its_turn_on() {
    in_all_orders(|| {
        let (service, server, handle) = unused();
        server.answer_first();
        let [idle, waiter] = [service.clone(), service];
        let idle = thread::spawn(move || {
            let mut idle = idle;
            block_on(async {
                idle.ready().await.unwrap();
            });
        });
        block_on(send(waiter));
        idle.join().unwrap();
        assert_empty(&handle);
    });
}

#[test]
fn a_change_of_the_plan_meets_those_who_come_and_go() {
    in_all_orders(|| {
        let (service, server, handle, first) = probing();
        let changes = handle.clone();
        let changer = thread::spawn(move || {
            changes.set_plan(plan(u32::MAX - 1));
        });
        let waiter = thread::spawn(move || block_on(send(service)));
        server.answer_first();
        block_on(first);
        changer.join().unwrap();
        waiter.join().unwrap();
        assert_empty(&handle);
    });
}

const HOUR: Duration = Duration::from_secs(3_600);

#[test]
fn a_refusal_meets_one_who_comes_and_lets_nobody_through() {
    in_all_orders(|| {
        let (service, server, handle, first) = probing();
        let other = thread::spawn(move || {
            let mut waiting = Box::pin(send(service));
            for _ in 0..2 {
                let cx = &mut Context::from_waker(Waker::noop());
                assert!(waiting.as_mut().poll(cx).is_pending());
            }
        });
        server.refuse_first();
        block_on(first);
        other.join().unwrap();
        assert_empty(&handle);
        assert!(handle.snapshot().paused_until.unwrap() >= Instant::now() + HOUR / 2);
    });
}

#[test]
fn of_a_refusal_and_a_pause_by_hand_the_longer_holds() {
    in_all_orders(|| {
        let (_service, server, handle, first) = probing();
        let until = Instant::now() + 2 * HOUR;
        let by_hand = handle.clone();
        let by_hand = thread::spawn(move || by_hand.pause_until(until));
        server.refuse_first();
        block_on(first);
        by_hand.join().unwrap();
        assert_eq!(handle.snapshot().paused_until, Some(until));
        assert_empty(&handle);
    });
}

#[test]
fn a_pause_that_is_over_at_once_leaves_nobody_asleep() {
    in_all_orders(|| {
        let (service, server, handle, first) = probing();
        let by_hand = handle.clone();
        let by_hand = thread::spawn(move || by_hand.pause_until(Instant::now()));
        let waiter = thread::spawn(move || block_on(send(service)));
        server.answer_first();
        block_on(first);
        by_hand.join().unwrap();
        waiter.join().unwrap();
        assert_empty(&handle);
    });
}

/// As its timer does, something else than the queue polls one who waits.
#[test]
fn a_timer_that_fires_meets_an_answer() {
    in_all_orders(|| {
        let (service, server, handle, first) = probing();
        let [early, waiter] = [service.clone(), service];
        let early = thread::spawn(move || {
            let mut early = Box::pin(send(early));
            let cx = &mut Context::from_waker(Waker::noop());
            if early.as_mut().poll(cx).is_pending() {
                block_on(early);
            }
        });
        let waiter = thread::spawn(move || block_on(send(waiter)));
        server.answer_first();
        block_on(first);
        early.join().unwrap();
        waiter.join().unwrap();
        assert_empty(&handle);
    });
}

#[test]
fn a_look_from_outside_sees_each_request_once_at_the_most() {
    in_all_orders(|| {
        let (service, server, handle, first) = probing();
        let looks = handle.clone();
        let looker = thread::spawn(move || {
            for _ in 0..2 {
                let snapshot = looks.snapshot();
                assert!(snapshot.waiting <= 1);
                assert!(snapshot.in_flight as usize + snapshot.waiting <= 2);
            }
        });
        let waiter = thread::spawn(move || block_on(send(service)));
        server.answer_first();
        block_on(first);
        looker.join().unwrap();
        waiter.join().unwrap();
        assert_empty(&handle);
    });
}
