//! Shared slots in a Redis: one script, which does as the ledger in memory does.

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use redis::{FromRedisValue, Value};

use super::{
    fleet::micros,
    store::{
        Binding, Release, Renewal, Renewed, SharedSlots, SlotName, SlotRequest, SlotsTaken,
        Standing, StoreError, StoreFuture,
    },
};
use crate::redis::{RedisStore, Script, UnexpectedReply};

static SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("redis.lua")));

impl RedisStore {
    async fn slots<T: FromRedisValue>(&self, args: &[String]) -> Result<T, StoreError> {
        let names = [
            "slots",
            "slots:line",
            "slots:waits",
            "slots:there",
            "slots:ended",
            "slots:open",
        ];
        let keys = names.map(|name| self.key(name));
        let reply: Value = self
            .run(&SCRIPT, &keys, args)
            .await
            .map_err(StoreError::new)?;
        T::from_redis_value(reply).map_err(|_| StoreError::new(UnexpectedReply(())))
    }
}

impl SharedSlots for RedisStore {
    fn take(&self, ask: SlotRequest) -> StoreFuture<'_, SlotsTaken> {
        Box::pin(async move {
            let args = [
                "take".to_owned(),
                ask.process.to_string(),
                ask.first.to_string(),
                ask.wanted.to_string(),
                ask.capacity.to_string(),
                micros(ask.keep).to_string(),
            ];
            let (granted, wait, taken, processes) = self.slots(&args).await?;
            Ok(SlotsTaken {
                granted,
                wait: Duration::from_micros(wait),
                standing: Standing { taken, processes },
            })
        })
    }

    fn renew(&self, renewal: Renewal) -> StoreFuture<'_, Renewed> {
        Box::pin(async move {
            let mut args = vec![
                "renew".to_owned(),
                renewal.process.to_string(),
                u8::from(renewal.waits).to_string(),
                u8::from(renewal.hold).to_string(),
            ];
            for (name, keep) in renewal.held {
                args.push(text(renewal.process, &name));
                args.push(micros(keep).to_string());
            }
            let (ended, taken, processes): (Vec<String>, u32, u32) = self.slots(&args).await?;
            Ok(Renewed {
                ended: ended.into_iter().map(Arc::from).collect(),
                standing: Standing { taken, processes },
            })
        })
    }

    fn bind(&self, binding: Binding) -> StoreFuture<'_, bool> {
        Box::pin(async move {
            let args = [
                "bind".to_owned(),
                binding.process.to_string(),
                binding.number.to_string(),
                binding.task.to_string(),
                micros(binding.keep).to_string(),
            ];
            let (runs, _, _): (u8, u32, u32) = self.slots(&args).await?;
            Ok(runs == 1)
        })
    }

    fn release(&self, release: Release) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            let mut args = vec![
                "release".to_owned(),
                release.process.to_string(),
                u8::from(release.leaves).to_string(),
                release.slots.len().to_string(),
            ];
            let slots = release.slots.iter();
            args.extend(slots.map(|name| text(release.process, name)));
            args.extend(release.ended.iter().map(ToString::to_string));
            let _: (u32, u32) = self.slots(&args).await?;
            Ok(())
        })
    }

    fn call_timeout(&self) -> Duration {
        self.timeout
    }
}

/// As it stands in the Redis.
fn text(process: u64, name: &SlotName) -> String {
    match name {
        SlotName::Reserved(number) => format!("r{process}.{number}"),
        SlotName::Task(task) => format!("t{task}"),
    }
}
