//! A source is asked once, however many wait, and what it does never stops anybody for good.

use std::{
    collections::HashSet,
    error::Error,
    sync::{Arc, Mutex},
    time::Duration,
};

use http::{Request, Response, StatusCode, header::AUTHORIZATION};
use tokio::{
    sync::{mpsc, oneshot},
    task::{JoinHandle, yield_now},
    time::{Instant, advance, sleep},
};
use tower::{BoxError, ServiceExt, service_fn};

use super::super::*;
use crate::key::{ApiKey, KeyKind};

/// What a source is to answer.
type Answer = oneshot::Sender<Result<FreshKey, BoxError>>;

/// A layer whose source is played by the test.
pub(super) struct Played {
    pub(super) auth: PlotonAuth,
    pub(super) questions: mpsc::UnboundedReceiver<Answer>,
    pub(super) api: Api,
}

/// A server that answers after a millisecond, with a 401 to keys that it refuses.
#[derive(Clone, Default)]
pub(super) struct Api {
    refused: Arc<Mutex<HashSet<String>>>,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Played {
    pub(super) fn new() -> Self {
        let (ask, questions) = mpsc::unbounded_channel();
        let auth = PlotonAuth::from_source(move || {
            let (answer, told) = oneshot::channel();
            ask.send(answer).unwrap();
            async { told.await.unwrap() }
        });
        Self {
            auth,
            questions,
            api: Api::default(),
        }
    }

    /// One that has `fresh` in force.
    pub(super) async fn with(fresh: FreshKey) -> Self {
        let mut played = Self::new();
        let first = played.get();
        played.answer(Ok(fresh)).await;
        assert_eq!(first.await.unwrap().unwrap().status(), StatusCode::OK);
        played
    }

    /// A request that makes its way only where it is polled.
    pub(super) fn call(
        &self,
    ) -> impl Future<Output = Result<Response<()>, BoxError>> + Send + use<> {
        let api = self.api.clone();
        let service = self.auth.layer(service_fn(move |request| {
            let api = api.clone();
            async move { Ok::<_, BoxError>(api.answer(&request).await) }
        }));
        let request = Request::get("https://api.ploton.ai/v1/tasks").body(());
        service.oneshot(request.unwrap())
    }

    pub(super) fn get(&self) -> JoinHandle<Result<Response<()>, BoxError>> {
        tokio::spawn(self.call())
    }

    /// Sends `count` requests at once.
    pub(super) fn get_many(&self, count: usize) -> Vec<JoinHandle<Result<Response<()>, BoxError>>> {
        (0..count).map(|_| self.get()).collect()
    }

    pub(super) async fn question(&mut self) -> Answer {
        let question = tokio::time::timeout(secs(60), self.questions.recv());
        question.await.expect("nobody asks").unwrap()
    }

    pub(super) async fn answer(&mut self, answer: Result<FreshKey, BoxError>) {
        self.question().await.send(answer).unwrap();
    }

    /// Lets everybody do what they can, and finds that nobody asks.
    pub(super) async fn is_not_asked(&mut self) {
        settle().await;
        assert!(self.questions.try_recv().is_err());
    }

    pub(super) fn last_key(&self) -> String {
        self.api.seen.lock().unwrap().last().unwrap().clone()
    }
}

impl Api {
    async fn answer(&self, request: &Request<()>) -> Response<()> {
        let key = request.headers()[AUTHORIZATION].to_str().unwrap();
        let name = key.strip_prefix("Bearer pk_test_").unwrap().to_owned();
        self.seen.lock().unwrap().push(name.clone());
        sleep(Duration::from_millis(1)).await;
        let mut response = Response::new(());
        if self.refused.lock().unwrap().contains(&name) {
            *response.status_mut() = StatusCode::UNAUTHORIZED;
        }
        response
    }

    pub(super) fn refuse(&self, name: &str) {
        self.refused.lock().unwrap().insert(name.to_owned());
    }
}

pub(super) fn key(name: &str) -> FreshKey {
    ApiKey::parse(&format!("pk_test_{name}")).unwrap().into()
}

pub(super) const fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

pub(super) async fn settle() {
    for _ in 0..200 {
        yield_now().await;
    }
}

pub(super) fn is_renewed(response: &Response<()>) -> bool {
    response.extensions().get::<KeyRenewed>().is_some()
}

pub(super) fn unavailable(error: &BoxError) -> &KeyUnavailable {
    error.downcast_ref().unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_first_requests_wait_for_one_answer() {
    let mut played = Played::new();
    played.is_not_asked().await;
    let calls = played.get_many(64);
    let answer = played.question().await;
    let later = played.get_many(8);
    played.is_not_asked().await;
    assert!(played.api.seen.lock().unwrap().is_empty());
    answer.send(Ok(key("a"))).unwrap();
    for call in calls.into_iter().chain(later) {
        assert_eq!(call.await.unwrap().unwrap().status(), StatusCode::OK);
    }
    played.is_not_asked().await;
}

#[tokio::test(start_paused = true)]
async fn sixty_four_401s_at_once_are_one_question() {
    let mut played = Played::with(key("a")).await;
    played.api.refuse("a");
    let calls = played.get_many(64);
    let answer = played.question().await;
    played.is_not_asked().await;
    assert!(calls.iter().all(|call| !call.is_finished()));
    answer.send(Ok(key("b"))).unwrap();
    for call in calls {
        let response = call.await.unwrap().unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        assert!(is_renewed(&response));
    }
    let next = played.get().await.unwrap().unwrap();
    assert_eq!(next.status(), StatusCode::OK);
    assert!(!is_renewed(&next));
    assert_eq!(played.last_key(), "b");
    played.is_not_asked().await;
}

/// Requests that were on their way when the key was replaced.
#[tokio::test(start_paused = true)]
async fn a_401_for_a_key_that_was_replaced_asks_nobody() {
    let mut played = Played::with(key("a")).await;
    played.api.refuse("a");
    let call = played.get();
    settle().await;
    let handle = played.auth.key_handle();
    handle.set(ApiKey::parse("pk_test_b").unwrap()).unwrap();
    assert!(is_renewed(&call.await.unwrap().unwrap()));
    played.is_not_asked().await;
}

#[tokio::test(start_paused = true)]
async fn a_source_that_knows_no_better_is_asked_once_a_second() {
    let mut played = Played::with(key("a")).await;
    played.api.refuse("a");
    let calls = played.get_many(64);
    played.answer(Ok(key("a"))).await;
    for call in calls.into_iter().chain(played.get_many(8)) {
        let response = call.await.unwrap().unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        assert!(!is_renewed(&response));
    }
    played.is_not_asked().await;
    advance(secs(1)).await;
    let call = played.get();
    played.answer(Ok(key("b"))).await;
    assert!(is_renewed(&call.await.unwrap().unwrap()));
}

#[tokio::test(start_paused = true)]
async fn a_401_goes_back_with_the_failure_of_the_source() {
    let mut played = Played::with(key("a")).await;
    played.api.refuse("a");
    let calls = played.get_many(8);
    played.answer(Err("sealed".into())).await;
    for call in calls.into_iter().chain(played.get_many(8)) {
        let response = call.await.unwrap().unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        let failure = response.extensions().get::<KeyUnavailable>().unwrap();
        assert_eq!(failure.source().unwrap().to_string(), "sealed");
    }
    played.is_not_asked().await;
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_told_to_all_that_waited_and_the_next_asks_again_after_a_second() {
    let mut played = Played::new();
    let calls = played.get_many(64);
    played.answer(Err("sealed".into())).await;
    let failed = Instant::now();
    for call in calls {
        let error = call.await.unwrap().unwrap_err();
        assert_eq!(unavailable(&error).source().unwrap().to_string(), "sealed");
        assert_eq!(
            error.to_string(),
            "no API key to be had: the key source failed"
        );
    }
    let calls = played.get_many(64);
    played.is_not_asked().await;
    played.answer(Ok(key("a"))).await;
    assert_eq!(Instant::now() - failed, secs(1));
    for call in calls {
        assert!(call.await.unwrap().is_ok());
    }
    assert!(played.auth.key_handle().last_failure().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_source_that_hangs_is_given_up_and_asked_again() {
    let mut played = Played::new();
    played.auth = played.auth.source_timeout(secs(3));
    let start = Instant::now();
    let calls = played.get_many(64);
    let answer = played.question().await;
    for call in calls {
        let error = call.await.unwrap().unwrap_err();
        assert!(unavailable(&error).is_timeout());
        assert_eq!(
            error.to_string(),
            "no API key to be had: the key source took longer than 3 s"
        );
    }
    assert_eq!(Instant::now() - start, secs(3));
    assert!(answer.is_closed());
    let call = played.get();
    played.answer(Ok(key("a"))).await;
    assert!(call.await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn the_next_in_line_asks_where_a_question_is_dropped_half_way() {
    let mut played = Played::new();
    let first = played.get();
    let answer = played.question().await;
    let rest = played.get_many(8);
    played.is_not_asked().await;
    first.abort();
    let again = played.question().await;
    assert!(answer.is_closed());
    again.send(Ok(key("a"))).unwrap();
    for call in rest {
        assert!(call.await.unwrap().is_ok());
    }
    played.is_not_asked().await;
}

#[tokio::test(start_paused = true)]
async fn a_401_that_is_dropped_while_the_source_is_asked_leaves_the_next_able_to_ask() {
    let mut played = Played::with(key("a")).await;
    played.api.refuse("a");
    let call = played.get();
    let answer = played.question().await;
    call.abort();
    settle().await;
    assert!(answer.is_closed());
    let call = played.get();
    played.answer(Ok(key("b"))).await;
    assert!(is_renewed(&call.await.unwrap().unwrap()));
}

#[tokio::test(start_paused = true)]
async fn a_source_does_not_change_from_test_to_live() {
    let live = || FreshKey::from(ApiKey::parse("pk_live_a").unwrap());
    let mut played = Played::with(key("a").expires_in(secs(10))).await;
    let handle = played.auth.key_handle();
    let (renewed, ()) = tokio::join!(handle.renew(), played.answer(Ok(live())));
    let failure = renewed.unwrap_err();
    let wrong: &WrongKeyKind = failure.source().unwrap().downcast_ref().unwrap();
    assert_eq!(wrong.given(), KeyKind::Live);
    assert!(played.get().await.unwrap().is_ok());
    assert_eq!(played.last_key(), "a");

    advance(secs(10)).await;
    let call = played.get();
    played.answer(Ok(live())).await;
    let error = call.await.unwrap().unwrap_err();
    assert!(error.source().unwrap().is::<WrongKeyKind>());
    assert_eq!(played.api.seen.lock().unwrap().len(), 2, "none was sent");
}

#[tokio::test(start_paused = true)]
async fn a_source_can_be_asked_at_the_start() {
    let mut played = Played::new();
    let handle = played.auth.key_handle();
    assert!(handle.key().is_none());
    let (renewed, ()) = tokio::join!(handle.renew(), played.answer(Ok(key("a"))));
    renewed.unwrap();
    assert_eq!(handle.key().unwrap().kind(), KeyKind::Test);
    assert!(played.get().await.unwrap().is_ok());
    played.is_not_asked().await;
}
