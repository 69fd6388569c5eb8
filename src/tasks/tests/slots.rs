//! What an end and news do to a slot, one by one.

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    idempotency_key::IdempotencyKey,
    tasks::slots::{End, Slots},
};

const HOUR: Duration = Duration::from_secs(3_600);
const SECOND: Duration = Duration::from_secs(1);

fn key() -> IdempotencyKey {
    IdempotencyKey::random()
}

/// Slots, one of which is taken by a request that ended so.
fn ended(end: End) -> (Slots, u64, Instant) {
    let (mut slots, now) = (Slots::new(10), Instant::now());
    let number = slots.take(key(), now);
    slots.end(number, end, now);
    (slots, number, now)
}

#[test]
fn a_refusal_frees_its_slot_and_nothing_else_does() {
    assert_eq!(ended(End::Refused).0.taken(), 0);
    for end in [End::Created, End::Unknown] {
        let (slots, ..) = ended(end);
        assert_eq!((slots.taken(), slots.unsettled()), (1, 1), "{end:?}");
    }
}

/// The answer that names it may have broken off: nobody was told that the slot had to be looked after.
#[test]
fn a_task_that_nobody_named_is_unsettled_until_it_is_bound_or_a_list_lacks_it() {
    let (mut slots, number, now) = ended(End::Created);
    assert_eq!(slots.unsettled(), 1);
    slots.bind(number, "task_1", now);
    assert_eq!((slots.taken(), slots.unsettled()), (1, 0));
    let (mut slots, _, now) = ended(End::Created);
    slots.listed([].into_iter(), now + SECOND, now + SECOND);
    assert_eq!((slots.taken(), slots.unsettled()), (0, 0));
}

#[test]
fn requests_with_one_key_have_one_slot_until_the_last_is_refused() {
    let (mut slots, now) = (Slots::new(10), Instant::now());
    let one = key();
    let number = slots.take(one.clone(), now);
    assert_eq!(slots.join(&one), Some(number));
    assert_eq!(slots.join(&key()), None);
    slots.end(number, End::Refused, now);
    assert_eq!(slots.taken(), 1);
    slots.end(number, End::Refused, now);
    assert_eq!(slots.taken(), 0);
    assert_eq!(slots.join(&one), None);
}

#[test]
fn a_refusal_says_nothing_of_an_earlier_request_with_the_same_key() {
    let (mut slots, now) = (Slots::new(10), Instant::now());
    let one = key();
    let number = slots.take(one.clone(), now);
    slots.end(number, End::Unknown, now);
    slots.join(&one);
    slots.end(number, End::Refused, now);
    assert_eq!((slots.taken(), slots.unsettled()), (1, 1));
}

#[test]
fn a_task_that_ended_before_its_answer_was_read_has_no_slot() {
    let (mut slots, number, now) = ended(End::Created);
    slots.finished("task_1");
    assert_eq!(slots.taken(), 1);
    slots.bind(number, "task_1", now);
    assert_eq!(slots.taken(), 0);
    slots.running("task_1", now);
    assert_eq!(slots.taken(), 0, "late news");
}

#[test]
fn a_task_that_was_seen_before_its_answer_was_read_has_one_slot() {
    let (mut slots, number, now) = ended(End::Created);
    slots.running("task_1", now);
    assert_eq!(slots.taken(), 2);
    slots.bind(number, "task_1", now);
    assert_eq!(slots.taken(), 1);
    slots.finished("task_1");
    assert_eq!(slots.taken(), 0);
}

#[test]
fn an_old_handle_changes_nothing() {
    let (mut slots, number, now) = ended(End::Created);
    slots.release(number);
    let other = slots.take(key(), now);
    slots.end(other, End::Created, now);
    slots.release(number);
    slots.bind(number, "task_1", now);
    slots.end(number, End::Refused, now);
    assert_eq!(slots.taken(), 1);
}

#[test]
fn a_list_settles_what_is_unclear() {
    let (mut slots, now) = (Slots::new(10), Instant::now());
    let unclear = |slots: &mut Slots| {
        let number = slots.take(key(), now);
        slots.end(number, End::Unknown, now);
    };
    unclear(&mut slots);
    unclear(&mut slots);
    slots.running("bound", now);
    slots.running("gone", now);
    let on_its_way = slots.take(key(), now);
    let asked = now + SECOND * 2;
    let late = slots.take(key(), asked);
    slots.end(late, End::Unknown, asked + SECOND);
    // One of the two unclear requests created `new`; the other none, or it has ended.
    slots.listed(["bound", "new"].into_iter(), asked, asked + SECOND);
    slots.check();
    assert_eq!(slots.taken(), 4, "bound, new, on its way, late");
    assert_eq!(
        slots.unsettled(),
        1,
        "it ended after the list was asked for"
    );
    slots.end(on_its_way, End::Refused, asked);
    slots.finished("new");
    assert_eq!(slots.taken(), 2);
}

/// A request was given up while it was on its way. Its slot was taken by another one, and both created a task.
#[test]
fn a_list_says_nothing_of_a_request_that_may_not_have_arrived_yet() {
    let (mut slots, _, now) = ended(End::Unknown);
    let asked = now + SECOND / 2;
    slots.listed([].into_iter(), asked, asked + SECOND);
    assert_eq!(slots.taken(), 1);
    let asked = now + SECOND * 2;
    slots.listed([].into_iter(), asked, asked);
    assert_eq!(slots.taken(), 0);
}

/// The list put a task whose answer was not read yet into the slot of another.
#[test]
fn a_list_that_took_one_slot_for_another_is_put_right_by_the_answer() {
    let (mut slots, now) = (Slots::new(10), Instant::now());
    let numbers = [key(), key()].map(|key| {
        let number = slots.take(key, now);
        slots.end(number, End::Created, now);
        number
    });
    slots.listed(["a", "b"].into_iter(), now + SECOND, now + SECOND);
    for (number, task) in numbers.into_iter().zip(["b", "a"]) {
        slots.bind(number, task, now + SECOND);
        slots.check();
        assert_eq!(slots.taken(), 2);
    }
    for (task, left) in [("a", 1), ("b", 0)] {
        slots.finished(task);
        assert_eq!(slots.taken(), left);
    }
}

/// The list's guess was believed: the other task was taken for ended, and lost its slot.
#[test]
fn a_slot_that_is_given_back_says_nothing_of_the_task_that_a_list_put_there() {
    let (mut slots, number, now) = ended(End::Created);
    slots.listed(["foreign"].into_iter(), now + SECOND, now + SECOND);
    slots.release(number);
    slots.running("foreign", now + SECOND);
    assert_eq!(slots.taken(), 1);
}

/// The list's guess lost its slot to the answer that named the slot's own task.
#[test]
fn a_task_that_a_list_put_into_a_slot_keeps_one_when_the_slots_own_is_known() {
    for own_has_ended in [false, true] {
        let (mut slots, number, now) = ended(End::Created);
        slots.listed(["foreign"].into_iter(), now + SECOND, now + SECOND);
        if own_has_ended {
            slots.finished("own");
        }
        slots.bind(number, "own", now + SECOND);
        slots.check();
        assert_eq!(slots.taken(), if own_has_ended { 1 } else { 2 });
        slots.finished("foreign");
        assert_eq!(slots.taken(), if own_has_ended { 0 } else { 1 });
    }
}

/// A request with the same key relied on a list's guess, and two tasks had one slot.
#[test]
fn a_key_is_forgotten_when_a_list_guesses_what_its_request_created() {
    let (mut slots, now) = (Slots::new(10), Instant::now());
    let one = key();
    let number = slots.take(one.clone(), now);
    slots.end(number, End::Unknown, now);
    let asked = now + SECOND * 2;
    slots.listed(["foreign"].into_iter(), asked, asked);
    assert_eq!(slots.join(&one), None);
}

#[test]
fn a_slot_ends_an_hour_after_the_last_news_and_not_while_a_request_is_on_its_way() {
    let (mut slots, number, start) = ended(End::Created);
    assert_eq!(slots.next_end(), Some(start + HOUR));
    slots.bind(number, "task_1", start + SECOND);
    slots.running("task_1", start + SECOND * 2);
    slots.expire(start + HOUR + SECOND);
    assert_eq!(slots.taken(), 1);
    slots.expire(start + HOUR + SECOND * 2);
    assert_eq!(slots.taken(), 0);
    slots.take(key(), start);
    slots.expire(start + HOUR * 100);
    assert_eq!((slots.taken(), slots.next_end()), (1, None));
}

#[test]
fn no_more_than_the_last_ten_thousand_ends_are_kept() {
    let (mut slots, now) = (Slots::new(10), Instant::now());
    for task in 0..10_001 {
        slots.finished(&task.to_string());
    }
    slots.running("1", now);
    assert_eq!(slots.taken(), 0);
    slots.running("0", now);
    assert_eq!(slots.taken(), 1);
}
