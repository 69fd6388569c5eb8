//! The idempotency and the retry layer as one service, for the stack: a key is looked for once, kept once, and the time read
//! once.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower::{BoxError, Service};

use crate::{
    idempotency::PlotonIdempotency,
    logical::Attempts,
    retry::{self, RetryBody, RetryService},
};

/// Does what an [`IdempotencyService`](crate::idempotency::IdempotencyService) around a [`RetryService`] does.
#[derive(Clone, Debug)]
pub(super) struct Keyed<S> {
    inner: RetryService<S>,
    layer: PlotonIdempotency,
}

impl<S> Keyed<S> {
    pub(super) const fn new(inner: RetryService<S>, layer: PlotonIdempotency) -> Self {
        Self { inner, layer }
    }
}

impl<S, B, R> Service<Request<B>> for Keyed<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    S::Error: Into<BoxError>,
    B: RetryBody,
    R: Body,
{
    type Response = Response<R>;
    type Error = BoxError;
    type Future = ResponseFuture<S, B, R>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let now = Instant::now();
        let has_key = self.layer.give_key(&mut request, now).is_some();
        ResponseFuture {
            response: self.inner.call_at(now, request, has_key),
            has_key,
        }
    }
}

pin_project! {
    pub(super) struct ResponseFuture<S, B, R>
    where
        S: Service<Request<B>>,
    {
        #[pin]
        response: retry::ResponseFuture<S, B, R>,
        // Whether the idempotency layer gave the request a key, or knows the caller's.
        has_key: bool,
    }
}

impl<S, B, R> Future for ResponseFuture<S, B, R>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: Into<BoxError>,
    R: Body,
{
    type Output = Result<Response<R>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut polled = this.response.poll(cx);
        if let Poll::Ready(Ok(response)) = &mut polled {
            if *this.has_key && !response.status().is_success() {
                tell_key(response);
            }
        }
        polled
    }
}

/// Puts the key beside the story that it is told in.
fn tell_key<R>(response: &mut Response<R>) {
    let extensions = response.extensions_mut();
    let key = extensions
        .get()
        .and_then(Attempts::idempotency_key)
        .cloned();
    if let Some(key) = key {
        extensions.insert(key);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::{Method, StatusCode};
    use tower::{Layer, ServiceExt, service_fn};

    use super::*;
    use crate::{
        headers::date::Wall,
        idempotency::IdempotencyService,
        idempotency_key::{IDEMPOTENCY_KEY, IdempotencyKey},
        retry::PlotonRetry,
    };

    /// What the caller and the server learn of the key: the answer's status, the key beside it, the key in its story, and
    /// the header that was sent.
    type Learnt = (StatusCode, [Option<String>; 3]);

    fn server(
        status: StatusCode,
    ) -> impl Service<Request<String>, Response = Response<String>, Error = BoxError, Future: Send> + Clone
    {
        service_fn(move |request: Request<String>| async move {
            let sent = request.headers().get(IDEMPOTENCY_KEY);
            let sent = sent.map_or("none", |key| key.to_str().unwrap()).to_owned();
            let mut answer = Response::new(sent);
            *answer.status_mut() = status;
            Ok::<_, BoxError>(answer)
        })
    }

    async fn learnt(
        service: impl Service<Request<String>, Response = Response<String>, Error = BoxError>,
        request: Request<String>,
    ) -> Learnt {
        let answer = service.oneshot(request).await.unwrap();
        let extensions = answer.extensions();
        let beside = extensions.get::<IdempotencyKey>();
        let told = extensions.get().and_then(Attempts::idempotency_key);
        let keys = [beside, told].map(|key| key.map(ToString::to_string));
        let [beside, told] = keys;
        (answer.status(), [beside, told, Some(answer.body().clone())])
    }

    fn request(method: Method, key: Option<&str>, header: Option<&str>) -> Request<String> {
        let mut request = Request::new(String::new());
        *request.method_mut() = method;
        if let Some(key) = key {
            let key = IdempotencyKey::parse(key).unwrap();
            request.extensions_mut().insert(key);
        }
        if let Some(header) = header {
            let header = header.parse().unwrap();
            request.headers_mut().insert(IDEMPOTENCY_KEY, header);
        }
        request
    }

    #[tokio::test(start_paused = true)]
    async fn it_tells_of_the_key_what_the_two_layers_tell() {
        let retry = || PlotonRetry::new().attempts(2).without_jitter();
        let layer = PlotonIdempotency::new;
        for status in [200, 201, 302, 400, 409, 429, 503] {
            let status = StatusCode::from_u16(status).unwrap();
            for method in [Method::POST, Method::PUT, Method::GET] {
                for key in [None, Some("own")] {
                    for header in [None, Some(""), Some("sent"), Some("not a key")] {
                        let both: IdempotencyService<_> =
                            layer().layer(retry().layer(server(status)));
                        let one = Keyed::new(retry().layer(server(status)), layer());
                        let request = || request(method.clone(), key, header);
                        let mut expected = learnt(both, request()).await;
                        let mut actual = learnt(one, request()).await;
                        if method == Method::POST
                            && key.is_none()
                            && header.unwrap_or_default().is_empty()
                        {
                            // Random keys differ.
                            for learnt in [&mut expected, &mut actual] {
                                let sent = learnt.1[2].take();
                                for told in learnt.1.iter_mut().take(2).flatten() {
                                    assert_eq!(Some(&*told), sent.as_ref());
                                    *told = "random".to_owned();
                                }
                            }
                        }
                        assert_eq!(actual, expected, "{method} {status} {key:?} {header:?}");
                    }
                }
            }
        }
    }

    /// How old the key beside the answer is, where each of two attempts goes through `inside`, a minute one after the other.
    async fn age_of_key_in<S>(inside: S) -> Duration
    where
        S: Service<Request<String>, Response = Response<String>, Error = BoxError> + Clone,
    {
        let twice = PlotonRetry::new().attempts(2).base_delay(MINUTE);
        let twice = twice.max_delay(MINUTE).without_jitter().layer(inside);
        let answer = twice.oneshot(request(Method::POST, None, None)).await;
        let answer = answer.unwrap();
        assert_eq!(answer.extensions().get().map(Attempts::made), Some(2));
        let key = answer.extensions().get::<IdempotencyKey>().unwrap();
        key.age(&Wall::anchored(), Instant::now())
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_that_an_attempt_before_was_sent_with_is_as_old_as_with_the_two_layers() {
        let retry = || PlotonRetry::new().attempts(1);
        let server = || server(StatusCode::SERVICE_UNAVAILABLE);
        let layer = PlotonIdempotency::new;
        let both = age_of_key_in(layer().layer(retry().layer(server()))).await;
        assert!(both >= MINUTE, "{both:?}");
        let one = age_of_key_in(Keyed::new(retry().layer(server()), layer())).await;
        assert_eq!(one, both);
    }

    const MINUTE: Duration = Duration::from_secs(60);
}
