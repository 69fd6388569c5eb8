//! What becomes of a connection to a real server that dies, hangs, is demoted or wants a password.

use std::{
    error::Error,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use redis::RedisError;
use tokio::time::{Instant, sleep};
use tower_ploton::{
    limit::{Lease, Pause, SharedStore, StoreError, Unused},
    redis::{NoAnswer, NotConnected, RedisStore},
};

use super::{
    ask, scope,
    server::{Redis, free_port},
    store,
};

/// No server takes as long to come back; a test that hangs ends.
const PATIENCE: Duration = Duration::from_secs(60);

/// A call takes at most 100 ms, and what a busy machine adds to that.
const SOON: Duration = Duration::from_secs(2);

async fn lease(store: &RedisStore) -> Result<Lease, StoreError> {
    let start = Instant::now();
    let result = store.lease(ask(1, 1)).await;
    let took = Instant::now() - start;
    assert!(took < SOON, "{took:?}: {result:?}");
    result
}

/// Asks until it is answered.
async fn answered(store: &RedisStore) -> Lease {
    let start = Instant::now();
    loop {
        match lease(store).await {
            Ok(lease) => return lease,
            Err(error) if Instant::now() - start > PATIENCE => panic!("{:?}", error.source()),
            Err(_) => sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Asks until the error is one that `is`.
async fn fails(store: &RedisStore, is: impl Fn(&(dyn Error + 'static)) -> bool) {
    let start = Instant::now();
    loop {
        let result = lease(store).await;
        match &result {
            Err(error) if is(error.source().unwrap()) => return,
            _ => assert!(Instant::now() - start < PATIENCE, "{result:?}"),
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// Whether Redis refused with that code.
fn refused(code: &str) -> impl Fn(&(dyn Error + 'static)) -> bool {
    move |error| {
        error
            .downcast_ref::<RedisError>()
            .is_some_and(|error| error.code() == Some(code))
    }
}

/// A store that connects to the address that stands there now, and how often it did.
fn store_at(address: &Arc<Mutex<String>>) -> (RedisStore, Arc<AtomicU32>) {
    let connects = Arc::new(AtomicU32::new(0));
    let (address, count) = (address.clone(), connects.clone());
    let connect = move || {
        count.fetch_add(1, Ordering::Relaxed);
        let client = redis::Client::open(address.lock().unwrap().clone());
        async move { client?.get_multiplexed_async_connection().await }
    };
    (RedisStore::connect_with(connect, scope()), connects)
}

#[tokio::test]
async fn a_server_that_is_killed_and_started_again_is_found_again() {
    let mut redis = Redis::start().await;
    let store = store(&redis);
    let before = answered(&store).await;
    redis.kill();
    fails(&store, |error| error.is::<NotConnected>()).await;
    redis.restart().await;
    let mut after = answered(&store).await;
    assert_eq!(after.processes, 1, "it forgot all");
    assert!(after.now > before.now);
    after = answered(&store).await;
    assert!(after.seen.tat > before.seen.tat);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_tried_every_three_seconds_and_blocks_nobody() {
    let mut redis = Redis::start().await;
    redis.kill();
    let address = Arc::new(Mutex::new(redis.url()));
    let (store, connects) = store_at(&address);
    let start = Instant::now();
    while Instant::now() - start < Duration::from_secs(7) {
        lease(&store).await.unwrap_err();
        sleep(Duration::from_millis(20)).await;
    }
    let most = (Instant::now() - start).as_secs() / 3 + 1;
    let connects = connects.load(Ordering::Relaxed);
    assert!((2..=most).contains(&connects.into()), "{connects}");
}

#[tokio::test]
async fn a_server_that_hangs_blocks_nobody_and_serves_when_it_goes_on() {
    let redis = Redis::start().await;
    let store = store(&redis);
    answered(&store).await;
    redis.hang();
    let start = Instant::now();
    while Instant::now() - start < Duration::from_secs(5) {
        let error = lease(&store).await.unwrap_err();
        let source = error.source().unwrap();
        assert!(
            source.is::<NoAnswer>() || source.is::<NotConnected>(),
            "{source:?}"
        );
        store.pause(Pause::default()).await.unwrap_err();
        store.give_back(Unused::default()).await.unwrap_err();
    }
    redis.go_on();
    answered(&store).await;
}

#[tokio::test]
async fn a_demoted_server_is_left_for_the_promoted_one() {
    let (old, new) = (Redis::start().await, Redis::start().await);
    let address = Arc::new(Mutex::new(old.url()));
    let (store, connects) = store_at(&address);
    let before = answered(&store).await;
    new.follow(&old).await;
    old.follow(&new).await;
    new.run("REPLICAOF NO ONE").await;
    fails(&store, refused("READONLY")).await;
    // It is told so until the address is the new one's: that takes a while with DNS.
    sleep(Duration::from_secs(4)).await;
    fails(&store, refused("READONLY")).await;
    assert!(connects.load(Ordering::Relaxed) >= 2);
    *address.lock().unwrap() = new.url();
    let after = answered(&store).await;
    assert_eq!(after.processes, 1);
    assert!(after.seen.tat > before.seen.tat, "the replica knew");
}

#[tokio::test]
async fn a_replica_that_lost_its_master_is_left_when_it_is_promoted_elsewhere() {
    let mut master = Redis::start().await;
    let replica = Redis::with(&["--replica-serve-stale-data", "no"]).await;
    replica.follow(&master).await;
    let address = Arc::new(Mutex::new(replica.url()));
    let (store, connects) = store_at(&address);
    fails(&store, refused("READONLY")).await;
    master.kill();
    fails(&store, refused("MASTERDOWN")).await;
    let tried = connects.load(Ordering::Relaxed);
    replica.run("REPLICAOF NO ONE").await;
    answered(&store).await;
    sleep(Duration::from_secs(3)).await;
    answered(&store).await;
    assert!(connects.load(Ordering::Relaxed) > tried || tried > 1);
}

#[tokio::test]
async fn a_server_that_loads_its_data_serves_when_it_is_done() {
    // Each key takes it a while, so that it is seen to load.
    let slowly = [
        "--key-load-delay",
        "1000",
        "--loading-process-events-interval-bytes",
        "1024",
    ];
    let mut redis = Redis::with(&slowly).await;
    redis.run("CONFIG SET key-load-delay 0").await;
    redis.run("DEBUG POPULATE 10000").await;
    let store = store(&redis);
    let before = answered(&store).await;
    redis.run("SAVE").await;
    redis.kill();
    redis.restart().await;
    fails(&store, refused("LOADING")).await;
    let after = answered(&store).await;
    assert_eq!(after.processes, 1);
    assert!(after.seen.tat > before.seen.tat);
}

#[tokio::test]
async fn a_password_that_is_missing_or_wrong_is_told_of_until_it_is_right() {
    let redis = Redis::start().await;
    redis.run("CONFIG SET requirepass opensesame").await;
    let address = Arc::new(Mutex::new(redis.url()));
    let (store, _) = store_at(&address);
    let with = |password| redis.url().replace("://", &format!("://:{password}@"));
    let says = |words: &'static str| {
        move |error: &(dyn Error + 'static)| {
            let source = error.source().map(ToString::to_string);
            let text = format!("{error} {}", source.unwrap_or_default());
            assert!(!format!("{text} {error:?}").contains("sesame"), "{text}");
            text.contains(words)
        }
    };
    fails(&store, says("unauthenticated")).await;
    fails(&store, |error| {
        error.is::<NotConnected>() && says("unauthenticated")(error)
    })
    .await;
    *address.lock().unwrap() = with("closesesame");
    fails(&store, says("Password authentication failed")).await;
    *address.lock().unwrap() = with("opensesame");
    answered(&store).await;
    // It is changed while the connection lasts, and then that is cut.
    let (old, new) = (with("opensesame"), with("rabbitsesame"));
    let change = "CONFIG SET requirepass rabbitsesame";
    redis.try_run_at(&old, change).await.unwrap();
    redis
        .try_run_at(&new, "CLIENT KILL TYPE normal")
        .await
        .unwrap();
    fails(&store, says("Password authentication failed")).await;
    *address.lock().unwrap() = new;
    answered(&store).await;
}

/// Two nodes, each with half of the slots.
#[tokio::test]
async fn a_node_of_a_cluster_that_has_another_slot_is_left_for_the_right_one() {
    let bus = [free_port(), free_port()].map(|port| port.to_string());
    let node = async |bus| Redis::with(&["--cluster-enabled", "yes", "--cluster-port", bus]).await;
    let (wrong, right) = (node(&bus[0]).await, node(&bus[1]).await);
    let slot: u16 = wrong.answer("CLUSTER KEYSLOT ploton:{test}:tat").await;
    let (low, high) = ("0 8191", "8192 16383");
    let (with, without) = if slot < 8192 {
        (low, high)
    } else {
        (high, low)
    };
    right.run(&format!("CLUSTER ADDSLOTSRANGE {with}")).await;
    let address = Arc::new(Mutex::new(wrong.url()));
    let (store, _) = store_at(&address);
    fails(&store, refused("CLUSTERDOWN")).await;
    wrong.run(&format!("CLUSTER ADDSLOTSRANGE {without}")).await;
    let meet = format!("CLUSTER MEET 127.0.0.1 {} {}", right.port(), bus[1]);
    wrong.run(&meet).await;
    fails(&store, refused("MOVED")).await;
    *address.lock().unwrap() = right.url();
    answered(&store).await;
}
