//! What was reported of other limiters, and is not so here. Each test names where.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    task::Wake,
};

use super::*;

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// smithy-rs #4632: asking was charged, the fiftieth task slept for 100 s, and the bucket never recovered.
#[tokio::test(start_paused = true)]
async fn asking_takes_no_token() {
    let (limit, service, _handle) = answered_once().await;
    let mut services: Vec<_> = (0..50).map(|_| service.clone()).collect();
    let before = limit.handle().snapshot();
    for _ in 0..20 {
        for service in &mut services {
            task::spawn(())
                .enter(|cx, _| service.poll_ready(cx).map(|ready| ready.unwrap()))
                .is_ready();
        }
        time::advance(Duration::from_millis(3)).await;
    }
    drop(services);
    let after = limit.handle().snapshot();
    assert_eq!(after.remaining, before.remaining);
    assert_eq!((after.held_by, after.waiting), (None, 0));
}

/// tower-resilience #363: whoever waited and asked again was let through.
#[tokio::test(start_paused = true)]
async fn asking_again_is_no_turn() {
    let arrivals = Arc::default();
    let service = PlotonRateLimit::new(Plan::Prototyping).layer(server(&arrivals, |_| 20));
    service.clone().oneshot(get()).await.unwrap();
    let start = Instant::now();
    let mut calls: Vec<_> = (0..5)
        .map(|_| task::spawn(service.clone().oneshot(get())))
        .collect();
    while !calls.is_empty() {
        calls.retain_mut(|call| call.poll().is_pending());
        time::advance(Duration::from_millis(1)).await;
    }
    let arrivals = arrivals.lock().unwrap();
    for (n, &at) in arrivals.iter().enumerate() {
        assert!(
            at + Duration::from_millis(30) >= start + STEP * n as u32,
            "{n}"
        );
    }
    // ratelimit 2.0: whoever asked often got less, since the rest of each division was dropped.
    let late = arrivals[5] - start;
    assert!(late <= STEP * 5 + Duration::from_millis(5), "{late:?}");
}

/// tower-resilience #365: whoever waited woke itself without end, and clones that were all ready were all let through.
#[tokio::test(start_paused = true)]
async fn whoever_waits_sleeps_and_clones_that_are_ready_share_one_token() {
    let (limit, service, mut handle) = answered_once().await;
    let mut clones: Vec<_> = (0..10).map(|_| service.clone()).collect();
    for clone in &mut clones {
        // Each is ready after the one before was passed.
        task::spawn(()).enter(|cx, _| assert_ready_ok!(clone.poll_ready(cx)));
        time::advance(Duration::from_millis(50)).await;
    }
    let count = Arc::new(Count::default());
    let waker = count.clone().into();
    let mut cx = Context::from_waker(&waker);
    let mut calls: Vec<_> = clones
        .iter_mut()
        .map(|clone| Box::pin(clone.call(get())))
        .collect();
    for call in &mut calls {
        assert_pending!(call.as_mut().poll(&mut cx));
    }
    assert_eq!(limit.handle().snapshot().in_flight, 1);
    assert_eq!(count.0.load(Ordering::Relaxed), 0, "nobody wakes itself");
    assert!(task::spawn(handle.next_request()).poll().is_ready());
    assert_pending!(task::spawn(handle.next_request()).poll());
}

/// golang/go #56924: who waited behind one that was cancelled got nothing of what that gave back.
#[tokio::test(start_paused = true)]
async fn whoever_waits_behind_a_cancelled_one_moves_up() {
    let (_limit, service, mut handle) = answered_once().await;
    let start = Instant::now();
    let mut calls: Vec<_> = (0..10)
        .map(|_| task::spawn(service.clone().oneshot(get())))
        .collect();
    for call in &mut calls {
        assert_pending!(call.poll());
    }
    let last = calls.pop().unwrap();
    calls.truncate(1);
    let last = tokio::spawn(last.into_inner());
    for _ in 0..2 {
        let (_, sent) = handle.next_request().await.unwrap();
        sent.send_response(answer(StatusCode::OK));
    }
    last.await.unwrap().unwrap();
    assert!(Instant::now() - start <= STEP + Duration::from_millis(2));
}

/// tower-governor #65, go-retryablehttp #170: a truncated `Retry-After: 0` was obeyed, and refused again. flask-limiter #62:
/// it was negative.
#[tokio::test(start_paused = true)]
async fn a_pause_is_never_empty() {
    for hint in ["0", "-5", "0.0"] {
        let (limit, service, mut handle) = answered_once().await;
        let mut refused = task::spawn(service.clone().oneshot(get()));
        assert_pending!(refused.poll());
        let (_, sent) = handle.next_request().await.unwrap();
        sent.send_response(refusal(hint));
        assert_ready_ok!(refused.poll());
        let until = limit.handle().snapshot().paused_until.unwrap();
        assert!(until >= Instant::now() + STEP, "{hint}");
    }
}

/// flask-limiter #62: `Retry-After` was too short again and again.
#[tokio::test(start_paused = true)]
async fn a_hint_that_is_too_short_is_believed_less_each_time() {
    let (limit, service, mut handle) = answered_once().await;
    let mut least = Duration::ZERO;
    for _ in 0..6 {
        let refused = tokio::spawn(service.clone().oneshot(get()));
        let (_, sent) = handle.next_request().await.unwrap();
        sent.send_response(refusal("1"));
        refused.await.unwrap().unwrap();
        let pause = limit.handle().snapshot().paused_until.unwrap() - Instant::now();
        assert!(pause >= 2 * least, "{pause:?} after {least:?}");
        least = SECOND.max(2 * least);
    }
}

/// httprate #47: `Retry-After` is a whole window whenever it is said. It is obeyed, since nothing tells that it is too
/// long, and waited for once.
#[tokio::test(start_paused = true)]
async fn a_hint_of_a_whole_window_costs_one_window() {
    let (_limit, service, mut handle) = answered_once().await;
    let start = Instant::now();
    let mut refused = task::spawn(service.clone().oneshot(get()));
    assert_pending!(refused.poll());
    let (_, sent) = handle.next_request().await.unwrap();
    sent.send_response(refusal("60"));
    assert_ready_ok!(refused.poll());
    let next = tokio::spawn(service.oneshot(get()));
    let (_, sent) = handle.next_request().await.unwrap();
    let waited = Instant::now() - start;
    assert!(waited >= 60 * SECOND && waited <= 66 * SECOND, "{waited:?}");
    sent.send_response(answer(StatusCode::OK));
    next.await.unwrap().unwrap();
}

/// octokit's plugin-throttling #629: what had been queued before a refusal went on.
#[tokio::test(start_paused = true)]
async fn a_refusal_stops_those_too_who_have_their_turn() {
    let (limit, service, mut handle) = answered_once().await;
    let mut refused = task::spawn(service.clone().oneshot(get()));
    assert_pending!(refused.poll());
    time::advance(STEP).await;
    let mut ready = service.clone();
    task::spawn(()).enter(|cx, _| assert_ready_ok!(ready.poll_ready(cx)));
    let (_, sent) = handle.next_request().await.unwrap();
    sent.send_response(refusal("12"));
    assert_ready_ok!(refused.poll());
    let mut call = task::spawn(ready.call(get()));
    assert_pending!(call.poll());
    assert_eq!(limit.handle().snapshot().in_flight, 0);
}

/// tower #547, tower-resilience #286, hyper-util #297: a clone was called that had not been asked whether it is ready.
#[tokio::test(start_paused = true)]
async fn only_what_was_ready_is_called() {
    #[derive(Default)]
    struct Careful(bool);
    impl Clone for Careful {
        fn clone(&self) -> Self {
            Self(false)
        }
    }
    impl Service<Request<()>> for Careful {
        type Response = Response<()>;
        type Error = Infallible;
        type Future = std::future::Ready<Result<Response<()>, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            self.0 = true;
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request<()>) -> Self::Future {
            assert!(
                std::mem::take(&mut self.0),
                "called without its own poll_ready"
            );
            std::future::ready(Ok(Response::new(())))
        }
    }
    let service = PlotonRateLimit::new(Plan::Production).layer(Careful::default());
    let mut calls = JoinSet::new();
    for n in 0..100 {
        let mut service = service.clone();
        calls.spawn(async move {
            let ready = service.ready().await.unwrap();
            if n % 3 == 0 {
                time::sleep(Duration::from_millis(60)).await;
            }
            ready.call(get()).await.unwrap();
        });
    }
    calls.join_all().await;
}
