//! One call: a request, its answer, and what the answer's body says.

use std::{future::poll_fn, time::Duration};

use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, Uri,
    header::{ACCEPT, CONTENT_TYPE, USER_AGENT},
    response::Parts,
};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::{
    body::{Bounds, ReadBody},
    errors::ApiError,
    failure::{Error, UnreadableAnswer},
    service::PlotonService,
};
use crate::{
    base_url::own_user_agent,
    headers::date::Wall,
    idempotency_key::{IDEMPOTENCY_KEY, IdempotencyKey},
};

/// How calls are made.
#[derive(Clone, Debug)]
pub(super) struct Fetching {
    /// For the bodies of answers that say success.
    pub(super) bounds: Bounds,
    /// `None` where none is sent.
    pub(super) user_agent: Option<HeaderValue>,
    pub(super) wall: Wall,
}

impl Fetching {
    pub(super) fn new() -> Self {
        Self {
            bounds: Bounds {
                bytes: 16 * 1024 * 1024,
                time: Duration::from_secs(30),
            },
            user_agent: Some(own_user_agent()),
            wall: Wall::anchored(),
        }
    }
}

/// A request that can be made again: it is a GET, or has a key.
#[derive(Clone, Debug)]
pub(super) struct Call {
    method: Method,
    uri: Uri,
    /// `None` for what has no effect.
    key: Option<IdempotencyKey>,
    body: Option<Bytes>,
    /// How often it is made at the most.
    most: u32,
}

impl Call {
    pub(super) const fn get(uri: Uri) -> Self {
        Self {
            method: Method::GET,
            uri,
            key: None,
            body: None,
            most: MAX_CALLS,
        }
    }

    pub(super) const fn with_key(method: Method, uri: Uri, key: IdempotencyKey) -> Self {
        Self {
            method,
            uri,
            key: Some(key),
            body: None,
            most: MAX_CALLS,
        }
    }

    /// Not to be made again, whatever becomes of its answer.
    pub(super) const fn once(mut self) -> Self {
        self.most = 1;
        self
    }

    pub(super) fn json(mut self, body: Bytes) -> Self {
        self.body = Some(body);
        self
    }

    fn request<B: From<Bytes>>(&self, user_agent: Option<&HeaderValue>) -> Request<B> {
        let mut request = Request::new(B::from(self.body.clone().unwrap_or_default()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        let json = HeaderValue::from_static("application/json");
        if self.body.is_some() {
            request.headers_mut().insert(CONTENT_TYPE, json.clone());
        }
        request.headers_mut().insert(ACCEPT, json);
        if let Some(user_agent) = user_agent {
            request.headers_mut().insert(USER_AGENT, user_agent.clone());
        }
        if let Some(key) = &self.key {
            // As a header, so that it is sent even where no layer would do that; as an extension, for what a layer may know
            // of this key beyond its text.
            request.headers_mut().insert(IDEMPOTENCY_KEY, key.header());
            request.extensions_mut().insert(key.clone());
        }
        request
    }
}

/// Makes a call, and reads the answer as a `T`.
///
/// The layers hand an answer over when its head has come, so they can't see that its body breaks off: then the call is made
/// again, at most three times.
pub(super) async fn fetch<T, S, B>(
    mut service: S,
    call: Call,
    fetching: Fetching,
) -> Result<(Parts, T), Error>
where
    T: DeserializeOwned,
    S: PlotonService<B>,
    B: From<Bytes>,
{
    let mut made = 1;
    let mut first_sent = None;
    loop {
        let ready = poll_fn(|cx| service.poll_ready_to_send(cx)).await;
        ready.map_err(|error| Error::of_service(error.into(), call.key.as_ref()))?;
        let sent = *first_sent.get_or_insert_with(Instant::now);
        // An error's key knows its age, so that it is not sent again when the server may have forgotten it.
        let used_key = || call.key.clone().map(|key| key.used_at(sent));
        let response = service
            .send(call.request(fetching.user_agent.as_ref()))
            .await;
        let response =
            response.map_err(|error| Error::of_service(error.into(), used_key().as_ref()))?;
        let received = Instant::now();
        let (head, body) = response.into_parts();
        if !head.status.is_success() {
            let body = ReadBody::new(body, Bounds::ERROR).await;
            let error = ApiError::new(&head, &body, &fetching.wall, received);
            return Err(Error::Api(error.with_key(used_key().as_ref())));
        }
        let body = ReadBody::new(body, fetching.bounds).await;
        let mut unreadable = match UnreadableAnswer::or_json(&head, body) {
            Ok(value) => return Ok((head, value)),
            Err(unreadable) => unreadable,
        };
        if !unreadable.broke_off() || made >= call.most {
            unreadable.calls = made;
            unreadable.idempotency_key = used_key().map(Box::new);
            return Err(Error::Unreadable(unreadable));
        }
        let delay = pause(made, rand::random());
        tracing::info!(
            http.request.method = call.method.as_str(),
            url.path = call.uri.path(),
            ploton.idempotency_key = call.key.as_ref().map(IdempotencyKey::as_str),
            http.response.status_code = i64::from(head.status.as_u16()),
            calls = i64::from(made),
            delay_ms = i64::try_from(delay.as_millis()).unwrap_or(i64::MAX),
            "an answer broke off in its body, and is asked for again"
        );
        tokio::time::sleep(delay).await;
        made += 1;
    }
}

/// The pause before the repeat after `made` calls: up to 200 ms, and twice as long each time.
fn pause(made: u32, random: f64) -> Duration {
    let most = FIRST_PAUSE.saturating_mul(1 << made.saturating_sub(1).min(8));
    most.mul_f64(random)
}

const MAX_CALLS: u32 = 4;
const FIRST_PAUSE: Duration = Duration::from_millis(200);
