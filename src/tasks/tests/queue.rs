//! First come, first served, and nobody is stopped by one who does not come.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Wake, Waker},
    time::Duration,
};

use proptest::prelude::*;
use tokio::time::Instant;

use crate::tasks::queue::{Outlook, Queue, Turn, Wakers};

#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Woken {
    fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

struct Line {
    queue: Queue,
    outlook: Outlook,
}

impl Line {
    fn new() -> Self {
        let outlook = Outlook {
            now: Instant::now(),
            free: 0,
            next_end: None,
        };
        Self {
            queue: Queue::default(),
            outlook,
        }
    }

    fn join(&mut self) -> (u64, Arc<Woken>) {
        let (ticket, woken) = (self.queue.join(), Arc::<Woken>::default());
        self.ask(ticket, &woken);
        (ticket, woken)
    }

    fn ask(&mut self, ticket: u64, woken: &Arc<Woken>) -> Turn {
        let waker = Waker::from(woken.clone());
        let mut wakers = Wakers::default();
        let turn = self.queue.ask(ticket, &waker, self.outlook, &mut wakers);
        if turn == Turn::Now {
            self.outlook.free -= 1;
        }
        self.queue.serve(self.outlook, &mut wakers);
        wakers.wake();
        turn
    }

    fn serve(&mut self, free: usize) {
        self.outlook.free = free;
        let mut wakers = Wakers::default();
        self.queue.serve(self.outlook, &mut wakers);
        wakers.wake();
    }

    fn leave(&mut self, ticket: u64) {
        let mut wakers = Wakers::default();
        self.queue.leave(ticket, &mut wakers);
        self.queue.serve(self.outlook, &mut wakers);
        wakers.wake();
    }

    fn wait(&mut self, millis: u64) {
        self.outlook.now += Duration::from_millis(millis);
    }
}

#[test]
fn a_slot_wakes_the_first_and_its_successor_and_nobody_else() {
    let mut line = Line::new();
    let places: Vec<_> = (0..10).map(|_| line.join()).collect();
    line.serve(1);
    let woken: Vec<_> = places.iter().map(|(_, woken)| woken.count()).collect();
    assert_eq!(woken, [1, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_ne!(line.ask(places[1].0, &places[1].1), Turn::Now);
    assert_eq!(line.ask(places[0].0, &places[0].1), Turn::Now);
}

#[test]
fn a_newcomer_passes_nobody() {
    let mut line = Line::new();
    let (first, woken) = line.join();
    line.serve(1);
    let (newcomer, newcomers) = line.join();
    assert_ne!(line.ask(newcomer, &newcomers), Turn::Now);
    assert_eq!(line.ask(first, &woken), Turn::Now);
}

#[test]
fn the_slot_of_one_who_leaves_goes_to_the_next() {
    let mut line = Line::new();
    let (first, _) = line.join();
    let (second, woken) = line.join();
    line.serve(1);
    let before = woken.count();
    assert_ne!(line.ask(second, &woken), Turn::Now);
    line.leave(first);
    assert!(woken.count() > before);
    assert_eq!(line.ask(second, &woken), Turn::Now);
}

#[test]
fn one_who_does_not_come_is_passed_and_is_first_when_it_does() {
    let mut line = Line::new();
    let (parked, parkeds) = line.join();
    let (second, woken) = line.join();
    line.serve(1);
    let Turn::Later(until) = line.ask(second, &woken) else {
        panic!("it passed one who may come yet");
    };
    assert_eq!(until - line.outlook.now, Duration::from_millis(50));
    line.wait(50);
    assert_eq!(line.ask(second, &woken), Turn::Now);
    let (third, thirds) = line.join();
    assert_ne!(line.ask(parked, &parkeds), Turn::Now);
    line.serve(1);
    assert_ne!(line.ask(third, &thirds), Turn::Now);
    assert_eq!(line.ask(parked, &parkeds), Turn::Now);
}

/// One call-up after the other kept all who were called up from being passed.
#[test]
fn one_who_does_not_come_is_passed_however_often_others_are_called_up() {
    let mut line = Line::new();
    let (_, _) = line.join();
    line.serve(1);
    for _ in 0..20 {
        let (ticket, woken) = line.join();
        line.serve(2);
        assert_eq!(line.ask(ticket, &woken), Turn::Now);
        line.wait(10);
    }
    let (ticket, woken) = line.join();
    line.serve(1);
    assert_eq!(line.ask(ticket, &woken), Turn::Now);
}

/// All before it stand in one task that polls none of them.
#[test]
fn the_last_of_many_who_do_not_come_looks_up_by_itself() {
    let mut line = Line::new();
    for _ in 0..20 {
        line.join();
    }
    let (last, woken) = line.join();
    line.serve(1);
    let start = line.outlook.now;
    loop {
        match line.ask(last, &woken) {
            Turn::Now => break,
            Turn::Later(until) => {
                assert!(until > line.outlook.now);
                line.outlook.now = until;
            }
        }
    }
    assert!(line.outlook.now - start < Duration::from_secs(4));
}

#[test]
fn the_first_looks_up_when_the_next_slot_ends_by_its_time_limit() {
    let mut line = Line::new();
    let (first, firsts) = line.join();
    let (second, seconds) = line.join();
    let end = line.outlook.now + Duration::from_millis(300);
    line.outlook.next_end = Some(end);
    line.serve(0);
    assert_eq!(firsts.count(), 1, "its timer was set for later");
    assert_eq!(line.ask(first, &firsts), Turn::Later(end));
    let before = seconds.count();
    line.leave(first);
    assert_eq!(seconds.count(), before + 1);
    assert_eq!(line.ask(second, &seconds), Turn::Later(end));
}

proptest! {
    #[test]
    fn slots_go_in_the_order_of_tickets_to_those_who_come_when_woken(
        ops in prop::collection::vec(0_u8..5, 1..200),
    ) {
        let mut line = Line::new();
        let (mut waiting, mut last) = (Vec::new(), None);
        for op in ops {
            match op {
                0 | 1 => {
                    let (ticket, woken) = (line.queue.join(), Arc::<Woken>::default());
                    if line.ask(ticket, &woken) == Turn::Now {
                        prop_assert!(waiting.is_empty(), "it passed somebody");
                        last = Some(ticket);
                    } else {
                        waiting.push((ticket, woken));
                    }
                }
                2 | 3 => line.serve(line.outlook.free + 1),
                _ => {
                    if let Some((ticket, _)) = waiting.pop() {
                        line.leave(ticket);
                    }
                }
            }
            // Everybody who was woken asks, the last first.
            let mut served = Vec::new();
            for (ticket, woken) in waiting.iter().rev() {
                if woken.0.swap(0, Ordering::Relaxed) > 0 && line.ask(*ticket, woken) == Turn::Now {
                    served.push(*ticket);
                }
            }
            waiting.retain(|(ticket, _)| !served.contains(ticket));
            last = served.into_iter().max().or(last);
            if let (Some((first, _)), Some(last)) = (waiting.first(), last) {
                prop_assert!(last < *first, "{last} was served before {first}");
            }
            prop_assert!(waiting.is_empty() || line.outlook.free == 0, "a slot is left");
            line.wait(1);
        }
        prop_assert_eq!(line.queue.waiting(), waiting.len());
    }
}
