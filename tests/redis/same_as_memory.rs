//! The script counts as the ledger in memory does: whatever is asked, both answer the same to the µs.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use proptest::prelude::*;
use redis::{Arg, Cmd, Connection, Pipeline, RedisFuture, Value, aio::ConnectionLike};
use tokio::{
    runtime::{self, Runtime},
    time::{Instant, advance},
};
use tower_ploton::{
    limit::{Lease, MemoryStore, Pause, Seen, SharedStore, StoreTime, Turn, Unused, WindowSeen},
    redis::RedisStore,
};

use super::{ask, scope, server::Redis};

/// Where the script reads the server's clock, which here is the paused one.
const CLOCK: &str = "redis.call('TIME')";

/// A connection that hands the script the time of the paused clock. All else is done by the real server.
#[derive(Clone)]
pub(super) struct InPausedTime {
    connection: Arc<Mutex<Connection>>,
    start: Instant,
}

impl InPausedTime {
    /// The paused clock begins now.
    pub(super) fn new(connection: &Arc<Mutex<Connection>>) -> Self {
        Self {
            connection: connection.clone(),
            start: Instant::now(),
        }
    }
}

impl ConnectionLike for InPausedTime {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        let mut words: Vec<_> = command
            .args_iter()
            .map(|word| match word {
                Arg::Simple(word) => word.to_vec(),
                _ => panic!("a cursor"),
            })
            .collect();
        if words[0] == b"EVALSHA" {
            let line = b"-NOSCRIPT here every script is sent whole\r\n";
            let error = redis::parse_redis_value(line).unwrap().extract_error();
            return Box::pin(async { error });
        }
        let script = String::from_utf8(words[1].clone()).unwrap();
        assert_eq!(script.matches(CLOCK).count(), 1);
        words[1] = script
            .replace(
                CLOCK,
                "{ table.remove(ARGV, #ARGV - 1), table.remove(ARGV) }",
            )
            .into();
        // As the store in memory: it begins with 1.
        let now = (Instant::now() - self.start).as_micros() + 1;
        words.push((now / 1_000_000).to_string().into());
        words.push((now % 1_000_000).to_string().into());
        let mut command = redis::cmd("EVAL");
        command.arg(&words[1..]);
        let answer = command.query(&mut *self.connection.lock().unwrap());
        Box::pin(async { answer })
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        _: &'a Pipeline,
        _: usize,
        _: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        panic!("a pipeline")
    }

    fn get_db(&self) -> i64 {
        0
    }
}

/// Two stores that are asked the same, from the same instant on.
struct Both {
    memory: MemoryStore,
    real: RedisStore,
}

impl Both {
    fn new(connection: &Arc<Mutex<Connection>>) -> Self {
        redis::cmd("FLUSHALL")
            .exec(&mut connection.lock().unwrap())
            .unwrap();
        Self {
            memory: MemoryStore::new(),
            real: RedisStore::from_connection(InPausedTime::new(connection), scope()),
        }
    }
}

/// What is asked, each some time after what was before. Times in µs.
#[derive(Clone, Debug)]
enum Call {
    Ask {
        process: u64,
        wanted: u32,
        hold: u64,
        /// Whether it tells what it was told.
        tells: bool,
        /// Whether it comes for its turn.
        comes: bool,
        /// What it says of the server's window.
        window: Option<Window>,
        doubts: bool,
        /// Whether it has half the plan.
        slow: bool,
    },
    /// As one that was told nonsense asks.
    AskWith {
        tat: u64,
        paused: u64,
        turn: u64,
        put_off: u64,
    },
    Pause(u64),
    GiveBack {
        process: u64,
        tokens: u32,
        leaves: bool,
    },
    /// The stores lose all they know, and their clocks begin again.
    Forget,
}

/// What the server said: times in ms.
#[derive(Clone, Copy, Debug)]
struct Window {
    /// By how much its Reset is after what the clock shows.
    reset: i64,
    remaining: u32,
    sent: u64,
    /// `None` where the window tells.
    ends: Option<u64>,
    proved: bool,
}

const SECOND: u64 = 1_000_000;

/// Most are of the windows of one server, which begin with the full minutes; all are, if `calm`.
fn window(calm: bool) -> impl Strategy<Value = Window> {
    let seldom = u32::from(!calm);
    let reset = prop_oneof![
        4 => Just(0_i64),
        1 => -1_000..=1_000_i64,
        2 * seldom => -200_000_i64..1_i64 << 52,
    ];
    let remaining = prop_oneof![
        4 => Just(1_500_u32),
        4 * seldom => 0..2_000_u32,
        seldom => any::<u32>(),
    ];
    let sent = prop_oneof![6 => 0_u64..300, 1 => 0..60_000_u64, seldom => any::<u64>()];
    let ends = prop_oneof![6 => Just(None), seldom => any::<u64>().prop_map(Some)];
    let proved = prop::bool::weighted(0.7);
    (reset, remaining, sent, ends, proved).prop_map(|(reset, remaining, sent, ends, proved)| {
        Window {
            reset,
            remaining,
            sent,
            ends,
            proved,
        }
    })
}

impl Window {
    /// As it is told by a process when the clock shows `now`, in ms.
    fn seen(self, now: u64) -> WindowSeen {
        let end = now / 60_000 * 60_000 + 60_000;
        let mut seen = WindowSeen::default();
        seen.reset = Duration::from_millis(end.saturating_add_signed(self.reset));
        seen.length = Duration::from_secs(60);
        seen.remaining = self.remaining;
        // Where that is before the first instant, it is far ahead: neither may be believed.
        seen.sent = StoreTime(now.wrapping_sub(self.sent).saturating_mul(1_000));
        seen.ends = Duration::from_millis(self.ends.unwrap_or(end - now));
        seen.proved = self.proved;
        seen
    }
}

/// If `calm`, nothing makes an end of the windows that a process proved but what others say of them.
fn call(calm: bool) -> impl Strategy<Value = Call> {
    let seldom = u32::from(!calm);
    let hold = prop_oneof![20 => Just(0), seldom => 0..3 * SECOND];
    let doubts = prop::bool::weighted(if calm { 0.0 } else { 0.01 });
    let wanted = prop_oneof![4 => 0_u32..30, 1 => 0..3_000_u32];
    let ask = (0_u64..30, wanted, hold, any::<bool>(), any::<bool>());
    let slow = prop::bool::weighted(0.1);
    let ask = (ask, prop::option::of(window(calm)), doubts, slow);
    let ask = ask.prop_map(move |(ask, window, doubts, slow)| {
        let (process, wanted, hold, tells, comes) = ask;
        Call::Ask {
            process,
            wanted,
            hold,
            tells,
            comes,
            window: window.filter(|_| !slow || !calm),
            doubts,
            slow,
        }
    });
    let time = || prop_oneof![0..10 * SECOND, 0..20_000 * SECOND, 0..1_u64 << 53];
    let ask_with = (time(), time(), time(), time());
    let ask_with = ask_with.prop_map(|(tat, paused, turn, put_off)| Call::AskWith {
        tat,
        paused,
        turn,
        put_off,
    });
    let give_back = (0_u64..30, 0_u32..9, any::<bool>());
    let give_back = give_back.prop_map(|(process, tokens, leaves)| Call::GiveBack {
        process,
        tokens,
        leaves,
    });
    prop_oneof![
        60 => ask,
        2 * seldom => ask_with,
        2 * seldom => (0..5 * SECOND).prop_map(Call::Pause),
        1 + 5 * seldom => give_back,
        seldom => Just(Call::Forget),
    ]
}

fn calls() -> impl Strategy<Value = Vec<(u64, Call)>> {
    any::<bool>().prop_flat_map(|calm| {
        let gap = prop_oneof![8 => 0_u64..50_000, 2 => 0..3 * SECOND, 1 => 0..60 * SECOND];
        prop::collection::vec((gap, call(calm)), 1..150)
    })
}

/// Between two tokens, and how far ahead they are reserved.
fn settings() -> impl Strategy<Value = (Duration, Duration)> {
    let interval = prop_oneof![Just(60_000), 1..1_000_u64, 1..600 * SECOND];
    let ahead = prop_oneof![Just(SECOND), 0..5 * SECOND];
    (interval, ahead).prop_map(|(interval, ahead)| {
        (
            Duration::from_micros(interval),
            Duration::from_micros(ahead),
        )
    })
}

async fn compare(
    connection: Arc<Mutex<Connection>>,
    at_once: &AtomicU32,
    (interval, max_wait): (Duration, Duration),
    calls: Vec<(u64, Call)>,
) -> Result<(), TestCaseError> {
    let start = Instant::now();
    let mut both = Both::new(&connection);
    let mut leases = BTreeMap::<u64, Lease>::new();
    let mut seen = Seen::default();
    for (gap, call) in calls {
        advance(Duration::from_micros(gap)).await;
        let mut asked = ask(77, 3);
        (asked.interval, asked.max_wait) = (interval, max_wait);
        match call {
            Call::Ask {
                process,
                wanted,
                hold,
                tells,
                comes,
                window,
                doubts,
                slow,
            } => {
                let shown = (Instant::now() - start).as_millis();
                let shown = u64::try_from(shown).unwrap();
                asked.window = window.map(|window| window.seen(shown));
                asked.doubts = doubts;
                asked.interval = if slow { 2 * interval } else { interval };
                asked.process = process;
                asked.wanted = wanted;
                asked.hold = Duration::from_micros(hold);
                if tells {
                    asked.seen = seen;
                }
                if comes {
                    asked.turn = leases.get(&process).and_then(|lease| lease.turn);
                }
            }
            Call::AskWith {
                tat,
                paused,
                turn: at,
                put_off,
            } => {
                asked.seen.tat = StoreTime(tat);
                asked.seen.paused_until = StoreTime(paused);
                let mut turn = Turn::default();
                (turn.at, turn.put_off) = (StoreTime(at), put_off);
                asked.turn = Some(turn);
            }
            Call::Pause(lasts) => {
                let mut pause = Pause::default();
                pause.lasts = Duration::from_micros(lasts);
                (pause.interval, pause.max_wait) = (interval, max_wait);
                pause.keep = asked.keep;
                pause.seen = seen;
                both.memory.pause(pause).await.unwrap();
                both.real.pause(pause).await.unwrap();
                continue;
            }
            Call::GiveBack {
                process,
                tokens,
                leaves,
            } => {
                let lease = leases.get(&process).copied().unwrap_or_default();
                let mut unused = Unused::default();
                unused.process = process;
                unused.tokens = tokens.min(lease.granted);
                unused.interval = interval;
                unused.tat = lease.seen.tat;
                unused.leaves = leaves;
                both.memory.give_back(unused).await.unwrap();
                both.real.give_back(unused).await.unwrap();
                continue;
            }
            Call::Forget => {
                both = Both::new(&connection);
                continue;
            }
        }
        let expected = both.memory.lease(asked).await.unwrap();
        let lease = both.real.lease(asked).await.unwrap();
        prop_assert_eq!(lease, expected, "{:?}", asked);
        at_once.fetch_add(lease.at_once.into(), Ordering::Relaxed);
        seen = seen.max(lease.seen);
        leases.insert(asked.process, lease);
    }
    Ok(())
}

#[test]
fn whatever_is_asked_both_answer_the_same() {
    let server = runtime(false).block_on(Redis::start());
    let connection = server.client().get_connection().unwrap();
    let connection = Arc::new(Mutex::new(connection));
    let config = ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let at_once = AtomicU32::new(0);
    proptest!(config, |(settings in settings(), calls in calls())| {
        runtime(true).block_on(compare(connection.clone(), &at_once, settings, calls))?;
    });
    let at_once = at_once.into_inner();
    assert!(at_once > 100, "only {at_once} leases of a window");
}

pub(super) fn runtime(is_paused: bool) -> Runtime {
    let mut builder = runtime::Builder::new_current_thread();
    builder
        .enable_all()
        .start_paused(is_paused)
        .build()
        .unwrap()
}
