//! reqwest-middleware with reqwest-retry, which sleeps on tokio's clock. Its last middleware takes the place of the network.

use http::{Extensions, Request, Response};
use reqwest_middleware::{ClientBuilder, Middleware, Next};
use reqwest_retry::{RetryTransientMiddleware, policies::ExponentialBackoff};
use tower::{BoxError, Service, util::BoxCloneService};

use super::Client;
use crate::wire::Wire;

/// As the crate's documentation begins: exponential backoff, at most 3 retries.
pub(crate) fn reqwest_retry(wire: Wire) -> Client {
    let policy = ExponentialBackoff::builder().build_with_max_retries(3);
    let client = ClientBuilder::new(reqwest::Client::new())
        .with(RetryTransientMiddleware::new_with_policy(policy))
        .with(Network(wire))
        .build();
    BoxCloneService::new(tower::service_fn(move |_: Request<()>| {
        let client = client.clone();
        async move {
            let request = client
                .post("https://api.ploton.ai/v1/tasks")
                .header("idempotency-key", "its own");
            let response = request.send().await?;
            let response: Response<reqwest::Body> = response.into();
            Ok::<_, BoxError>(response.map(|_| String::new()))
        }
    }))
}

struct Network(Wire);

#[async_trait::async_trait]
impl Middleware for Network {
    async fn handle(
        &self,
        _: reqwest::Request,
        _: &mut Extensions,
        _: Next<'_>,
    ) -> reqwest_middleware::Result<reqwest::Response> {
        let answer = self.0.clone().call(Request::new(()));
        let response = answer
            .await
            .map_err(|error| reqwest_middleware::Error::middleware(std::io::Error::other(error)))?;
        Ok(response.into())
    }
}
