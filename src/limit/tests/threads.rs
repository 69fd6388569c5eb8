//! Several threads, in real time: a paused clock belongs to one.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use super::*;

/// better-bucket before 1.1 read the clock before it took the bucket, and let 36 to 527 times too much through.
#[test]
fn threads_that_hammer_get_no_more_than_one_would() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let step = Duration::from_micros(6_027);
    let limit = PlotonRateLimit::new(requests(10_000));
    let sent = AtomicUsize::new(0);
    let service = limit.layer(service_fn(async |_: Request<()>| {
        Ok::<_, Infallible>(Response::new(()))
    }));
    let start = Instant::now();
    let hammer = |mut service: RateLimitService<_>| {
        let _entered = runtime.enter();
        while Instant::now() - start < Duration::from_millis(100) {
            let mut context = task::spawn(());
            if context.enter(|cx, _| service.poll_ready(cx)).is_ready()
                && task::spawn(service.call(get())).poll().is_ready()
            {
                sent.fetch_add(1, Ordering::Relaxed);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..8 {
            let service = service.clone();
            scope.spawn(|| hammer(service));
        }
    });
    let took = Instant::now() - start;
    let sent = sent.into_inner();
    let most = 2 + took.as_micros() as usize / step.as_micros() as usize;
    assert!((1..=most).contains(&sent), "{sent} of {most}");
    assert_eq!(limit.handle().snapshot().waiting, 0);
}

/// It kept the timer of the runtime on which it waited first: that panicked once the runtime had ended, and never fired
/// where nobody drove it.
#[test]
fn a_service_that_waited_on_one_runtime_waits_on_another() {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_time().build().unwrap()
    };
    let limit = PlotonRateLimit::new(requests(12_000));
    let mut service = limit.layer(service_fn(async |_: Request<()>| {
        Ok::<_, Infallible>(Response::new(()))
    }));
    let mut three = |runtime: &tokio::runtime::Runtime| {
        runtime.block_on(async {
            for _ in 0..3 {
                // A `timeout` would poll the service once more at its end, and its turn would have come by then.
                let ready = tokio::select! {
                    biased;
                    () = time::sleep(10 * SECOND) => panic!("hangs"),
                    ready = service.ready() => ready,
                };
                ready.unwrap().call(get()).await.unwrap();
            }
        });
    };
    let first = runtime();
    three(&first);
    let second = runtime();
    three(&second);
    drop(second);
    three(&first);
}

/// A timer needs its runtime, and not that of whoever polls it.
#[test]
fn a_service_that_waited_on_a_runtime_waits_outside_of_it() {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(1).enable_time().build().unwrap();
    let limit = PlotonRateLimit::new(requests(12_000));
    let mut service = limit.layer(service_fn(async |_: Request<()>| {
        Ok::<_, Infallible>(Response::new(()))
    }));
    let mut two = async || {
        for _ in 0..2 {
            service.ready().await.unwrap().call(get()).await.unwrap();
        }
    };
    runtime.block_on(two());
    let mut two = task::spawn(two());
    let start = Instant::now();
    while two.poll().is_pending() {
        assert!(Instant::now() - start < 10 * SECOND, "hangs");
        thread::sleep(Duration::from_millis(1));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn tasks_on_several_threads_are_all_served_and_some_give_up() {
    let limit = PlotonRateLimit::new(requests(120_000));
    let service = limit.layer(service_fn(async |_: Request<()>| {
        tokio::task::yield_now().await;
        Ok::<_, Infallible>(Response::new(()))
    }));
    let mut tasks = JoinSet::new();
    for n in 0..40 {
        let service = service.clone();
        tasks.spawn(async move {
            for round in 0..10 {
                let call = service.clone().oneshot(get());
                if (n + round) % 4 == 0 {
                    let _ = time::timeout(Duration::from_micros(1_500), call).await;
                } else {
                    call.await.unwrap();
                }
            }
        });
    }
    time::timeout(60 * SECOND, tasks.join_all())
        .await
        .expect("hangs");
    let snapshot = limit.handle().snapshot();
    assert_eq!((snapshot.in_flight, snapshot.waiting), (0, 0));
}
