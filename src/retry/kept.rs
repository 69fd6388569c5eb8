//! What is kept of a request, to make it again.

use http::{Extensions, HeaderMap, Method, Request, Uri, Version};

use super::{RetryBody, classify};
use crate::{idempotency_key::IdempotencyKey, logical::LogicalRequest};

/// A request that can be made again.
pub(super) struct Kept<B> {
    head: Head,
    /// `None` where the body can't be sent twice, or no second attempt is allowed.
    body: Option<B>,
    pub(super) most_attempts: u32,
}

struct Head {
    method: Method,
    uri: Uri,
    version: Version,
    headers: HeaderMap,
    extensions: Extensions,
}

impl<B: RetryBody> Kept<B> {
    pub(super) fn of(request: &Request<B>, most_attempts: u32) -> Self {
        Self {
            head: Head {
                method: request.method().clone(),
                uri: request.uri().clone(),
                version: request.version(),
                headers: request.headers().clone(),
                extensions: request.extensions().clone(),
            },
            body: (most_attempts > 1)
                .then(|| request.body().try_clone())
                .flatten(),
            most_attempts,
        }
    }

    /// The request once more; `None` where its body can't be sent again.
    pub(super) fn request(&self) -> Option<Request<B>> {
        let mut request = Request::new(self.body.as_ref()?.try_clone()?);
        *request.method_mut() = self.head.method.clone();
        *request.uri_mut() = self.head.uri.clone();
        *request.version_mut() = self.head.version;
        *request.headers_mut() = self.head.headers.clone();
        *request.extensions_mut() = self.head.extensions.clone();
        Some(request)
    }
}

impl<B> Kept<B> {
    /// Whether it may be processed twice: the server tells a second time from the first, or it makes no difference.
    pub(super) fn is_repeatable(&self) -> bool {
        classify::is_idempotent(&self.head.method)
            || IdempotencyKey::is_in(&self.head.headers)
            || self
                .logical()
                .is_some_and(|logical| logical.key().is_some())
    }

    /// The key that the attempts carried, whoever made it.
    pub(super) fn idempotency_key(&self) -> Option<IdempotencyKey> {
        IdempotencyKey::of(&self.head.headers).or_else(|| self.logical()?.key().cloned())
    }

    fn logical(&self) -> Option<&LogicalRequest> {
        LogicalRequest::of(&self.head.extensions)
    }
}
