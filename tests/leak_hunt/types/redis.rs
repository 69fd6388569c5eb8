//! A store whose scope is a key's, and what goes wrong with it.

use std::{future, time::Duration};

use redis::{Cmd, Pipeline, RedisFuture, Value, aio::ConnectionLike};
use tower::BoxError;
use tower_ploton::{
    limit::{LeaseRequest, SharedStore},
    redis::{NoAnswer, NotConnected, RedisStore, Scope, UnexpectedReply, scope_of},
};

use super::Shown;
use crate::{capture::note_error, key, needles::KEY};

/// Answers with a key, or with nothing.
#[derive(Clone)]
struct Answers(Option<&'static str>);

impl ConnectionLike for Answers {
    fn req_packed_command<'a>(&'a mut self, _: &'a Cmd) -> RedisFuture<'a, Value> {
        let answer = self.0.map(|text| Value::SimpleString(text.to_owned()));
        Box::pin(async {
            match answer {
                Some(value) => Ok(value),
                None => future::pending().await,
            }
        })
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        _: &'a Pipeline,
        _: usize,
        _: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        Box::pin(future::pending())
    }

    fn get_db(&self) -> i64 {
        0
    }
}

pub(super) async fn show_all(shown: &mut Shown) {
    shown.show(&scope_of(&key()));
    let refused = Scope::parse(KEY).unwrap_err();
    note_error(&refused);
    shown.show(&refused);

    let connects = || async { Ok::<_, BoxError>(Answers(Some(KEY))) };
    let store = RedisStore::connect_with(connects, scope_of(&key()));
    error::<UnexpectedReply>(shown, &store).await;
    shown.show(&store);
    let silent = RedisStore::from_connection(Answers(None), scope_of(&key()));
    error::<NoAnswer>(shown, &silent).await;
    let fails = || async { Err::<Answers, _>("no such host") };
    let fails = RedisStore::connect_with(fails, scope_of(&key()));
    error::<NotConnected>(shown, &fails).await;
}

/// Asks the store, and shows why it gave no answer.
async fn error<E: std::error::Error + 'static>(shown: &mut Shown, store: &RedisStore) {
    let mut ask = LeaseRequest::default();
    (ask.wanted, ask.interval) = (1, Duration::from_millis(60));
    let error = store.lease(ask).await.unwrap_err();
    note_error(&error);
    let source = std::error::Error::source(&error).unwrap();
    shown.show(source.downcast_ref::<E>().unwrap());
}
