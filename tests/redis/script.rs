//! What the script leaves on a real server, and what it makes of what others leave there.

use std::time::Duration;

use tower_ploton::{
    ApiKey,
    limit::{Lease, LeaseRequest, Pause, SharedStore, Unused},
    redis::{RedisStore, scope_of},
};

use super::{STEP, ask, patient_store as store, patiently, scope, server::Redis};

const NUMBERS: &str = "ploton:{test}:tat";
const PROCESSES: &str = "ploton:{test}:processes";

/// The server's clock, in µs.
async fn clock(redis: &Redis) -> u64 {
    let [seconds, micros]: [u64; 2] = redis.answer("TIME").await;
    seconds * 1_000_000 + micros
}

fn pause(lasts: Duration) -> Pause {
    let asked = ask(0, 0);
    let mut pause = Pause::default();
    pause.lasts = lasts;
    (pause.interval, pause.max_wait, pause.keep) = (asked.interval, asked.max_wait, asked.keep);
    pause
}

/// A lease of one who was told what `told` says.
async fn lease_after(store: &RedisStore, told: &Lease) -> Lease {
    let mut asked = ask(1, 1);
    asked.seen = told.seen;
    store.lease(asked).await.unwrap()
}

/// The same, of tokens so far apart that none is due before the test is over.
fn far_apart(process: u64, wanted: u32) -> LeaseRequest {
    let mut asked = ask(process, wanted);
    (asked.interval, asked.max_wait) = (FAR, 100 * FAR);
    asked
}

const FAR: Duration = Duration::from_secs(6);
const FAR_MICROS: u64 = 6_000_000;

#[tokio::test]
async fn two_processes_reserve_one_after_the_other_by_the_servers_clock() {
    let redis = Redis::start().await;
    let (one, other) = (store(&redis), store(&redis));
    let before = clock(&redis).await;
    let first = one.lease(far_apart(1, 5)).await.unwrap();
    let second = other.lease(far_apart(2, 2)).await.unwrap();
    let after = clock(&redis).await;
    // The first token is free, and nothing else is: it may have forgotten what others were given.
    assert_eq!((first.granted, first.wait), (5, Duration::ZERO));
    assert!(before <= first.now.0 && first.now <= second.now && second.now.0 <= after);
    assert_eq!(first.seen.tat.0, first.now.0 + 5 * FAR_MICROS);
    assert_eq!((second.granted, second.processes), (2, 2));
    assert_eq!(second.seen.tat.0, first.seen.tat.0 + 2 * FAR_MICROS);
}

#[tokio::test]
async fn a_tail_is_given_back_and_a_process_leaves() {
    let redis = Redis::start().await;
    let store = store(&redis);
    let first = store.lease(far_apart(1, 5)).await.unwrap();
    let second = store.lease(far_apart(2, 2)).await.unwrap();
    let mut unused = Unused::default();
    (unused.process, unused.tokens, unused.interval) = (1, 3, FAR);
    unused.tat = first.seen.tat; // not the last any more
    store.give_back(unused).await.unwrap();
    (unused.process, unused.tokens, unused.tat) = (2, 1, second.seen.tat);
    unused.leaves = true;
    store.give_back(unused).await.unwrap();
    let third = store.lease(far_apart(1, 1)).await.unwrap();
    assert_eq!((third.granted, third.processes), (1, 1));
    assert_eq!(third.seen, second.seen, "one given back, one taken");
}

#[tokio::test]
async fn every_key_ends_by_itself_and_none_holds_the_api_key() {
    let redis = Redis::start().await;
    let secret = "4f9d0c2b7a6e1583";
    let key = ApiKey::parse(&format!("pk_live_{secret}")).unwrap();
    let store = RedisStore::from_connection(patiently(redis.client()), scope_of(&key));
    let tag = format!("{{{}}}", scope_of(&key));

    let lease = store.lease(ask(1, 30)).await.unwrap();
    store.pause(pause(Duration::from_secs(5))).await.unwrap();
    let mut unused = Unused::default();
    (unused.tokens, unused.interval, unused.tat) = (1, STEP, lease.seen.tat);
    store.give_back(unused).await.unwrap();
    store.lease(ask(2, 1)).await.unwrap();

    let mut keys: Vec<String> = redis.answer("KEYS *").await;
    keys.sort();
    assert_eq!(
        keys,
        [
            format!("ploton:{tag}:processes"),
            format!("ploton:{tag}:tat")
        ]
    );
    for key in &keys {
        let left: i64 = redis.answer(&format!("PTTL {key}")).await;
        assert!((30_000..=120_000).contains(&left), "{key}: {left}");
    }
    let members: Vec<String> = redis
        .answer(&format!("ZRANGE {} 0 -1 WITHSCORES", keys[0]))
        .await;
    let numbers: String = redis.answer(&format!("GET {}", keys[1])).await;
    for text in keys.iter().chain(&members).chain([&numbers]) {
        assert!(!text.contains(secret), "{text}");
    }
    // Somebody's command took the time to live away.
    redis.run(&format!("PERSIST {}", keys[0])).await;
    redis.run(&format!("PERSIST {}", keys[1])).await;
    store.lease(ask(1, 1)).await.unwrap();
    for key in &keys {
        let left: i64 = redis.answer(&format!("PTTL {key}")).await;
        assert!(left > 0, "{key}: {left}");
    }
}

#[tokio::test]
async fn a_spoiled_value_counts_as_lost() {
    let redis = Redis::start().await;
    let store = store(&redis);
    for (key, spoil) in [
        (NUMBERS, "SET ploton:{test}:tat nonsense"),
        (NUMBERS, "SET ploton:{test}:tat nan"),
        (NUMBERS, "SET ploton:{test}:tat 99999999999999999999999"),
        (NUMBERS, "LPUSH ploton:{test}:tat 1"),
        (NUMBERS, "HSET ploton:{test}:tat a 1"),
        (PROCESSES, "SET ploton:{test}:processes x"),
        (PROCESSES, "LPUSH ploton:{test}:processes 1"),
    ] {
        redis.run("FLUSHALL").await;
        let before = store.lease(ask(1, 1)).await.unwrap();
        redis.run(&format!("DEL {key}")).await;
        redis.run(spoil).await;
        let mut unused = Unused::default();
        unused.leaves = true;
        store.give_back(unused).await.unwrap();
        let after = lease_after(&store, &before).await;
        assert_eq!(after.processes, 1, "{spoil}");
        // What was reserved is not known any more, but for when it began at the latest.
        let ahead = after.seen.tat.0 - after.now.0;
        let lost = 1_000_000 + 60_000;
        let expected = if key == NUMBERS {
            lost..=lost
        } else {
            0..=2 * 60_000
        };
        assert!(expected.contains(&ahead), "{spoil}: {ahead}");
    }
    // Numbers that could be right, of a clock that is far ahead.
    let numbers = ["4000000000000000"; 5].join(" ");
    let mut connection = redis.connection().await;
    let mut spoil = redis::cmd("SET");
    spoil.arg(NUMBERS).arg(numbers);
    spoil.exec_async(&mut connection).await.unwrap();
    let after = store.lease(ask(1, 1)).await.unwrap();
    let longest = after.now.0 + 7_200_000_000;
    assert!(after.seen.paused_until.0 <= longest, "{after:?}");
}

#[tokio::test]
async fn a_script_that_was_flushed_is_sent_again() {
    let redis = Redis::start().await;
    let store = store(&redis);
    let first = store.lease(far_apart(1, 1)).await.unwrap();
    redis.run("SCRIPT FLUSH").await;
    let second = store.lease(far_apart(1, 1)).await.unwrap();
    assert_eq!(second.seen.tat.0, first.seen.tat.0 + FAR_MICROS);
    redis.run("SCRIPT FLUSH").await;
    store.pause(pause(Duration::from_secs(1))).await.unwrap();
    redis.run("SCRIPT FLUSH").await;
    store.give_back(Unused::default()).await.unwrap();
}

#[tokio::test]
async fn what_was_flushed_is_known_again_from_the_first_who_calls() {
    let redis = Redis::start().await;
    let store = store(&redis);
    store.pause(pause(Duration::from_secs(12))).await.unwrap();
    let paused = store.lease(ask(1, 1)).await.unwrap();
    assert_eq!(paused.granted, 0);
    assert!(paused.wait > Duration::from_secs(9), "{paused:?}");
    redis.run("FLUSHALL").await;
    let after = lease_after(&store, &paused).await;
    assert_eq!((after.granted, after.seen), (0, paused.seen));
    let other = store.lease(ask(2, 1)).await.unwrap();
    assert_eq!((other.granted, other.seen), (0, paused.seen));
}

#[tokio::test]
async fn a_user_with_few_rights_will_do() {
    let redis = Redis::start().await;
    let rights = "+eval +evalsha +time +type +get +set +del +pttl +pexpire +zadd +zcard +zrem +zremrangebyscore";
    redis
        .run(&format!("ACL SETUSER worker on >few ~ploton:* {rights}"))
        .await;
    let client = redis::Client::open(redis.url().replace("://", "://worker:few@")).unwrap();
    let store = RedisStore::from_connection(patiently(client), scope());
    redis.run("LPUSH ploton:{test}:tat spoiled").await;
    redis.run("LPUSH ploton:{test}:processes spoiled").await;
    let lease = store.lease(ask(1, 1)).await.unwrap();
    store.pause(pause(Duration::from_secs(1))).await.unwrap();
    let mut unused = Unused::default();
    (unused.process, unused.tokens, unused.leaves) = (1, 1, true);
    (unused.interval, unused.tat) = (STEP, lease.seen.tat);
    store.give_back(unused).await.unwrap();
}
