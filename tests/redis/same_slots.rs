//! The script of task slots counts as the ledger in memory does: whatever is asked, both answer the same to the µs.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use proptest::prelude::*;
use redis::Connection;
use tokio::time::advance;
use tower_ploton::{
    redis::RedisStore,
    tasks::{
        Binding, MemorySlots, Release, Renewal, Renewed, SharedSlots, SlotName, SlotRequest,
        SlotsTaken,
    },
};

use super::{
    same_as_memory::{InPausedTime, runtime},
    scope,
    server::Redis,
};

/// Two stores that are asked the same.
struct Both {
    memory: MemorySlots,
    real: RedisStore,
}

impl Both {
    /// New ones, of which both know that nothing is taken.
    fn new(connection: &Arc<Mutex<Connection>>) -> Self {
        let mut real = connection.lock().unwrap();
        redis::cmd("FLUSHALL").exec(&mut real).unwrap();
        let mut opens = redis::cmd("SET");
        opens.arg("ploton:{test}:slots:open").arg(0);
        opens.exec(&mut real).unwrap();
        Self {
            memory: MemorySlots::new(),
            real: RedisStore::from_connection(InPausedTime::new(connection), scope()),
        }
    }

    fn forget(&self, connection: &Mutex<Connection>) {
        let mut real = connection.lock().unwrap();
        redis::cmd("FLUSHALL").exec(&mut real).unwrap();
        self.memory.clear();
    }

    async fn take(&self, process: u64, first: u64, wanted: u32, capacity: u32) -> SlotsTaken {
        let mut ask = SlotRequest::default();
        (ask.process, ask.first) = (process, first);
        (ask.wanted, ask.capacity) = (wanted, capacity);
        ask.keep = Duration::from_secs(30);
        let memory = self.memory.take(ask).await.unwrap();
        let real = self.real.take(ask).await.unwrap();
        assert_eq!(real, memory, "{ask:?}");
        real
    }

    async fn renew(
        &self,
        process: u64,
        held: Vec<(SlotName, Duration)>,
        waits: bool,
        hold: bool,
    ) -> Renewed {
        let mut renewal = Renewal::default();
        (renewal.process, renewal.held) = (process, held);
        (renewal.waits, renewal.hold) = (waits, hold);
        let memory = self.memory.renew(renewal.clone()).await.unwrap();
        let real = self.real.renew(renewal).await.unwrap();
        assert_eq!(real, memory);
        real
    }

    async fn bind(&self, process: u64, number: u64, task: &str) -> bool {
        let binding = Binding::new(process, number, task, Duration::from_secs(60));
        let memory = self.memory.bind(binding.clone()).await.unwrap();
        let real = self.real.bind(binding).await.unwrap();
        assert_eq!(real, memory);
        real
    }

    async fn release(&self, process: u64, slots: &[SlotName], ended: &[&str], leaves: bool) {
        let mut release = Release::default();
        (release.process, release.leaves) = (process, leaves);
        release.slots = slots.to_vec();
        release.ended = ended.iter().map(|task| (*task).into()).collect();
        self.memory.release(release.clone()).await.unwrap();
        self.real.release(release).await.unwrap();
    }
}

/// What is asked, each some time after what was before. Processes, slots and tasks are few, so that they meet.
#[derive(Clone, Debug)]
enum Call {
    Take(u64, u64, u32, u32),
    Renew(u64, Vec<(SlotName, Duration)>, bool, bool),
    Bind(u64, u64, String),
    Release(u64, Vec<SlotName>, Vec<String>, bool),
    Forget,
}

fn call() -> impl Strategy<Value = Call> {
    let process = || 0_u64..6;
    let task = || (0..8).prop_map(|task| format!("task_{task}"));
    let name = || {
        prop_oneof![
            (0_u64..12).prop_map(SlotName::Reserved),
            task().prop_map(|task| SlotName::Task(task.into())),
        ]
    };
    let keep = (0_u64..120_000_000).prop_map(Duration::from_micros);
    let held = prop::collection::vec((name(), keep), 0..6);
    let names = prop::collection::vec(name(), 0..6);
    let ended = prop::collection::vec(task(), 0..3);
    let rarely = || prop::bool::weighted(0.05);
    prop_oneof![
        30 => (process(), 0_u64..12, 0_u32..6, 1_u32..12).prop_map(|(p, f, w, c)| Call::Take(p, f, w, c)),
        10 => (process(), held, any::<bool>(), rarely()).prop_map(|(p, h, w, hold)| Call::Renew(p, h, w, hold)),
        5 => (process(), 0_u64..12, task()).prop_map(|(p, number, t)| Call::Bind(p, number, t)),
        10 => (process(), names, ended, rarely()).prop_map(|(p, n, e, l)| Call::Release(p, n, e, l)),
        1 => Just(Call::Forget),
    ]
}

async fn compare(connection: Arc<Mutex<Connection>>, calls: Vec<(u64, Call)>) {
    let both = Both::new(&connection);
    for (gap, call) in calls {
        advance(Duration::from_micros(gap)).await;
        match call {
            Call::Take(process, first, wanted, capacity) => {
                both.take(process, first, wanted, capacity).await;
            }
            Call::Renew(process, held, waits, hold) => {
                both.renew(process, held, waits, hold).await;
            }
            Call::Bind(process, number, task) => {
                both.bind(process, number, &task).await;
            }
            Call::Release(process, slots, ended, leaves) => {
                let ended: Vec<_> = ended.iter().map(String::as_str).collect();
                both.release(process, &slots, &ended, leaves).await;
            }
            Call::Forget => both.forget(&connection),
        }
    }
}

#[test]
fn whatever_is_asked_of_slots_both_answer_the_same() {
    let server = runtime(false).block_on(Redis::start());
    let connection = server.client().get_connection().unwrap();
    let connection = Arc::new(Mutex::new(connection));
    runtime(true).block_on(a_story(connection.clone()));
    let gap = prop_oneof![8 => 0_u64..300_000, 2 => 0..10_000_000_u64, 1 => 0..400_000_000_u64];
    let calls = prop::collection::vec((gap, call()), 1..100);
    proptest!(|(calls in calls)| {
        runtime(true).block_on(compare(connection.clone(), calls));
    });
}

async fn a_story(connection: Arc<Mutex<Connection>>) {
    let both = Both::new(&connection);
    let long = Duration::from_secs(60);
    assert_eq!(both.take(1, 0, 2, 4).await.granted, 2);
    assert_eq!(both.take(2, 0, 3, 4).await.granted, 2);
    for process in 3..6 {
        assert_eq!(both.take(process, 0, 2, 4).await.granted, 0);
    }
    assert!(both.bind(1, 0, "task_1").await);
    both.release(1, &[SlotName::Reserved(1)], &["task_1"], false)
        .await;
    assert!(!both.bind(1, 7, "task_1").await);
    // Two are free; the third in line has to leave them to those before it, the first of whom is process 2.
    assert_eq!(both.take(4, 2, 2, 4).await.granted, 0);
    assert_eq!(both.take(2, 3, 1, 4).await.granted, 1);
    assert_eq!(both.take(3, 2, 2, 4).await.granted, 1);
    let held = vec![
        (SlotName::Reserved(0), long),
        (SlotName::Task("task_1".into()), long),
        (SlotName::Task("task {2}\n".into()), long),
    ];
    let renewed = both.renew(2, held, false, false).await;
    assert_eq!(&*renewed.ended[0], "task_1");
    assert_eq!(renewed.ended.len(), 1);
    assert_eq!(renewed.standing.taken, 5);
    both.release(
        2,
        &[
            SlotName::Reserved(0),
            SlotName::Reserved(1),
            SlotName::Reserved(3),
        ],
        &[],
        true,
    )
    .await;
    both.release(3, &[SlotName::Reserved(2)], &["task {2}\n"], false)
        .await;
    // Four are free, and three in line: one each, and one more for the first.
    assert_eq!(both.take(5, 10, 9, 4).await.granted, 1);
    assert_eq!(both.take(4, 10, 9, 4).await.granted, 1);
    both.renew(3, Vec::new(), false, false).await;
    assert_eq!(both.take(4, 20, 9, 4).await.granted, 1);
    both.renew(5, vec![(SlotName::Reserved(10), long)], false, false)
        .await;
    assert_eq!(both.take(4, 30, 9, 4).await.granted, 1);
    both.take(4, 40, 0, 4).await;
    assert_eq!(both.take(6, 0, 1, 9).await.granted, 1);
}
