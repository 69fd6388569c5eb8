//! Layers that share their slots by a store in memory, in paused time.

use std::{
    convert::Infallible,
    num::NonZeroU32,
    sync::{Arc, Mutex, atomic::Ordering},
    time::Duration,
};

use http::{Request, Response};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};
use tower::{BoxError, Layer, ServiceExt, service_fn};

use super::{
    moody_store::{Mood, Store},
    service::create,
};
use crate::{
    PlotonTaskLimit, TaskSlot,
    tasks::{Binding, MemorySlots, NoTaskSlot, Outage, SharedSlots, SlotRequest, fleet::KEEP},
};

pub(super) const MILLISECOND: Duration = Duration::from_millis(1);
pub(super) const SECOND: Duration = Duration::from_secs(1);

pub(super) fn limit(capacity: u32, store: &(impl SharedSlots + Clone)) -> PlotonTaskLimit {
    let capacity = NonZeroU32::new(capacity).unwrap();
    PlotonTaskLimit::with_capacity(capacity).shared(store.clone())
}

/// Creates a task, and gives its slot.
async fn start(limit: &PlotonTaskLimit) -> Result<TaskSlot, BoxError> {
    let server = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(())));
    let response = limit.layer(server).oneshot(create()).await?;
    Ok(response.extensions().get().cloned().unwrap())
}

/// Whether one can be created in that time.
async fn starts(limit: &PlotonTaskLimit, within: Duration) -> bool {
    let started = timeout(within, start(limit)).await;
    started.is_ok_and(|started| started.is_ok())
}

#[tokio::test(start_paused = true)]
async fn all_together_run_as_many_tasks_as_the_capacity_allows() {
    let store = MemorySlots::new();
    let (a, b) = (limit(3, &store), limit(3, &store));
    let slot = start(&a).await.unwrap();
    start(&a).await.unwrap();
    start(&b).await.unwrap();
    assert!(!starts(&b, 20 * SECOND).await);
    assert!(!starts(&a, 20 * SECOND).await);

    slot.release();
    assert!(starts(&b, SECOND).await);
    assert!(!starts(&a, 20 * SECOND).await);
    let state = a.handle().snapshot().store.unwrap();
    assert_eq!((state.taken, state.processes), (3, 2));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_far_serves_whoever_waits_for_it() {
    for (timeout, serves) in [(500, true), (100, false), (0, false), (u64::MAX, true)] {
        let mut store = Store::new(1);
        store.is(Mood::Far);
        store.timeout = Duration::from_millis(timeout);
        let [a, b] = [(); 2].map(|()| limit(2, &store).on_outage(Outage::Wait));
        for limit in [&a, &b] {
            assert_eq!(starts(limit, SECOND).await, serves, "{timeout} ms");
        }
        assert!(!starts(&b, 20 * SECOND).await, "{timeout} ms");
        for limit in [&a, &b] {
            let state = limit.handle().snapshot().store.unwrap();
            assert_eq!(state.away_since.is_none(), serves, "{timeout} ms");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_sees_a_task_end_frees_its_slot_for_all() {
    let store = MemorySlots::new();
    let [a, b, c] = [(); 3].map(|()| limit(1, &store));
    start(&a).await.unwrap().bind("task_1");
    sleep(MILLISECOND).await;
    c.handle().running("task_1");
    b.handle().finished("task_1");
    assert!(starts(&b, SECOND).await);
    sleep(2 * SECOND).await;
    assert_eq!(a.handle().snapshot().running, 0);
    assert_eq!(c.handle().snapshot().running, 0);
    // Old news.
    a.handle().running("task_1");
    assert_eq!(a.handle().snapshot().running, 0);
}

#[tokio::test(start_paused = true)]
async fn a_task_that_ended_before_its_answer_came_takes_no_slot() {
    let store = MemorySlots::new();
    let (a, b) = (limit(1, &store), limit(1, &store));
    let slot = start(&a).await.unwrap();
    b.handle().finished("task_1");
    sleep(MILLISECOND).await;
    slot.bind("task_1");
    sleep(MILLISECOND).await;
    assert_eq!(a.handle().snapshot().running, 0);
    assert!(starts(&b, SECOND).await);
}

#[tokio::test(start_paused = true)]
async fn the_slot_of_a_process_that_is_gone_is_free_after_half_a_minute_but_not_its_tasks() {
    let store = MemorySlots::new();
    let mut gone = SlotRequest::default();
    (gone.process, gone.wanted, gone.capacity) = (7, 2, 2);
    gone.keep = KEEP;
    assert_eq!(store.take(gone).await.unwrap().granted, 2);
    let hour = Duration::from_secs(3_600);
    assert!(
        store
            .bind(Binding::new(7, 0, "task_1", hour))
            .await
            .unwrap()
    );

    let limit = limit(2, &store);
    assert!(!starts(&limit, 29 * SECOND).await);
    assert!(starts(&limit, 2 * SECOND).await);
    assert!(!starts(&limit, 3_000 * SECOND).await);
    limit.handle().finished("task_1");
    assert!(starts(&limit, SECOND).await);
}

#[tokio::test(start_paused = true)]
async fn a_slot_is_kept_while_its_request_is_on_its_way_and_when_nobody_knows_what_became_of_it() {
    let store = MemorySlots::new();
    let (a, b) = (limit(1, &store), limit(1, &store));
    let slow = a.layer(service_fn(async |_: Request<()>| {
        sleep(300 * SECOND).await;
        Err::<Response<()>, _>("connection reset")
    }));
    let call = tokio::spawn(slow.oneshot(create()));
    sleep(MILLISECOND).await;
    assert!(!starts(&b, 299 * SECOND).await);
    call.await.unwrap().unwrap_err();
    assert!(!starts(&b, 3_598 * SECOND).await);
    assert!(starts(&b, 8 * SECOND).await);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_lost_all_hears_of_it_before_anybody_takes_a_slot() {
    let store = MemorySlots::new();
    let (a, b) = (limit(3, &store), limit(3, &store));
    start(&a).await.unwrap().bind("task_1");
    start(&a).await.unwrap();
    sleep(MILLISECOND).await;
    for _ in 0..3 {
        store.clear();
        assert!(!starts(&b, 6 * SECOND).await);
    }
    assert!(starts(&b, 2 * SECOND).await);
    assert!(!starts(&b, 20 * SECOND).await);
    a.handle().finished("task_1");
    assert!(starts(&b, SECOND).await);
}

#[tokio::test(start_paused = true)]
async fn without_its_store_a_process_begins_what_the_policy_says() {
    for (outage, most) in [(Outage::Share, 5), (Outage::Wait, 0), (Outage::Local, 10)] {
        for mood in [Mood::Silent, Mood::Refusing] {
            let store = Store::new(0);
            let limits = [(); 2].map(|()| limit(10, &store).on_outage(outage));
            for limit in &limits {
                start(limit).await.unwrap().release();
            }
            sleep(SECOND).await;
            // They hear of each other.
            for limit in &limits {
                start(limit).await.unwrap().release();
            }
            store.is(mood);
            let mut started = 0;
            while starts(&limits[0], 20 * SECOND).await {
                started += 1;
            }
            assert_eq!(started, most, "{outage} {mood:?}");
            let state = limits[0].handle().snapshot().store.unwrap();
            assert!(state.away_since.is_some() && state.tried_at.is_some());
            assert!(limits[0].handle().store_error().is_some());

            store.is(Mood::Fine);
            sleep(12 * SECOND).await;
            let state = limits[0].handle().snapshot().store.unwrap();
            assert_eq!((state.away_since, state.taken), (None, most));
            assert!(limits[0].handle().store_error().is_none());
            // What was begun without it counts.
            let mut more = 0;
            while starts(&limits[1], 20 * SECOND).await {
                more += 1;
            }
            assert_eq!(most + more, 10, "{outage} {mood:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_process_that_never_reached_its_store_waits_and_nobody_longer_than_he_may() {
    for mood in [Mood::Silent, Mood::Refusing] {
        let store = Store::new(0);
        store.is(mood);
        let limit = limit(10, &store).max_wait(3 * SECOND);
        let begin = Instant::now();
        let error = start(&limit).await.unwrap_err();
        assert!(error.is::<NoTaskSlot>());
        // A timer is at most a millisecond late.
        assert!(Instant::now() - begin <= 3 * SECOND + MILLISECOND);
        store.is(Mood::Fine);
        // Others may have begun tasks, which the store hears of first.
        assert!(!starts(&limit.clone().max_wait(5 * SECOND), 5 * SECOND).await);
        assert!(starts(&limit, 3 * SECOND).await);
    }
}

/// A call that took too long is no reason to begin what others may begin too.
#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_for_less_than_a_second_is_waited_for() {
    let store = Store::new(0);
    let [a, b] = [(); 2].map(|()| limit(10, &store).on_outage(Outage::Local));
    for _ in 0..10 {
        start(&a).await.unwrap();
    }
    store.is(Mood::Silent);
    let call = tokio::spawn(async move { starts(&b, 20 * SECOND).await });
    sleep(SECOND / 2).await;
    store.is(Mood::Fine);
    assert!(!call.await.unwrap());
    assert_eq!(store.slots.standing().taken, 10);
}

#[test]
fn when_a_runtime_ends_the_next_goes_on() {
    let limit = limit(2, &MemorySlots::new());
    for _ in 0..2 {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_time().build().unwrap();
        assert!(runtime.block_on(starts(&limit, 30 * SECOND)));
    }
    assert_eq!(limit.handle().snapshot().running, 2);
}

#[tokio::test(start_paused = true)]
async fn within_a_process_it_stays_first_come_first_served() {
    let store = MemorySlots::new();
    let limit = limit(1, &store);
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut calls = JoinSet::new();
    for number in 0..5 {
        let (limit, order) = (limit.clone(), order.clone());
        calls.spawn(async move {
            let slot = start(&limit).await.unwrap();
            order.lock().unwrap().push(number);
            sleep(SECOND).await;
            slot.release();
        });
        sleep(MILLISECOND).await;
    }
    calls.join_all().await;
    assert_eq!(*order.lock().unwrap(), [0, 1, 2, 3, 4]);
}

/// Of ten slots that each keeps for 1 s, in 60 s.
#[tokio::test(start_paused = true)]
async fn processes_that_want_as_much_get_about_as_much() {
    let store = MemorySlots::new();
    let limits = [(); 4].map(|()| limit(10, &store));
    let mut counts = [0_u32; 4];
    let started = Arc::new(Mutex::new([0_u32; 4]));
    let end = Instant::now() + 60 * SECOND;
    let mut callers = JoinSet::new();
    for caller in 0..80 {
        let (limit, started) = (limits[caller % 4].clone(), started.clone());
        callers.spawn(async move {
            while let Ok(slot) = start(&limit).await {
                started.lock().unwrap()[caller % 4] += 1;
                sleep(SECOND).await;
                slot.release();
            }
        });
    }
    sleep_until(end).await;
    counts.copy_from_slice(&*started.lock().unwrap());
    let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
    assert!(most - least <= most / 10, "{counts:?}");
    // An asker comes a fifth of a second later, at worst.
    assert!(counts.iter().sum::<u32>() >= 480, "{counts:?}");
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_ask_seldom() {
    let store = Store::new(0);
    let first = limit(1, &store);
    start(&first).await.unwrap().bind("task_1");
    let mut callers = JoinSet::new();
    for _ in 0..200 {
        let limit = limit(1, &store);
        callers.spawn(async move { start(&limit).await });
    }
    sleep(10 * SECOND).await;
    let before = store.calls.load(Ordering::Relaxed);
    sleep(60 * SECOND).await;
    let calls = store.calls.load(Ordering::Relaxed) - before;
    // 5 a second of the first, fewer of the others, and one in about six seconds of the last.
    assert!((1_000..10_000).contains(&calls), "{calls}");
}

#[tokio::test(start_paused = true)]
async fn slots_that_nobody_uses_go_back_and_the_task_that_calls_ends_with_the_last_clone() {
    let store = Store::new(0);
    let a = limit(1, &store);
    // It gets a slot, and is gone before it is polled again.
    let mut call = tokio_test::task::spawn(start(&a));
    assert!(call.poll().is_pending());
    sleep(10 * MILLISECOND).await;
    drop(call);
    let b = limit(1, &store);
    let slot = tokio::time::timeout(SECOND, start(&b))
        .await
        .unwrap()
        .unwrap();
    slot.release();
    drop((a, b, slot));
    sleep(SECOND).await;
    assert_eq!(Arc::strong_count(&store.calls), 1);
    assert_eq!(store.slots.standing().taken, 0);
    assert_eq!(store.slots.standing().processes, 0);
}

/// One whose turn it is and that does nothing keeps a slot from other processes for no longer than from its own.
#[tokio::test(start_paused = true)]
async fn a_parked_request_keeps_no_slot_from_other_processes() {
    let store = MemorySlots::new();
    let (a, b) = (limit(1, &store), limit(1, &store));
    let mut parked = tokio_test::task::spawn(start(&a));
    assert!(parked.poll().is_pending());
    sleep(10 * MILLISECOND).await;
    let slot = timeout(SECOND, start(&b)).await.unwrap().unwrap();
    slot.release();
    assert!(timeout(SECOND, parked).await.is_ok());
}

/// As a program has it that is not async, and makes a runtime for each of its threads. No paused clock stands for that.
#[test]
fn a_runtime_that_nobody_drives_stops_nobody_on_another() {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_time().build().unwrap()
    };
    let limit = limit(2, &MemorySlots::new());
    let idle = runtime();
    idle.block_on(start(&limit)).unwrap();
    let started = runtime().block_on(async { starts(&limit, 10 * SECOND).await });
    assert!(started, "it waits for the first runtime");
    idle.block_on(async { assert!(!starts(&limit, SECOND).await) });
}
