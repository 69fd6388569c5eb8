//! The queue through services and futures.

use std::{
    mem,
    pin::pin,
    sync::atomic::{AtomicUsize, Ordering},
};

use super::*;

#[tokio::test(start_paused = true)]
async fn those_who_came_first_are_sent_first_across_clones() {
    let order = Arc::new(Mutex::new(Vec::new()));
    let seen = order.clone();
    let inner = service_fn(move |request: Request<usize>| {
        seen.lock().unwrap().push(*request.body());
        async { Ok::<_, Infallible>(Response::new(())) }
    });
    let service = PlotonRateLimit::new(Plan::Production).layer(inner);
    let mut calls: Vec<_> = (0..200)
        .map(|n| {
            let mut call = task::spawn(service.clone().oneshot(Request::new(n)));
            let _ = call.poll();
            call
        })
        .collect();
    // Polled in an order that is not theirs, and only when woken.
    for _ in 0..200 {
        time::advance(Duration::from_millis(70)).await;
        calls.reverse();
        calls.retain_mut(|call| !call.is_woken() || call.poll().is_pending());
    }
    let order = order.lock().unwrap();
    assert_eq!(order.len(), 200);
    assert!(order.is_sorted(), "{order:?}");
}

/// Polls `call` and counts how often that is done.
async fn counted<F: Future>(polls: Arc<AtomicUsize>, call: F) -> F::Output {
    let mut call = pin!(call);
    std::future::poll_fn(|cx| {
        polls.fetch_add(1, Ordering::Relaxed);
        call.as_mut().poll(cx)
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_are_served_in_their_order_and_a_grant_wakes_at_most_three() {
    const WAITERS: usize = 10_000;
    let order = Arc::new(Mutex::new(Vec::new()));
    let seen = order.clone();
    let inner = service_fn(move |request: Request<usize>| {
        seen.lock().unwrap().push(*request.body());
        async { Ok::<_, Infallible>(Response::new(())) }
    });
    let service = PlotonRateLimit::new(Plan::Production).layer(inner);
    let polls = Arc::new(AtomicUsize::new(0));
    let mut calls: JoinSet<_> = (0..WAITERS)
        .map(|n| counted(polls.clone(), service.clone().oneshot(Request::new(n))))
        .collect();
    let start = Instant::now();
    while let Some(call) = calls.join_next().await {
        call.unwrap().unwrap();
    }
    let order = order.lock().unwrap();
    assert_eq!(order.len(), WAITERS);
    assert!(order.is_sorted());
    // All were polled once to begin with.
    let woken = polls.load(Ordering::Relaxed) - WAITERS;
    assert!(woken <= 3 * WAITERS, "{woken}");
    let minutes = (Instant::now() - start).as_secs_f64() / 60.0;
    assert!((9.99..10.1).contains(&minutes), "{minutes}");
}

#[tokio::test(start_paused = true)]
async fn whoever_is_dropped_leaves_and_the_others_go_on() {
    let (limit, service, mut handle) = answered_once().await;
    let mut context = task::spawn(());
    let mut poll = |service: &mut RateLimitService<_>| {
        context.enter(|cx, _| service.poll_ready(cx).is_ready())
    };

    // Ready and not called; waiting in the queue; waiting in its future; on its way.
    let mut ready = service.clone();
    assert!(poll(&mut ready));
    let mut waiting = service.clone();
    assert!(!poll(&mut waiting));
    let in_future = waiting.call(get());
    let mut in_future = task::spawn(in_future);
    assert_pending!(in_future.poll());
    let mut last = task::spawn(service.clone().oneshot(get()));
    assert_pending!(last.poll());
    assert_eq!(
        limit.handle().snapshot().waiting,
        2,
        "the ready one does not"
    );
    drop(ready);
    drop(waiting);
    drop(in_future);
    assert_eq!(limit.handle().snapshot().waiting, 0, "its turn has come");
    assert!(last.is_woken());
    assert_pending!(last.poll());
    let (_, sent) = handle.next_request().await.unwrap();
    assert_eq!(limit.handle().snapshot().in_flight, 1);
    drop(last);
    drop(sent);
    let snapshot = limit.handle().snapshot();
    assert_eq!((snapshot.in_flight, snapshot.waiting), (0, 0));
    assert_eq!(snapshot.remaining, 98, "it may have arrived, so it counts");
}

#[tokio::test(start_paused = true)]
async fn the_own_queue_is_asked_before_the_inner_service() {
    let inner = ConcurrencyLimit::new(server(&Arc::default(), |_| 20), 1);
    let mut permit = inner.clone();
    let limit = PlotonRateLimit::new(Plan::Production);
    limit.handle().pause_until(Instant::now() + SECOND);
    let mut service = limit.layer(inner);
    let mut context = task::spawn(());
    context.enter(|cx, _| assert_pending!(service.poll_ready(cx)));
    context.enter(|cx, _| assert_ready_ok!(permit.poll_ready(cx)));
}

#[tokio::test(start_paused = true)]
async fn no_readiness_of_the_inner_service_is_held_while_a_token_is_awaited() {
    let (limit, other, mut handle) = answered_once().await;
    let inner = ConcurrencyLimit::new(server(&Arc::default(), |_| 20), 1);
    let mut permit = inner.clone();
    let mut context = task::spawn(());
    let mut is_free =
        |permit: &mut ConcurrencyLimit<_>| context.enter(|cx, _| permit.poll_ready(cx).is_ready());
    let mut parked = limit.layer(inner);
    task::spawn(()).enter(|cx, _| assert_ready_ok!(parked.poll_ready(cx)));
    assert!(!is_free(&mut permit), "the parked service has it");

    // Another takes the token, so the call waits.
    time::advance(Duration::from_millis(60)).await;
    let mut quicker = task::spawn(other.clone().oneshot(get()));
    assert_pending!(quicker.poll());
    let mut call = task::spawn(parked.call(get()));
    assert_pending!(call.poll());
    assert!(is_free(&mut permit), "given back before the wait");

    // Its turn comes while the permit is taken, and passes.
    time::advance(2 * STEP).await;
    assert_pending!(call.poll());
    time::advance(Duration::from_millis(60)).await;
    let mut quicker_again = task::spawn(other.clone().oneshot(get()));
    assert_pending!(quicker_again.poll());
    drop(permit.call(get()));
    assert_pending!(call.poll());
    assert!(is_free(&mut permit), "given back when the token was gone");
    drop(permit);

    for _ in 0..2 {
        handle
            .next_request()
            .await
            .unwrap()
            .1
            .send_response(answer(StatusCode::OK));
    }
    time::advance(2 * STEP).await;
    assert_eq!(call.await.unwrap().status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_head_whose_inner_service_is_busy_stops_nobody() {
    let (limit, other, mut handle) = answered_once().await;
    let inner = ConcurrencyLimit::new(server(&Arc::default(), |_| 20), 1);
    let mut permit = inner.clone();
    permit.ready().await.unwrap();
    let busy = tokio::spawn(limit.layer(inner).oneshot(get()));
    tokio::task::yield_now().await;
    let quicker = tokio::spawn(other.oneshot(get()));
    handle
        .next_request()
        .await
        .unwrap()
        .1
        .send_response(answer(StatusCode::OK));
    quicker.await.unwrap().unwrap();
    drop(permit);
    busy.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_larger_plan_is_for_those_who_wait_too() {
    let (limit, service, mut handle) = answered_once().await;
    let calls: Vec<_> = (0..3)
        .map(|_| tokio::spawn(service.clone().oneshot(get())))
        .collect();
    tokio::task::yield_now().await;
    limit.handle().set_plan(Plan::Production);
    assert_eq!(limit.handle().snapshot().limit, 1_000);
    let start = Instant::now();
    for _ in 0..3 {
        handle
            .next_request()
            .await
            .unwrap()
            .1
            .send_response(answer(StatusCode::OK));
    }
    // One step of the old plan was already charged.
    assert!(Instant::now() - start < STEP + Duration::from_millis(70));
    for call in calls {
        call.await.unwrap().unwrap();
    }
}

/// Where steps are shorter than a successor's patience, and no answer comes that could wake anybody.
#[tokio::test(start_paused = true)]
async fn whoever_is_next_needs_no_answer_to_look_up_in_time() {
    let arrivals = Arc::default();
    let slow = server(&arrivals, |n| if n == 1 { 0 } else { 30_000 });
    let service = PlotonRateLimit::new(requests(6_000)).layer(slow);
    service.clone().oneshot(get()).await.unwrap();
    let start = Instant::now();
    let mut calls: JoinSet<_> = (0..100).map(|_| service.clone().oneshot(get())).collect();
    while let Some(call) = calls.join_next().await {
        call.unwrap().unwrap();
    }
    let took = *arrivals.lock().unwrap().last().unwrap() - start;
    assert!(took < Duration::from_millis(1_030), "{took:?}");
}

/// Which of 50 requests arrived, and when, while `change` happens in their midst.
async fn arrivals_around(change: impl FnOnce(&RateLimitHandle)) -> (Vec<usize>, Vec<Instant>) {
    let seen = Arc::new(Mutex::new((Vec::new(), Vec::new())));
    let arrived = seen.clone();
    let inner = service_fn(move |request: Request<usize>| {
        let mut seen = arrived.lock().unwrap();
        seen.0.push(*request.body());
        seen.1.push(Instant::now());
        async { Ok::<_, Infallible>(Response::new(())) }
    });
    let limit = PlotonRateLimit::new(requests(600));
    let service = limit.layer(inner);
    let mut calls: JoinSet<_> = (0..50)
        .map(|n| service.clone().oneshot(Request::new(n)))
        .collect();
    time::sleep(SECOND).await;
    change(&limit.handle());
    while let Some(call) = calls.join_next().await {
        call.unwrap().unwrap();
    }
    mem::take(&mut *seen.lock().unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_smaller_plan_holds_for_those_who_wait_and_they_keep_their_order() {
    let start = Instant::now();
    let (order, arrivals) = arrivals_around(|handle| handle.set_plan(requests(60))).await;
    assert!(order.is_sorted());
    let before = arrivals.iter().filter(|&&at| at <= start + SECOND).count();
    assert!((9..=11).contains(&before), "{before}");
    for pair in arrivals[before + 1..].windows(2) {
        assert!(pair[1] - pair[0] > SECOND, "{:?}", pair[1] - pair[0]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_pause_holds_for_those_who_wait_and_they_keep_their_order() {
    let until = Instant::now() + 31 * SECOND;
    let (order, arrivals) = arrivals_around(|handle| handle.pause_until(until)).await;
    assert!(order.is_sorted());
    let (before, after): (Vec<_>, Vec<_>) = arrivals.iter().partition(|&&at| at < until);
    assert!((9..=11).contains(&before.len()), "{}", before.len());
    assert!(before.iter().all(|&&at| at <= until - 30 * SECOND));
    assert!(*after[0] <= until + Duration::from_millis(2));
}

#[tokio::test(start_paused = true)]
async fn no_instant_is_too_late_for_a_pause() {
    let (limit, service, _handle) = answered_once().await;
    let now = Instant::now();
    let mut last = now;
    let powers = || (0..64).rev().map(|power| 1 << power);
    let seconds = powers().map(Duration::from_secs);
    for more in seconds.chain(powers().map(Duration::from_nanos)) {
        last = last.checked_add(more).unwrap_or(last);
    }
    let centuries = now + Duration::from_secs(60 * 60 * 24 * 365 * 200);
    for until in [centuries, last] {
        limit.handle().pause_until(until);
        let mut calls: Vec<_> = (0..3)
            .map(|_| task::spawn(service.clone().oneshot(get())))
            .collect();
        for call in &mut calls {
            assert_pending!(call.poll());
        }
        let snapshot = limit.handle().snapshot();
        assert_eq!(snapshot.paused_until, Some(until));
        assert_eq!(snapshot.held_by, Some(Rule::Paused));
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_without_a_turn_waits_in_its_future() {
    let (_limit, service, mut handle) = answered_once().await;
    let mut unasked = service.clone();
    let mut call = task::spawn(unasked.call(get()));
    assert_pending!(call.poll());
    handle
        .next_request()
        .await
        .unwrap()
        .1
        .send_response(answer(StatusCode::OK));
    assert_ready_ok!(call.poll());
}

#[tokio::test(start_paused = true)]
async fn a_call_that_ends_in_an_error_while_it_waits_leaves_the_queue_at_once() {
    let (limit, service, mut handle) = answered_once().await;
    let mut call = task::spawn(service.clone().call(get()));
    handle.send_error("closed");
    assert_eq!(assert_ready_err!(call.poll()).to_string(), "closed");
    assert_eq!(limit.handle().snapshot().waiting, 0);
    drop(call);
}
