//! reqwest, and reqwest-middleware with reqwest-retry, with the same jobs: a bearer, a new key for each request, a limiter
//! that never has to wait, a timeout.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use http::{
    StatusCode,
    header::{ACCEPT, CONTENT_TYPE},
};
use reqwest::{Request, Response, Url};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use reqwest_retry::{RetryTransientMiddleware, policies::ExponentialBackoff};

use super::{
    drive::{KEY, PROMPT, Post},
    loopback::{Server, URL},
};

#[derive(Clone)]
struct Reqwest<C> {
    client: C,
    /// Makes the requests.
    plain: reqwest::Client,
    url: Url,
    limiter: Arc<DefaultDirectRateLimiter>,
}

impl<C> Reqwest<C> {
    fn new(client: C, plain: reqwest::Client) -> Self {
        let never_waits = Quota::per_second(NonZeroU32::new(1_000_000_000).expect("not 0"));
        Self {
            client,
            plain,
            url: Url::parse(URL).expect("a URL"),
            limiter: Arc::new(RateLimiter::direct(never_waits)),
        }
    }
}

fn client(server: &Server) -> reqwest::Client {
    reqwest::Client::builder()
        .resolve("localhost", server.addr)
        .timeout(Duration::from_secs(30))
        .build()
        .expect("a client")
}

pub(crate) fn plain(server: &Server) -> impl Post + use<> {
    let client = client(server);
    Reqwest::new(client.clone(), client)
}

/// 3 retries with exponential backoff, as the documentation begins, but from 100 ms on, as the others: its own least delay is
/// a second.
pub(crate) fn with_middleware(server: &Server) -> impl Post + use<> {
    let policy = ExponentialBackoff::builder()
        .retry_bounds(Duration::from_millis(100), Duration::from_secs(20))
        .build_with_max_retries(3);
    let plain = client(server);
    let client = ClientBuilder::new(plain.clone())
        .with(RetryTransientMiddleware::new_with_policy(policy))
        .build();
    Reqwest::new(client, plain)
}

/// What both clients can do.
trait Execute: Clone + Send + Sync + 'static {
    fn execute(&self, request: Request) -> impl Future<Output = Response> + Send;
}

impl Execute for reqwest::Client {
    async fn execute(&self, request: Request) -> Response {
        self.execute(request).await.expect("an answer")
    }
}

impl Execute for ClientWithMiddleware {
    async fn execute(&self, request: Request) -> Response {
        self.execute(request).await.expect("an answer")
    }
}

impl<C: Execute> Post for Reqwest<C> {
    async fn post(&mut self) -> StatusCode {
        self.limiter.until_ready().await;
        let request = self
            .plain
            .post(self.url.clone())
            .bearer_auth(KEY)
            .header("idempotency-key", uuid::Uuid::new_v4().to_string())
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, "application/json")
            .body(PROMPT)
            .build();
        let response = self.client.execute(request.expect("a request")).await;
        let status = response.status();
        assert!(!response.bytes().await.expect("a body").is_empty());
        status
    }
}
