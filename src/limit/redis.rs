//! A shared store in a Redis: one script, which does as the ledger in memory does.

use std::{sync::LazyLock, time::Duration};

use redis::{FromRedisValue, RedisError, Value};
use tower::BoxError;

use super::{
    fleet::{interval, micros, millis},
    store::{
        Lease, LeaseRequest, Pause, Seen, SharedStore, StoreError, StoreFuture, StoreTime, Turn,
        Unused,
    },
};
use crate::redis::{NoAnswer, RedisStore, Script, UnexpectedReply};

static SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("redis.lua")));

impl RedisStore {
    async fn rate(&self, args: &[String]) -> Result<Value, BoxError> {
        let keys = [self.key("tat"), self.key("processes")];
        self.run(&SCRIPT, &keys, args).await
    }
}

impl SharedStore for RedisStore {
    fn lease(&self, ask: LeaseRequest) -> StoreFuture<'_, Lease> {
        Box::pin(async move {
            let (at, put_off) = match ask.turn {
                Some(turn) => (turn.at.0.to_string(), turn.put_off),
                None => ("-1".to_owned(), 0),
            };
            let seen = ask.window.unwrap_or_default();
            let args = [
                "lease".to_owned(),
                interval(ask.interval).to_string(),
                micros(ask.max_wait).to_string(),
                micros(ask.keep).to_string(),
                ask.seen.tat.0.to_string(),
                ask.seen.paused_until.0.to_string(),
                ask.process.to_string(),
                ask.wanted.to_string(),
                micros(ask.hold).to_string(),
                at,
                put_off.to_string(),
                u8::from(ask.doubts).to_string(),
                // 0 where nothing was seen.
                millis(seen.reset).to_string(),
                millis(seen.length).to_string(),
                seen.remaining.to_string(),
                seen.sent.0.to_string(),
                micros(seen.ends).to_string(),
                u8::from(seen.proved).to_string(),
            ];
            let reply = self.rate(&args).await.map_err(failed)?;
            lease(reply).ok_or_else(|| StoreError::new(UnexpectedReply(())))
        })
    }

    fn pause(&self, pause: Pause) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            let args = [
                "pause".to_owned(),
                interval(pause.interval).to_string(),
                micros(pause.max_wait).to_string(),
                micros(pause.keep).to_string(),
                pause.seen.tat.0.to_string(),
                pause.seen.paused_until.0.to_string(),
                micros(pause.lasts).to_string(),
            ];
            self.rate(&args).await.map_err(failed)?;
            Ok(())
        })
    }

    fn give_back(&self, unused: Unused) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            let args = [
                "give back".to_owned(),
                unused.process.to_string(),
                u8::from(unused.leaves).to_string(),
                unused.tokens.to_string(),
                interval(unused.interval).to_string(),
                unused.tat.0.to_string(),
            ];
            self.rate(&args).await.map_err(failed)?;
            Ok(())
        })
    }

    fn call_timeout(&self) -> Duration {
        self.timeout
    }
}

fn failed(error: BoxError) -> StoreError {
    let timed_out = |error: &RedisError| error.is_timeout();
    if error.is::<NoAnswer>() || error.downcast_ref().is_some_and(timed_out) {
        StoreError::late(error)
    } else {
        StoreError::new(error)
    }
}

fn lease(reply: Value) -> Option<Lease> {
    let numbers = Vec::<i64>::from_redis_value(reply).ok()?;
    let [
        granted,
        wait,
        at,
        put_off,
        now,
        tat,
        paused_until,
        processes,
        at_once,
        windows,
    ] = *numbers.as_slice()
    else {
        return None;
    };
    let time = |number| u64::try_from(number).ok().map(StoreTime);
    let turn = match time(at) {
        Some(at) => Some(Turn {
            at,
            put_off: u64::try_from(put_off).ok()?,
        }),
        None => None,
    };
    Some(Lease {
        granted: u32::try_from(granted).ok()?,
        wait: Duration::from_micros(u64::try_from(wait).ok()?),
        turn,
        now: time(now)?,
        seen: Seen {
            tat: time(tat)?,
            paused_until: time(paused_until)?,
        },
        processes: u32::try_from(processes).ok()?,
        at_once: at_once == 1,
        windows: windows == 1,
    })
}
