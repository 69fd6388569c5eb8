//! Whoever is dropped, at whatever point, takes nothing with it: no token, no wake-up.

use super::*;

/// What somebody who was dropped had come to.
#[derive(Clone, Copy, Debug)]
enum Point {
    Unpolled,
    /// In `poll_ready`, then in a future.
    Waiting,
    WaitingInFuture,
    /// Called up and woken, but not polled again.
    Woken,
    WokenInFuture,
    Ready,
    /// It was ready for so long that the next may pass.
    Passed,
    /// The future has its turn, and waits for the inner service.
    InnerBusy,
    Refused,
}

use Point::*;

type Limited = RateLimitService<mock::Mock<Request<()>, Response<()>>>;

/// Brings somebody to `point`; dropping it is the test.
async fn brought_to(
    point: Point,
    limit: &PlotonRateLimit,
    service: &Limited,
    handle: &mut mock::Handle<Request<()>, Response<()>>,
) -> Box<dyn std::any::Any> {
    let mut one = service.clone();
    let mut context = task::spawn(());
    let mut poll_ready = |one: &mut Limited| context.enter(|cx, _| one.poll_ready(cx).is_ready());
    match point {
        Unpolled => return Box::new((service.clone().call(get()), one)),
        Ready => assert!(poll_ready(&mut one)),
        Passed => {
            assert!(poll_ready(&mut one));
            time::advance(Duration::from_millis(60)).await;
        }
        Refused => {
            let mut one = limit.clone().max_waiting(0).layer(handle_less());
            limit.handle().pause_until(Instant::now() + SECOND);
            task::spawn(()).enter(|cx, _| assert_ready_ok!(one.poll_ready(cx)));
            return Box::new(one.call(get()));
        }
        InnerBusy => {
            handle.allow(0);
            let mut call = task::spawn(one.call(get()));
            assert_pending!(call.poll());
            return Box::new((call, one));
        }
        Waiting | Woken => {
            limit.handle().pause_until(Instant::now() + SECOND);
            assert!(!poll_ready(&mut one));
        }
        WaitingInFuture | WokenInFuture => {
            limit.handle().pause_until(Instant::now() + SECOND);
            let mut call = task::spawn(one.call(get()));
            assert_pending!(call.poll());
            if matches!(point, WokenInFuture) {
                time::advance(SECOND + Duration::from_millis(2)).await;
                assert!(call.is_woken());
            }
            return Box::new((call, one));
        }
    }
    if matches!(point, Woken) {
        time::advance(SECOND + Duration::from_millis(2)).await;
    }
    Box::new((one, context))
}

fn handle_less() -> impl Service<Request<()>, Response = Response<()>, Error = Infallible> + Clone {
    service_fn(async |_: Request<()>| Ok(Response::new(())))
}

#[tokio::test(start_paused = true)]
async fn a_drop_loses_no_token_and_no_wake_up() {
    for point in [
        Unpolled,
        Waiting,
        WaitingInFuture,
        Woken,
        WokenInFuture,
        Ready,
        Passed,
        InnerBusy,
        Refused,
    ] {
        let (limit, service, mut handle) = answered_once().await;
        let before = limit.handle().snapshot();
        let dropped = brought_to(point, &limit, &service, &mut handle).await;
        // Behind it wait two more.
        let calls = [(); 2].map(|()| tokio::spawn(service.clone().oneshot(get())));
        tokio::task::yield_now().await;
        drop(dropped);
        handle.allow(10);
        let start = Instant::now();
        for call in calls {
            let (_, sent) = handle.next_request().await.unwrap();
            sent.send_response(answer(StatusCode::OK));
            call.await.unwrap().unwrap();
        }
        let late = Instant::now() - start;
        assert!(
            late <= SECOND + STEP + Duration::from_millis(5),
            "{point:?}: {late:?}"
        );
        let after = limit.handle().snapshot();
        assert_eq!((after.waiting, after.in_flight), (0, 0), "{point:?}");
        assert_eq!(after.remaining, before.remaining - 2, "{point:?}");
    }
}
