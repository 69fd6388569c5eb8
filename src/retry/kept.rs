//! What is kept of a request, to make it again.

use std::{sync::Arc, time::Duration};

use http::{Extensions, Method, Request, Uri, Version};
use tokio::time::Instant;

use super::{RetryBody, headers::KeptHeaders};
use crate::{
    fate::Fate,
    idempotency_key::{IdempotencyKey, KEY_LIFE},
    logical::LogicalRequest,
};

/// A request that can be made again.
pub(super) struct Kept<B> {
    head: Head,
    /// `None` where the body can't be sent twice, or no second attempt is allowed.
    body: Option<B>,
    clone_body: CloneBody<B>,
    /// How old the key was when the request was called, as far as that is known.
    key_age: Duration,
}

struct Head {
    method: Method,
    uri: Uri,
    version: Version,
    headers: KeptHeaders,
    extensions: Extensions,
}

/// How another body with the same content is made.
pub(super) enum CloneBody<B> {
    /// By [`RetryBody::try_clone`].
    Own(fn(&B) -> Option<B>),
    /// As the user says.
    Given(Arc<dyn Fn(&B) -> Option<B> + Send + Sync>),
}

impl<B: RetryBody> CloneBody<B> {
    pub(super) fn own() -> Self {
        Self::Own(B::try_clone)
    }
}

impl<B> CloneBody<B> {
    fn of(&self, body: &B) -> Option<B> {
        match self {
            Self::Own(clone) => clone(body),
            Self::Given(clone) => clone(body),
        }
    }
}

impl<B> Kept<B> {
    // Inlined, as all that is put together for a request: it is large, and would be moved from place to place.
    #[inline(always)]
    pub(super) fn of(
        request: &Request<B>,
        more_than_once: bool,
        clone_body: CloneBody<B>,
        key_age: Duration,
    ) -> Self {
        Self {
            key_age,
            head: Head {
                method: request.method().clone(),
                uri: request.uri().clone(),
                version: request.version(),
                headers: KeptHeaders::of(request.headers()),
                extensions: request.extensions().clone(),
            },
            body: more_than_once
                .then(|| clone_body.of(request.body()))
                .flatten(),
            clone_body,
        }
    }

    /// The request once more, with the deadline that it has, and pinned to the API key in force at a time; `None` where its
    /// body can't be sent again.
    pub(super) fn request(
        &self,
        deadline: Option<Instant>,
        pinned: Option<Instant>,
    ) -> Option<Request<B>> {
        let mut request = Request::new(self.clone_body.of(self.body.as_ref()?)?);
        *request.method_mut() = self.head.method.clone();
        *request.uri_mut() = self.head.uri.clone();
        *request.version_mut() = self.head.version;
        *request.headers_mut() = self.head.headers.map();
        *request.extensions_mut() = self.head.extensions.clone();
        let logical = LogicalRequest::get_or_insert(request.extensions_mut());
        logical.deadline = deadline;
        logical.pinned = pinned;
        Some(request)
    }

    pub(super) const fn method(&self) -> &Method {
        &self.head.method
    }

    /// Whether the attempts carried a key, whoever made it.
    pub(super) fn has_key(&self) -> bool {
        IdempotencyKey::is_in(&self.head.headers.map()) || self.key_made_inside().is_some()
    }

    /// The key that the attempts carried, whoever made it.
    pub(super) fn idempotency_key(&self) -> Option<IdempotencyKey> {
        let head = &self.head;
        let shared = self.key_made_inside();
        let Some(sent) = IdempotencyKey::sent_with(&head.headers.map(), &head.extensions) else {
            return shared.cloned();
        };
        // In an attempt of a retry layer outside, it is as old as the first of them.
        let older = shared.filter(|shared| **shared == sent);
        Some(older.cloned().unwrap_or(sent))
    }

    /// The key that a layer inside made.
    pub(super) fn key_made_inside(&self) -> Option<&IdempotencyKey> {
        self.logical()?.key()
    }

    /// The time from the call in which the key may be sent; `None` where there is no key.
    pub(super) fn key_life(&self) -> Option<Duration> {
        self.has_key()
            .then(|| KEY_LIFE.saturating_sub(self.key_age))
    }

    /// The key that may not be sent any more, and its age; `None` where there is no such.
    pub(super) fn expired_key(&self) -> Option<(&IdempotencyKey, Duration)> {
        if self.key_age < KEY_LIFE {
            return None;
        }
        let head = &self.head;
        IdempotencyKey::meant_by(&head.method, &head.headers.map(), &head.extensions)
            .map(|key| (key, self.key_age))
    }

    /// `Some` where a layer outside asks whether it was processed.
    pub(super) fn fate(&self) -> Option<&Fate> {
        Fate::of(&self.head.extensions)
    }

    fn logical(&self) -> Option<&LogicalRequest> {
        LogicalRequest::of(&self.head.extensions)
    }
}
