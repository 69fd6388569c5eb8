//! How often those who wait are woken, and how long they were told that they would wait.

use std::{
    pin::pin,
    sync::atomic::{AtomicUsize, Ordering},
};

use super::*;

/// How a server gives back what was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gives {
    /// All of it with each minute.
    Windows,
    Evenly,
}

/// A server of `N` requests a minute, which says what is left. With each of our requests come as many of others as
/// `others`, as long as there is room.
#[derive(Debug)]
struct Counting {
    gives: Gives,
    others: u32,
    since: Instant,
    used: f64,
    /// The requests in the order in which they arrived.
    order: Vec<usize>,
    refused: u32,
}

const N: u32 = 1_000;
const MINUTE: Duration = Duration::from_secs(60);

impl Counting {
    fn new(gives: Gives, others: u32) -> Arc<Mutex<Self>> {
        Arc::new(Mutex::new(Self {
            gives,
            others,
            since: Instant::now(),
            used: 0.0,
            order: Vec::new(),
            refused: 0,
        }))
    }

    fn arrive(&mut self, request: usize) -> Response<()> {
        let now = Instant::now();
        let elapsed = now - self.since;
        match self.gives {
            Gives::Windows if elapsed >= MINUTE => {
                self.since =
                    now - Duration::from_nanos((elapsed.as_nanos() % MINUTE.as_nanos()) as u64);
                self.used = 0.0;
            }
            Gives::Windows => {}
            Gives::Evenly => {
                self.since = now;
                self.used = (self.used - elapsed.as_secs_f64() / 60.0 * f64::from(N)).max(0.0);
            }
        }
        let is_allowed = self.take();
        for _ in 0..self.others {
            self.take();
        }
        let left = f64::from(N) - self.used;
        let wait = match self.gives {
            Gives::Windows => (self.since + MINUTE - now).as_secs_f64(),
            Gives::Evenly => self.used / f64::from(N) * 60.0,
        };
        let mut response = answer(StatusCode::OK);
        if is_allowed {
            self.order.push(request);
        } else {
            self.refused += 1;
            response = refusal("1");
        }
        for (name, value) in [
            ("limit", f64::from(N)),
            ("remaining", left.floor()),
            ("reset", wait.ceil()),
        ] {
            let name: HeaderName = format!("x-ratelimit-{name}").parse().unwrap();
            response.headers_mut().insert(name, (value as u64).into());
        }
        response
    }

    fn take(&mut self) -> bool {
        let is_allowed = self.used + 1.0 <= f64::from(N);
        if is_allowed {
            self.used += 1.0;
        }
        is_allowed
    }
}

fn counting(
    server: &Arc<Mutex<Counting>>,
) -> impl Service<Request<usize>, Response = Response<()>, Error = Infallible, Future: Send>
+ Clone
+ Send
+ use<> {
    let server = server.clone();
    service_fn(move |request: Request<usize>| {
        let server = server.clone();
        async move {
            time::sleep(Duration::from_millis(10)).await;
            let response = server.lock().unwrap().arrive(*request.body());
            time::sleep(Duration::from_millis(10)).await;
            Ok(response)
        }
    })
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

/// Ten thousand requests at once. Returns how often one of them was woken on average, and the mode at the end.
async fn ten_thousand(gives: Gives, others: u32) -> (f64, Mode) {
    const WAITERS: usize = 10_000;
    let server = Counting::new(gives, others);
    let limit = PlotonRateLimit::new(Plan::Production);
    let service = limit.layer(counting(&server));
    let polls = Arc::new(AtomicUsize::new(0));
    let mut calls: JoinSet<_> = (0..WAITERS)
        .map(|n| {
            let (mut service, polls) = (service.clone(), polls.clone());
            async move {
                counted(polls, service.ready()).await.unwrap();
                service.call(Request::new(n)).await.unwrap();
            }
        })
        .collect();
    let mut mode = Mode::Paced;
    while let Some(call) = calls.join_next().await {
        call.unwrap();
        if calls.len() == 1_000 {
            mode = limit.handle().snapshot().mode;
        }
    }
    let server = server.lock().unwrap();
    assert_eq!(server.refused, 0);
    assert!(server.order.is_sorted());
    // All were polled once to begin with.
    let woken = polls.load(Ordering::Relaxed) - WAITERS;
    (woken as f64 / WAITERS as f64, mode)
}

#[tokio::test(start_paused = true)]
async fn a_grant_wakes_at_most_three_in_window_mode() {
    let (woken, mode) = ten_thousand(Gives::Windows, 0).await;
    assert_eq!(mode, Mode::Window);
    assert!(woken <= 3.0, "{woken}");
}

/// They came when nobody else was seen, and asked again and again whether it was their turn, when it was later than they
/// had expected; and the two first in the queue did so with each answer.
#[tokio::test(start_paused = true)]
async fn a_grant_wakes_at_most_three_among_others() {
    for (gives, others) in [
        (Gives::Windows, 1),
        (Gives::Windows, 3),
        (Gives::Evenly, 1),
        (Gives::Evenly, 3),
    ] {
        let (woken, mode) = ten_thousand(gives, others).await;
        assert_eq!(mode, Mode::Shared);
        assert!(woken <= 3.0, "{gives:?}, {others}: {woken}");
    }
}

/// What one more request behind `count` others is told that it would wait, and how long it does, `millis` after they came
/// and when `before` others have gone.
async fn told_and_real(
    gives: Gives,
    others: u32,
    before: usize,
    count: usize,
    millis: u64,
) -> (Duration, Duration, Mode) {
    let server = Counting::new(gives, others);
    let limit = PlotonRateLimit::new(Plan::Production);
    let service = limit.layer(counting(&server));
    let send = |count: usize| -> JoinSet<_> {
        (0..count)
            .map(|n| service.clone().oneshot(Request::new(n)))
            .collect()
    };
    send(before).join_all().await;
    let mut ahead = send(count);
    time::sleep(Duration::from_millis(millis)).await;
    let start = Instant::now();
    let mode = limit.handle().snapshot().mode;
    let full = limit.max_waiting(0).layer(counting(&server));
    let error = full.oneshot(Request::new(0)).await.unwrap_err();
    let told = error.downcast::<QueueFull>().unwrap().wait();
    while ahead.join_next().await.is_some() {}
    (told, Instant::now() - start, mode)
}

/// It was told for an even pace in all modes: too long in a window, and too short among others.
#[tokio::test(start_paused = true)]
async fn the_wait_that_is_told_is_about_the_wait_that_it_will_be() {
    for (gives, others, before, count, millis, mode) in [
        (Gives::Windows, 0, 900, 50, 1, Mode::Paced),
        (Gives::Windows, 0, 1_100, 950, 1, Mode::Window),
        (Gives::Windows, 0, 1_100, 1_500, 1, Mode::Window),
        (Gives::Windows, 0, 1_100, 4_500, 1, Mode::Window),
        // Nothing is left of the window.
        (Gives::Windows, 0, 1_100, 4_500, 10_000, Mode::Window),
        (Gives::Windows, 1, 1_300, 300, 1, Mode::Shared),
        (Gives::Windows, 1, 1_300, 3_000, 1, Mode::Shared),
        (Gives::Windows, 3, 1_200, 1_000, 1, Mode::Shared),
        (Gives::Evenly, 1, 1_500, 300, 1, Mode::Shared),
        (Gives::Evenly, 3, 1_500, 1_000, 1, Mode::Shared),
    ] {
        let (told, real, was) = told_and_real(gives, others, before, count, millis).await;
        assert_eq!(was, mode);
        let off = told.as_secs_f64() / real.as_secs_f64() - 1.0;
        assert!(
            off.abs() < 0.05,
            "{gives:?}, {others}, {count}: {told:?} {real:?}"
        );
    }
}
