//! The link in paused time, on connections that answer what a test says. Real servers are in `tests/redis`.

use std::{
    collections::VecDeque,
    error::Error as _,
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use redis::{Cmd, Pipeline, RedisError, RedisFuture, Value, aio::ConnectionLike};
use tokio::time::{Instant, sleep};
use tower::BoxError;

use super::{NoAnswer, NotConnected, RedisStore, Scope, Script};
use crate::{
    limit::{LeaseRequest, SharedStore},
    tasks::SharedSlots,
};

/// What a call is answered.
#[derive(Clone)]
enum Answer {
    Fine,
    Error(&'static str),
    Lost,
    Never,
}

use Answer::{Error, Fine, Lost, Never};

/// Answers in the order given, and then always fine. All its clones are one connection.
#[derive(Clone, Default)]
struct Fake {
    answers: Arc<Mutex<VecDeque<Answer>>>,
    commands: Arc<Mutex<Vec<String>>>,
}

impl Fake {
    fn answers(answers: &[Answer]) -> Self {
        Self {
            answers: Arc::new(Mutex::new(answers.to_vec().into())),
            ..Self::default()
        }
    }
}

impl ConnectionLike for Fake {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        let name = match command.args_iter().next() {
            Some(redis::Arg::Simple(name)) => String::from_utf8_lossy(name).into_owned(),
            _ => String::new(),
        };
        self.commands.lock().unwrap().push(name);
        let answer = self.answers.lock().unwrap().pop_front().unwrap_or(Fine);
        Box::pin(async move {
            match answer {
                Fine => Ok(Value::Okay),
                Error(code) => Err(server_error(code)),
                Lost => Err(io::Error::from(io::ErrorKind::BrokenPipe).into()),
                Never => std::future::pending().await,
            }
        })
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        _: &'a Pipeline,
        _: usize,
        _: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn get_db(&self) -> i64 {
        0
    }
}

/// As the parser makes it of the server's line.
fn server_error(line: &str) -> RedisError {
    let value = redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).unwrap();
    value.extract_error().unwrap_err()
}

/// A store that takes one connection after the other, and how many it took.
fn store(connections: Vec<Result<Fake, &'static str>>) -> (RedisStore, Arc<AtomicU32>) {
    let taken = Arc::new(AtomicU32::new(0));
    let count = taken.clone();
    let connections = Mutex::new(VecDeque::from(connections));
    let connect = move || {
        count.fetch_add(1, Ordering::Relaxed);
        let next = connections.lock().unwrap().pop_front();
        async move { next.unwrap_or(Err("none left")) }
    };
    (RedisStore::connect_with(connect, scope()), taken)
}

fn scope() -> Scope {
    Scope::parse("test").unwrap()
}

async fn run(store: &RedisStore) -> Result<Value, BoxError> {
    store.run(&Script::new("return 1"), &[], &[]).await
}

fn count(taken: &AtomicU32) -> u32 {
    taken.load(Ordering::Relaxed)
}

#[tokio::test(start_paused = true)]
async fn it_connects_when_it_is_first_used_and_then_no_more() {
    let (store, taken) = store(vec![Ok(Fake::default())]);
    sleep(Duration::from_secs(10)).await;
    assert_eq!(count(&taken), 0);
    for _ in 0..3 {
        run(&store).await.unwrap();
        sleep(Duration::from_secs(10)).await;
    }
    assert_eq!(count(&taken), 1);
}

#[tokio::test(start_paused = true)]
async fn a_script_that_the_server_does_not_know_is_sent_whole() {
    let fake = Fake::answers(&[Error("NOSCRIPT No matching script. Please use EVAL.")]);
    let (store, _) = store(vec![Ok(fake.clone())]);
    run(&store).await.unwrap();
    run(&store).await.unwrap();
    assert_eq!(
        *fake.commands.lock().unwrap(),
        ["EVALSHA", "EVAL", "EVALSHA"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_server_that_can_not_serve_is_left_for_another_connection() {
    for line in [
        "READONLY You can't write against a read only replica.",
        "ERR Error running script (call to f_1): @user_script:1: -READONLY You can't write against a read only replica.",
        "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
        "LOADING Redis is loading the dataset in memory",
        "NOAUTH Authentication required.",
        "ERR Protocol error: unauthenticated multibulk length",
        "MOVED 3999 127.0.0.1:6381",
        "CLUSTERDOWN Hash slot not served",
    ] {
        let (store, taken) = store(vec![Ok(Fake::answers(&[Error(line)])), Ok(Fake::default())]);
        run(&store).await.unwrap_err();
        sleep(Duration::from_secs(3)).await;
        run(&store).await.unwrap();
        sleep(Duration::from_millis(1)).await;
        assert_eq!(count(&taken), 2, "{line}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_that_no_other_connection_would_mend_leaves_it() {
    for line in [
        "NOPERM this user has no permissions to run the 'evalsha' command",
        "OOM command not allowed when used memory > 'maxmemory'.",
        "ERR something",
        "BUSY Redis is busy running a script.",
    ] {
        let (store, taken) = store(vec![Ok(Fake::answers(&[Error(line)]))]);
        run(&store).await.unwrap_err();
        sleep(Duration::from_secs(10)).await;
        run(&store).await.unwrap();
        assert_eq!(count(&taken), 1, "{line}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_connection_is_made_anew_at_most_every_three_seconds() {
    let lost = || Ok(Fake::answers(&[Lost]));
    let (store, taken) = store(vec![
        lost(),
        Err("refused"),
        Err("refused"),
        Ok(Fake::default()),
    ]);
    let start = Instant::now();
    let mut failures = 0;
    while let Err(error) = run(&store).await {
        failures += 1;
        let at = Instant::now() - start;
        let tries = u32::try_from(at.as_secs() / 3).unwrap() + 1;
        assert!(count(&taken) <= tries, "{} tries in {at:?}", count(&taken));
        if let Some(error) = error.downcast_ref::<NotConnected>() {
            assert!(error.next_try() <= Duration::from_secs(3));
        }
        sleep(Duration::from_millis(50)).await;
    }
    assert!(failures > 100);
    assert_eq!(count(&taken), 4);
    assert_eq!((Instant::now() - start).as_secs(), 9);
}

#[tokio::test(start_paused = true)]
async fn why_the_last_try_failed_is_told() {
    let (store, _) = store(vec![Err("no route")]);
    let error = run(&store).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "not connected to Redis; next try in 3.0 s"
    );
    assert_eq!(error.source().unwrap().to_string(), "no route");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_hangs_ends_after_a_tenth_of_a_second_and_another_connection_is_wanted() {
    let hung = Fake::answers(&[Never, Never, Never, Never]);
    let (store, taken) = store(vec![Ok(hung), Ok(Fake::default())]);
    let start = Instant::now();
    let error = run(&store).await.unwrap_err();
    let error = error.downcast::<NoAnswer>().unwrap();
    assert_eq!(error.after(), Duration::from_millis(100));
    assert_eq!(Instant::now() - start, Duration::from_millis(100));
    // It may only be slow, so it is used on until there is another one.
    run(&store).await.unwrap_err();
    assert_eq!(count(&taken), 1);
    sleep(Duration::from_secs(3)).await;
    run(&store).await.unwrap_err();
    run(&store).await.unwrap();
    assert_eq!(count(&taken), 2);
}

#[tokio::test(start_paused = true)]
async fn a_call_takes_as_long_as_it_may_within_bounds() {
    for (asked, expected) in [(500, 500), (0, 10), (u64::MAX, 750)] {
        let (store, _) = store(vec![Ok(Fake::answers(&[Never]))]);
        let store = store.timeout(Duration::from_millis(asked));
        let expected = Duration::from_millis(expected);
        let start = Instant::now();
        let error = run(&store).await.unwrap_err();
        assert_eq!(error.downcast::<NoAnswer>().unwrap().after(), expected);
        assert_eq!(Instant::now() - start, expected);
        assert_eq!(SharedStore::call_timeout(&store), expected);
        assert_eq!(SharedSlots::call_timeout(&Arc::new(store)), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_unanswered_raises_the_same_doubt() {
    let (store, taken) = store(vec![Ok(Fake::answers(&[Never])), Ok(Fake::default())]);
    let short = Duration::from_millis(20);
    tokio::time::timeout(short, run(&store)).await.unwrap_err();
    sleep(Duration::from_secs(3)).await;
    run(&store).await.unwrap();
    sleep(Duration::from_millis(1)).await;
    assert_eq!(count(&taken), 2);
}

#[tokio::test(start_paused = true)]
async fn a_connect_that_hangs_or_panics_blocks_nobody_and_is_tried_again() {
    let tries = Arc::new(AtomicU32::new(0));
    let number = tries.clone();
    let connect = move || {
        let number = number.fetch_add(1, Ordering::Relaxed);
        async move {
            match number {
                0 => std::future::pending().await,
                1 => panic!("the user's code may"),
                _ => Ok::<_, BoxError>(Fake::default()),
            }
        }
    };
    let store = RedisStore::connect_with(connect, scope());
    let start = Instant::now();
    run(&store)
        .await
        .unwrap_err()
        .downcast::<NoAnswer>()
        .unwrap();
    assert_eq!(Instant::now() - start, Duration::from_millis(100));
    sleep(Duration::from_secs(3)).await;
    run(&store)
        .await
        .unwrap_err()
        .downcast::<NotConnected>()
        .unwrap();
    sleep(Duration::from_secs(3)).await;
    run(&store).await.unwrap();
    assert_eq!(count(&tries), 3);
}

#[tokio::test(start_paused = true)]
async fn many_who_wait_for_the_first_connection_make_one() {
    let tries = Arc::new(AtomicU32::new(0));
    let number = tries.clone();
    let connect = move || {
        number.fetch_add(1, Ordering::Relaxed);
        async {
            sleep(Duration::from_millis(50)).await;
            Ok::<_, BoxError>(Fake::default())
        }
    };
    let store = RedisStore::connect_with(connect, scope());
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let store = store.clone();
        calls.spawn(async move { run(&store).await.is_ok() });
    }
    assert!(calls.join_all().await.into_iter().all(|fine| fine));
    assert_eq!(count(&tries), 1);
}

/// It was left for good when it failed once.
#[tokio::test(start_paused = true)]
async fn a_given_connection_that_mends_itself_is_used_again() {
    for lost in [Lost, Never, Error("READONLY You can't write.")] {
        let given = Fake::answers(&[Fine, lost.clone(), lost]);
        let store = RedisStore::from_connection(given, scope());
        run(&store).await.unwrap();
        for _ in 0..2 {
            run(&store).await.unwrap_err();
        }
        run(&store).await.unwrap();
    }
}

/// A task that can't be started any more is dropped at once: its end waited for the lock that its start held.
#[test]
fn a_call_on_a_runtime_that_ended_does_not_hang() {
    let (store, _) = store(vec![Ok(Fake::default())]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let handle = runtime.handle().clone();
    drop(runtime);
    let (done, is_done) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let _told = Told(done);
        let _entered = handle.enter();
        let mut call = Box::pin(run(&store));
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        let _ = call.as_mut().poll(&mut cx);
    });
    // However it ends: tokio's timers panic there.
    is_done.recv_timeout(Duration::from_secs(60)).unwrap();
}

struct Told(std::sync::mpsc::Sender<()>);

impl Drop for Told {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

/// A late answer counted as a loss, and stopped the whole fleet for a second.
#[tokio::test(start_paused = true)]
async fn an_answer_that_is_late_is_no_loss() {
    for (answer, is_late) in [(Never, true), (Lost, false), (Error("OOM"), false)] {
        let (store, _) = store(vec![Ok(Fake::answers(&[answer]))]);
        let error = store.lease(LeaseRequest::default()).await.unwrap_err();
        assert_eq!(error.is_late(), is_late, "{:?}", error.source());
    }
}

/// A try that stays on its way kept all others from beginning.
#[test]
fn a_try_on_a_runtime_that_nobody_drives_stops_no_other() {
    let runtime = |paused| {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_time().start_paused(paused).build().unwrap()
    };
    let (store, taken) = store(vec![Ok(Fake::default())]);
    let idle = runtime(false);
    idle.block_on(async {
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(Box::pin(run(&store)).as_mut().poll(&mut cx).is_pending());
    });
    let served = runtime(true).block_on(async {
        for _ in 0..100 {
            if run(&store).await.is_ok() {
                return true;
            }
        }
        false
    });
    assert!(served, "{} tries", count(&taken));
}
