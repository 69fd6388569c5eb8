//! Places whose owners do nothing, and wakers that do too much.

use std::{mem, sync::mpsc, task::Wake};

use super::*;

/// leaky-bucket's `block_forever`, tokio's semaphore (#6450): a place given to one who is never polled stopped all.
#[tokio::test(start_paused = true)]
async fn whoever_is_forgotten_stops_nobody() {
    let (limit, service, mut handle) = answered_once().await;
    // One that is ready, one at the head, its successor, and one whose turn has come.
    let mut ready = service.clone();
    task::spawn(()).enter(|cx, _| assert_ready_ok!(ready.poll_ready(cx)));
    mem::forget(ready);
    for _ in 0..2 {
        let mut waiting = Box::pin(service.clone().oneshot(get()));
        task::spawn(()).enter(|cx, _| assert_pending!(waiting.as_mut().poll(cx)));
        mem::forget(waiting);
    }
    let calls: Vec<_> = (0..3)
        .map(|_| tokio::spawn(service.clone().oneshot(get())))
        .collect();
    let start = Instant::now();
    for _ in &calls {
        let request = time::timeout(30 * SECOND, handle.next_request()).await;
        let (_, sent) = request.expect("stopped").unwrap();
        sent.send_response(answer(StatusCode::OK));
    }
    for call in calls {
        call.await.unwrap().unwrap();
    }
    let late = Instant::now() - start;
    assert!(late < 3 * STEP + 3 * SECOND, "{late:?}");
    assert_eq!(limit.handle().snapshot().in_flight, 0);
}

/// The places stand in the task that waits for the request behind them.
#[tokio::test(start_paused = true)]
async fn places_parked_in_select_do_not_stop_what_their_own_task_awaits() {
    let service = PlotonRateLimit::new(Plan::Production).layer(server(&Arc::default(), |_| 20));
    service.clone().oneshot(get()).await.unwrap();
    let mut parked: Vec<_> = (0..20)
        .map(|_| Box::pin(service.clone().oneshot(get())))
        .collect();
    let start = Instant::now();
    tokio::select! {
        biased;
        _ = std::future::poll_fn(|cx| {
            for call in &mut parked {
                assert_pending!(call.as_mut().poll(cx));
            }
            Poll::<()>::Pending
        }) => {}
        () = std::future::ready(()) => {
            let call = time::timeout(60 * SECOND, service.clone().oneshot(get()));
            call.await.expect("stopped").unwrap();
        }
    }
    let late = Instant::now() - start;
    assert!(late < 5 * SECOND, "{late:?}");
    for call in parked {
        call.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_ready_service_that_is_not_called_stops_nobody_and_is_served_later() {
    let (_limit, service, mut handle) = answered_once().await;
    let mut context = task::spawn(());
    let mut parked = service.clone();
    context.enter(|cx, _| assert_ready_ok!(parked.poll_ready(cx)));
    let start = Instant::now();
    let other = tokio::spawn(service.clone().oneshot(get()));
    let (_, sent) = handle.next_request().await.unwrap();
    assert!(Instant::now() - start <= Duration::from_millis(52));
    sent.send_response(answer(StatusCode::OK));
    other.await.unwrap().unwrap();

    let late = tokio::spawn(parked.call(get()));
    let (_, sent) = handle.next_request().await.unwrap();
    assert!(
        Instant::now() - start >= STEP,
        "its token was taken by the other"
    );
    sent.send_response(answer(StatusCode::OK));
    late.await.unwrap().unwrap();
}

/// Its token was taken, and nobody says what became of it: it might still arrive, but not for ever.
#[tokio::test(start_paused = true)]
async fn a_request_that_is_forgotten_on_its_way_stops_nobody_for_ever() {
    let counts = |limit: u32, left: u32, reset: u64| {
        let mut response = answer(StatusCode::OK);
        for (name, value) in [
            ("limit", limit.into()),
            ("remaining", left.into()),
            ("reset", reset),
        ] {
            let name: HeaderName = format!("x-ratelimit-{name}").parse().unwrap();
            response.headers_mut().insert(name, value.into());
        }
        response
    };
    for mode in [Mode::Paced, Mode::Window, Mode::Shared] {
        let n = 20;
        let limit = PlotonRateLimit::new(requests(n));
        let start = Instant::now();
        let used = Arc::new(Mutex::new((0, 0)));
        let service = limit.layer(service_fn(move |request: Request<bool>| {
            let used = used.clone();
            async move {
                if *request.body() {
                    std::future::pending::<()>().await;
                }
                time::sleep(Duration::from_millis(20)).await;
                let seconds = (Instant::now() - start).as_secs();
                let mut used = used.lock().unwrap();
                let window = seconds / 60;
                if used.0 != window {
                    *used = (window, 0);
                }
                used.1 += if mode == Mode::Shared { 2 } else { 1 };
                let left = n.saturating_sub(used.1);
                Ok::<_, Infallible>(match mode {
                    Mode::Paced => answer(StatusCode::OK),
                    Mode::Window | Mode::Shared => counts(n, left, (window + 1) * 60 - seconds),
                })
            }
        }));
        // Until the mode is known.
        while limit.handle().snapshot().mode != mode || Instant::now() - start < 70 * SECOND {
            service.clone().oneshot(Request::new(false)).await.unwrap();
        }
        let leak = Instant::now();
        while limit.handle().snapshot().in_flight < n && Instant::now() - leak < 300 * SECOND {
            let mut call = Box::pin(service.clone().oneshot(Request::new(true)));
            let before = limit.handle().snapshot().in_flight;
            while limit.handle().snapshot().in_flight == before
                && Instant::now() - leak < 300 * SECOND
            {
                let sent = time::timeout(SECOND, call.as_mut()).await;
                assert!(sent.is_err());
            }
            mem::forget(call);
        }
        let leaked = limit.handle().snapshot().in_flight;
        assert_eq!(leaked, n, "{mode}");
        let begun = Instant::now();
        for _ in 0..2 * n {
            let call = service.clone().oneshot(Request::new(false));
            let call = time::timeout(15 * 60 * SECOND, call).await;
            call.expect("stopped").unwrap();
        }
        let took = Instant::now() - begun;
        assert!(took < 30 * 60 * SECOND, "{mode}: {took:?}");
    }
}

/// A waiter that was passed once, and then asked again from behind another, was woken by nobody.
#[tokio::test(start_paused = true)]
async fn whoever_was_passed_and_waits_again_is_woken_again() {
    let limit = PlotonRateLimit::new(requests(1));
    let service = limit.layer(server(&Arc::default(), |_| 10_000));
    service.clone().oneshot(get()).await.unwrap();
    let (mut head, mut passed) = (service.clone(), service.clone());
    task::spawn(()).enter(|cx, _| assert_pending!(head.poll_ready(cx)));
    passed.ready().await.unwrap();
    time::sleep(Duration::from_millis(60)).await;
    let quicker = tokio::spawn(service.clone().oneshot(get()));
    time::sleep(Duration::from_millis(10)).await;
    assert_eq!(limit.handle().snapshot().in_flight, 1);

    let head = tokio::spawn(head.oneshot(get()));
    time::sleep(Duration::from_millis(10)).await;
    let passed = tokio::spawn(passed.call(get()));
    for call in [quicker, head] {
        call.await.unwrap().unwrap();
    }
    time::timeout(300 * SECOND, passed)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
}

/// A waker that comes back to the limiter when it is dropped, as one that owns its task may.
struct ComesBack(RateLimitHandle);

impl Wake for ComesBack {
    fn wake(self: Arc<Self>) {}
}

impl Drop for ComesBack {
    fn drop(&mut self) {
        let _ = self.0.snapshot();
    }
}

/// Wakers were dropped under the lock, and a thread waited for itself.
#[test]
fn a_waker_that_comes_back_when_it_is_dropped_finds_no_lock() {
    let (done, finished) = mpsc::channel();
    std::thread::spawn(move || {
        let limit = PlotonRateLimit::new(Plan::Prototyping);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build();
        let _entered = runtime.as_ref().unwrap().enter();
        let service = limit.layer(server(&Arc::default(), |_| 20));
        let poll = |service: &mut RateLimitService<_>| {
            let waker = Arc::new(ComesBack(limit.handle())).into();
            let _ = service.poll_ready(&mut Context::from_waker(&waker));
        };
        let mut services = [service.clone(), service.clone(), service.clone()];
        for _ in 0..2 {
            services.iter_mut().for_each(poll);
        }
        drop(services);
        done.send(limit.handle().snapshot().waiting).unwrap();
    });
    let waiting = finished.recv_timeout(Duration::from_secs(60));
    assert_eq!(waiting.expect("no deadlock"), 0);
}

/// What was called up before it was taken for the one who asks, and the other tokens were not seen.
#[tokio::test(start_paused = true)]
async fn whoever_was_passed_has_its_turn_at_once_where_there_is_a_token_for_each() {
    let arrivals = Arc::default();
    let service = PlotonRateLimit::new(Plan::Production).layer(server(&arrivals, |_| 20));
    service.clone().oneshot(get()).await.unwrap();
    let (mut parked, mut idle) = (service.clone(), service.clone());
    let mut context = task::spawn(());
    let mut poll = |service: &mut RateLimitService<_>| {
        context.enter(|cx, _| service.poll_ready(cx).is_ready())
    };
    assert!(!poll(&mut parked));
    time::sleep(120 * SECOND).await;
    assert!(poll(&mut idle), "it passes the other");
    assert!(poll(&mut parked));
    for service in [idle, parked].each_mut() {
        service.call(get()).await.unwrap();
    }
}
