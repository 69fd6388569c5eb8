//! The queue alone: its time and its tokens are the tests'.
#![allow(
    clippy::arithmetic_side_effects,
    reason = "a test may panic, and reads better so"
)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    task::Wake,
};

use proptest::prelude::*;

use super::*;
use crate::limit::rule::Rule;

const SECOND: Duration = Duration::from_secs(1);
const STEP: Duration = Duration::from_millis(60);
const BUSY: Verdict = Verdict::Later(Rule::Ring, None);

/// Wake-ups of one waiter.
#[derive(Default)]
struct Count(AtomicU32);

impl Count {
    fn take(&self) -> u32 {
        self.0.swap(0, Ordering::Relaxed)
    }
}

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn outlook(verdict: Verdict, now: Instant) -> Outlook {
    Outlook {
        now,
        verdict,
        pace: Pace {
            many: 1,
            often: STEP,
        },
    }
}

fn paced(until: Instant) -> Verdict {
    Verdict::Later(Rule::Paced, Some(until))
}

/// One who waits.
struct Waiter {
    ticket: u64,
    woken: Arc<Count>,
    timer: Option<Instant>,
    /// It was never asked, or its turn came and it did not leave yet.
    acts: bool,
}

impl Waiter {
    fn join(queue: &mut Queue) -> Self {
        Self {
            ticket: queue.join(),
            woken: Arc::default(),
            timer: None,
            acts: true,
        }
    }

    fn ask(&mut self, queue: &mut Queue, verdict: Verdict, now: Instant) -> Turn {
        self.woken.take();
        let mut wakers = Wakers::default();
        let mut waker = Some(self.woken.clone().into());
        let turn = queue.ask(self.ticket, outlook(verdict, now), &mut waker, &mut wakers);
        wakers.wake();
        (self.acts, self.timer) = match turn {
            Turn::Now => (true, None),
            Turn::Later(timer) => (false, timer),
        };
        turn
    }

    fn take(&mut self, queue: &mut Queue, verdict: Verdict, now: Instant) -> bool {
        let mut wakers = Wakers::default();
        let taken = queue.take(self.ticket, outlook(verdict, now), &mut wakers);
        wakers.wake();
        self.acts = !taken;
        taken
    }

    fn leave(self, queue: &mut Queue) {
        let mut wakers = Wakers::default();
        queue.leave(self.ticket, &mut wakers);
        wakers.wake();
    }

    fn is_awake(&self, now: Instant) -> bool {
        let woken = self.woken.0.load(Ordering::Relaxed) > 0;
        self.acts || woken || self.timer.is_some_and(|timer| timer <= now)
    }
}

fn serve(queue: &mut Queue, verdict: Verdict, now: Instant) {
    let mut wakers = Wakers::default();
    queue.serve(outlook(verdict, now), &mut wakers);
    wakers.wake();
}

/// A queue of `N` who were told to wait.
fn waiting<const N: usize>(verdict: Verdict, now: Instant) -> (Queue, [Waiter; N]) {
    let mut queue = Queue::default();
    let waiters = [(); N].map(|()| {
        let mut waiter = Waiter::join(&mut queue);
        assert_ne!(waiter.ask(&mut queue, verdict, now), Turn::Now);
        waiter
    });
    (queue, waiters)
}

#[test]
fn those_who_came_first_are_first() {
    let now = Instant::now();
    let (mut queue, mut waiters) = waiting::<5>(BUSY, now);
    for n in 0..5 {
        for other in &mut waiters[n + 1..] {
            assert_ne!(other.ask(&mut queue, Verdict::Now(1), now), Turn::Now);
        }
        assert_eq!(waiters[n].ask(&mut queue, Verdict::Now(1), now), Turn::Now);
        assert!(waiters[n].take(&mut queue, Verdict::Now(1), now));
    }
    assert_eq!(queue.waiting(), 0);
}

#[test]
fn as_many_are_called_up_as_there_are_tokens() {
    let now = Instant::now();
    let (mut queue, mut waiters) = waiting::<5>(BUSY, now);
    serve(&mut queue, Verdict::Now(3), now);
    let woken = waiters.each_ref().map(|waiter| waiter.woken.take());
    assert_eq!(woken, [1, 1, 1, 1, 0], "and the fourth watches them");
    let turns = waiters
        .each_mut()
        .map(|waiter| waiter.ask(&mut queue, Verdict::Now(3), now) == Turn::Now);
    assert_eq!(turns, [true, true, true, false, false]);
    assert_eq!(waiters[3].timer, Some(now + PARKED));
}

/// Three were called up, and then there was only one token: the first two to ask would have taken it.
#[test]
fn fewer_tokens_than_turns_are_for_the_first() {
    let now = Instant::now();
    let (mut queue, mut waiters) = waiting::<3>(BUSY, now);
    serve(&mut queue, Verdict::Now(3), now);
    for waiter in &mut waiters {
        assert_eq!(waiter.ask(&mut queue, Verdict::Now(3), now), Turn::Now);
    }
    let [first, second, third] = &mut waiters;
    assert!(!third.take(&mut queue, Verdict::Now(1), now));
    assert!(!second.take(&mut queue, Verdict::Now(1), now));
    assert!(first.take(&mut queue, Verdict::Now(1), now));
}

#[test]
fn whoever_enters_is_called_up_like_one_who_asks() {
    let now = Instant::now();
    let token = Verdict::Now(1);
    let mut queue = Queue::default();
    let mut first = Waiter {
        ticket: queue.enter(now),
        ..Waiter::join(&mut Queue::default())
    };
    assert_eq!((queue.waiting(), queue.len()), (0, 1));
    let mut second = Waiter::join(&mut queue);
    assert_ne!(second.ask(&mut queue, token, now), Turn::Now);
    assert_eq!(first.ask(&mut queue, token, now), Turn::Now);
    // It does nothing, and stops nobody.
    let late = now + PARKED;
    assert_eq!(second.ask(&mut queue, token, late), Turn::Now);
    assert!(second.take(&mut queue, token, late));
    assert!(queue.is_empty());
    assert!(first.take(&mut queue, token, late));
}

#[test]
fn a_newcomer_never_passes() {
    let now = Instant::now();
    let (mut queue, [_first, _second]) = waiting::<2>(BUSY, now);
    let mut newcomer = Waiter::join(&mut queue);
    for _ in 0..3 {
        assert_ne!(newcomer.ask(&mut queue, Verdict::Now(2), now), Turn::Now);
        assert!(!newcomer.take(&mut queue, Verdict::Now(2), now));
    }
}

#[test]
fn whoever_leaves_from_the_middle_is_missed_by_nobody() {
    let now = Instant::now();
    let (mut queue, [first, middle, mut last]) = waiting::<3>(BUSY, now);
    middle.leave(&mut queue);
    assert_eq!(last.ask(&mut queue, BUSY, now), Turn::Later(last.timer));
    first.leave(&mut queue);
    assert_eq!(last.ask(&mut queue, Verdict::Now(1), now), Turn::Now);
}

#[test]
fn a_head_that_does_not_act_is_passed_after_50_ms_and_keeps_its_place() {
    let now = Instant::now();
    let due = now + SECOND;
    let (mut queue, [mut head, mut second, mut third]) = waiting::<3>(paced(due), now);
    assert_eq!(head.timer, Some(due));
    let guard = due + PARKED;
    assert_eq!(second.timer, Some(guard));

    assert_eq!(second.ask(&mut queue, Verdict::Now(1), guard), Turn::Now);
    assert!(second.take(&mut queue, Verdict::Now(1), guard));
    let next = guard + SECOND;
    assert_eq!(
        head.ask(&mut queue, paced(next), guard),
        Turn::Later(Some(next))
    );
    assert_eq!(
        third.ask(&mut queue, paced(next), guard),
        Turn::Later(Some(next + PARKED))
    );
}

#[test]
fn a_turn_that_is_not_used_is_passed_and_whoever_was_passed_takes_what_is_left() {
    let now = Instant::now();
    let mut queue = Queue::default();
    let mut idle = Waiter::join(&mut queue);
    assert_eq!(idle.ask(&mut queue, Verdict::Now(1), now), Turn::Now);
    let mut next = Waiter::join(&mut queue);
    let guard = now + PARKED;
    assert_eq!(
        next.ask(&mut queue, Verdict::Now(1), now),
        Turn::Later(Some(guard))
    );
    assert_eq!(next.ask(&mut queue, Verdict::Now(1), guard), Turn::Now);
    assert!(
        !idle.take(&mut queue, Verdict::Now(1), guard),
        "the turn is another's now"
    );
    assert!(next.take(&mut queue, Verdict::Now(1), guard));
    assert!(idle.take(&mut queue, Verdict::Now(1), guard));
}

#[test]
fn a_change_wakes_the_head_and_its_successor_where_they_would_look_up_too_late() {
    let now = Instant::now();
    let soon = paced(now + SECOND);
    for (before, after, woken) in [
        (BUSY, BUSY, [0; 5]),
        (BUSY, soon, [1, 1, 0, 0, 0]),
        (soon, soon, [0; 5]),
        (soon, paced(now + 2 * SECOND), [0; 5]),
        (soon, paced(now + SECOND / 2), [1, 1, 0, 0, 0]),
        (soon, Verdict::Now(1), [1, 1, 0, 0, 0]),
    ] {
        let (mut queue, waiters) = waiting::<5>(before, now);
        for times in [woken, [0; 5]] {
            serve(&mut queue, after, now);
            let counts = waiters.each_ref().map(|waiter| waiter.woken.take());
            assert_eq!(counts, times, "{before:?}, {after:?}");
        }
    }
}

/// Head and successor stood in a task that did not poll them, and everybody behind them slept for ever.
#[test]
fn neighbours_that_do_not_act_stop_nobody_for_good() {
    let mut now = Instant::now();
    let (mut queue, waiters) = waiting::<20>(paced(now + SECOND), now);
    let mut last = Waiter::join(&mut queue);
    let mut turn = last.ask(&mut queue, paced(now + SECOND), now);
    let start = now;
    while let Turn::Later(timer) = turn {
        let next = timer.expect("it looks up by itself");
        assert!(next > now, "it does not spin");
        now = next;
        turn = last.ask(&mut queue, Verdict::Now(1), now);
    }
    let idle = waiters.len() as u32;
    assert!(now - start <= SECOND + idle * STEP * 5 / 4 + LATE + (idle + 1) * PARKED);
    assert!(last.take(&mut queue, Verdict::Now(1), now));
}

#[derive(Clone, Debug)]
enum Event {
    Join,
    Ask(prop::sample::Index),
    Take(prop::sample::Index),
    Leave(prop::sample::Index),
    Forget(prop::sample::Index),
    Advance(u64),
    Change(u32),
}

fn event() -> impl Strategy<Value = Event> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        3 => Just(Event::Join),
        6 => index().prop_map(Event::Ask),
        2 => index().prop_map(Event::Take),
        2 => index().prop_map(Event::Leave),
        1 => index().prop_map(Event::Forget),
        2 => (0_u64..80).prop_map(Event::Advance),
        3 => (0_u32..4).prop_map(Event::Change),
    ]
}

proptest! {
    /// Whatever happened before, and whoever was forgotten: once there are tokens, and all act who are woken or whose
    /// timer fires, nobody is left asleep.
    #[test]
    fn nobody_is_forgotten(events in prop::collection::vec(event(), 1..200)) {
        let (mut now, mut verdict) = (Instant::now(), BUSY);
        let mut queue = Queue::default();
        let mut waiters: Vec<Waiter> = Vec::new();
        for event in events {
            let any = !waiters.is_empty();
            match event {
                Event::Join => waiters.push(Waiter::join(&mut queue)),
                Event::Ask(i) if any => {
                    let i = i.index(waiters.len());
                    waiters[i].ask(&mut queue, verdict, now);
                }
                Event::Take(i) if any => {
                    let i = i.index(waiters.len());
                    if waiters[i].take(&mut queue, verdict, now) {
                        waiters.swap_remove(i);
                        verdict = match verdict {
                            Verdict::Now(tokens) if tokens > 1 => Verdict::Now(tokens - 1),
                            _ => BUSY,
                        };
                    } else {
                        waiters[i].acts = true;
                    }
                    serve(&mut queue, verdict, now);
                }
                Event::Leave(i) if any => {
                    waiters.swap_remove(i.index(waiters.len())).leave(&mut queue);
                    serve(&mut queue, verdict, now);
                }
                Event::Forget(i) if any => {
                    waiters.swap_remove(i.index(waiters.len()));
                }
                Event::Advance(millis) => now += Duration::from_millis(millis),
                Event::Change(tokens) => {
                    verdict = if tokens > 0 { Verdict::Now(tokens) } else { BUSY };
                    serve(&mut queue, verdict, now);
                }
                _ => {}
            }
        }
        serve(&mut queue, Verdict::Now(1), now);
        let start = now;
        while !waiters.is_empty() {
            let Some(i) = waiters.iter().position(|waiter| waiter.is_awake(now)) else {
                let next = waiters.iter().filter_map(|waiter| waiter.timer).min();
                now = next.expect("all asleep, and the token is there");
                continue;
            };
            if waiters[i].ask(&mut queue, Verdict::Now(1), now) == Turn::Now {
                let mut waiter = waiters.swap_remove(i);
                prop_assert!(waiter.take(&mut queue, Verdict::Now(1), now));
                serve(&mut queue, Verdict::Now(1), now);
            }
        }
        prop_assert!(now - start < 60 * SECOND, "{:?}", now - start);
    }
}
