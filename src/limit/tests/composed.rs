//! Beside tower's own layers: nothing hangs, and no minute sees more than the plan.

use std::{future, pin::Pin, task::ready};

use tokio::time::{Sleep, sleep_until};
use tower::{
    ServiceBuilder,
    balance::p2c::Balance,
    buffer::Buffer,
    discover::ServiceList,
    limit::ConcurrencyLimitLayer,
    load::{CompleteOnResponse, PendingRequestsDiscover},
    load_shed::{LoadShed, error::Overloaded},
};

use super::*;

type Arrivals = Arc<Mutex<Vec<Instant>>>;

/// Sends `count` requests at once through clones of `service`, and says how long that took.
async fn send_all<S>(service: &S, count: usize) -> Duration
where
    S: Service<Request<()>, Response = Response<()>, Future: Send> + Clone + Send + 'static,
    S::Error: std::fmt::Debug + Send,
{
    let start = Instant::now();
    let mut calls: JoinSet<_> = (0..count).map(|_| service.clone().oneshot(get())).collect();
    while let Some(call) = calls.join_next().await {
        call.unwrap().unwrap();
    }
    Instant::now() - start
}

/// As many as fit into three minutes took no longer, and no minute saw more than the plan.
fn assert_used_and_within(arrivals: &Arrivals, took: Duration) {
    assert_eq!(arrivals.lock().unwrap().len(), 300);
    assert_within(100, arrivals);
    assert!(took < 190 * SECOND, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn load_shed_sheds_what_would_wait_and_holds_no_place_against_the_next() {
    let arrivals = Arrivals::default();
    let limit = PlotonRateLimit::new(Plan::Prototyping);
    let service = LoadShed::new(limit.layer(server(&arrivals, |_| 20)));
    let (mut sent, mut shed) = (0, 0);
    let start = Instant::now();
    let mut kept = Vec::new();
    while Instant::now() - start < 180 * SECOND {
        // A service that shed once is kept, as one that serves a connection is.
        let mut service = service.clone();
        match service.ready().await.unwrap().call(get()).await {
            Ok(_) => sent += 1,
            Err(error) => {
                assert!(error.is::<Overloaded>(), "{error}");
                shed += 1;
                kept.push(service);
            }
        }
        time::sleep(Duration::from_millis(100)).await;
    }
    assert_within(100, &arrivals);
    assert!(sent >= 200, "{sent} sent, {shed} shed");
    assert!(shed > sent);
}

#[tokio::test(start_paused = true)]
async fn a_buffer_sends_one_after_the_other() {
    let arrivals = Arrivals::default();
    let limited = PlotonRateLimit::new(Plan::Prototyping).layer(server(&arrivals, |_| 20));
    let took = send_all(&Buffer::new(limited, 500), 300).await;
    assert_used_and_within(&arrivals, took);
}

/// The buffer's worker would end with an error of `poll_ready`.
#[tokio::test(start_paused = true)]
async fn a_buffer_outlives_requests_that_may_not_wait() {
    let arrivals = Arrivals::default();
    let limit = PlotonRateLimit::new(Plan::Prototyping).max_wait(Duration::ZERO);
    let service = Buffer::new(limit.layer(server(&arrivals, |_| 20)), 10);
    service.clone().oneshot(get()).await.unwrap();
    let error = service.clone().oneshot(get()).await.unwrap_err();
    assert!(error.is::<WaitTooLong>(), "{error}");
    time::sleep(SECOND).await;
    service.oneshot(get()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_concurrency_limit_may_stand_on_either_side() {
    for outside in [true, false] {
        let arrivals = Arrivals::default();
        let limit = PlotonRateLimit::new(Plan::Prototyping);
        let few = ConcurrencyLimitLayer::new(3);
        let server = server(&arrivals, |n| 100 * (n as u64 % 10));
        let took = if outside {
            let service = ServiceBuilder::new().layer(few).layer(limit);
            send_all(&service.service(server), 300).await
        } else {
            let service = ServiceBuilder::new().layer(limit).layer(few);
            send_all(&service.service(server), 300).await
        };
        assert_used_and_within(&arrivals, took);
    }
}

#[tokio::test(start_paused = true)]
async fn a_balancer_keeps_ready_services_and_starves_nobody() {
    let arrivals = Arrivals::default();
    let limit = PlotonRateLimit::new(Plan::Prototyping);
    let services = [20, 300, 700].map(|_| limit.layer(server(&arrivals, |n| 50 * (n as u64 % 9))));
    // Another clone waits beside the balancer, and gets its share.
    let beside = services[0].clone();
    let discover = ServiceList::new(services);
    let discover = PendingRequestsDiscover::new(discover, CompleteOnResponse::default());
    let balanced = Buffer::new(Balance::new(discover), 500);
    let (took, took_beside) = tokio::join!(send_all(&balanced, 200), send_all(&beside, 100));
    assert_used_and_within(&arrivals, took.max(took_beside));
}

/// A service that is not ready before an instant.
struct Busy<S> {
    inner: S,
    until: Instant,
    timer: Pin<Box<Sleep>>,
}

impl<S> Busy<S> {
    fn until(until: Instant, inner: S) -> Self {
        let timer = Box::pin(sleep_until(until));
        Self {
            inner,
            until,
            timer,
        }
    }
}

impl<S: Clone> Clone for Busy<S> {
    fn clone(&self) -> Self {
        Self::until(self.until, self.inner.clone())
    }
}

impl<S: Service<Request<()>>> Service<Request<()>> for Busy<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        if Instant::now() < self.until {
            ready!(self.timer.as_mut().poll(cx));
        }
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<()>) -> S::Future {
        self.inner.call(request)
    }
}

/// Tokens that were given out in `poll_ready` grew old there, and all left at once.
#[tokio::test(start_paused = true)]
async fn an_inner_service_that_was_busy_for_a_minute_sees_no_more_than_the_plan() {
    let arrivals = Arrivals::default();
    let start = Instant::now();
    let inner = Busy::until(start + 60 * SECOND, server(&arrivals, |_| 20));
    let limit = PlotonRateLimit::new(Plan::Prototyping);
    let service = limit.layer(inner);
    let took = send_all(&service, 300).await;
    assert!(arrivals.lock().unwrap()[0] >= start + 60 * SECOND);
    assert_used_and_within(&arrivals, took - 60 * SECOND);

    // The same, behind a buffer and in futures that were called without a turn.
    let arrivals = Arrivals::default();
    let start = Instant::now();
    let inner = Busy::until(start + 60 * SECOND, server(&arrivals, |_| 20));
    let service = Buffer::new(PlotonRateLimit::new(Plan::Prototyping).layer(inner), 500);
    let took = send_all(&service, 300).await;
    assert_used_and_within(&arrivals, took - 60 * SECOND);
    future::ready(()).await;
}

/// Each of them was called up for 50 ms, and as long as one was, whoever came was shed.
#[tokio::test(start_paused = true)]
async fn what_was_shed_and_kept_is_in_nobodys_way_after_its_turn() {
    let limit = PlotonRateLimit::new(Plan::Prototyping);
    let service = LoadShed::new(limit.layer(server(&Arc::default(), |_| 20)));
    let mut kept = vec![service; 200];
    for service in &mut kept {
        drop(service.ready().await.unwrap().call(get()));
    }
    assert_eq!(limit.handle().snapshot().waiting, 199);
    time::sleep(700 * SECOND).await;
    for service in [199, 60, 61].map(|n| kept[n].clone()) {
        service.oneshot(get()).await.expect("nobody else asks");
        time::sleep(SECOND).await;
    }
    assert_eq!(limit.handle().snapshot().waiting, 0);
    for service in kept.drain(..).take(3) {
        service.oneshot(get()).await.expect("nobody else asks");
        time::sleep(SECOND).await;
    }
}
