//! The layers around a [`reqwest::Client`]: conversions on both sides of them, and a middleware.
//!
//! [`FromReqwest`] stands outermost and takes reqwest's own requests, [`IntoReqwest`] innermost and gives them to the
//! client. Between the two stands any stack of layers. What comes back is a [`reqwest::Response`], with the story of a
//! request that failed in its [`extensions`](reqwest::Response::extensions).
//!
//! # What reqwest does beneath the layers
//!
//! - It follows redirects by itself, up to 10, within one attempt: they take no token. Where one leads to another scheme,
//!   host or port, it takes `Authorization` out, whatever the policy, so that no API key gets there; a way back home goes
//!   without a key too, and ends in a 401. The `Idempotency-Key`, which is no secret, goes along. Where one leads to a server
//!   that can't be reached, reqwest's error does not say that there was a redirect: a POST that was done before it (303), and
//!   has no idempotency key, is taken for one that was not sent, and done twice. Ploton's API names no redirects: with
//!   [`Policy::none`](reqwest::redirect::Policy::none) one comes back as the answer that it is.
//! - It sends a request again by itself where an HTTP/2 server refused the stream, at most twice, and that within one attempt.
//!   [`retry::never`](reqwest::retry::never) leaves this to [`PlotonRetry`](crate::PlotonRetry).
//! - Its timeouts, of a client and of a request, bound one attempt each, not the wait between two. For all together there is
//!   [`Deadline`](crate::Deadline) in the request's extensions.
//!
//! [`connector_layer`](reqwest::ClientBuilder::connector_layer) is no place for the layers: what passes there are
//! connections, not requests.
//!
//! # Example
//!
//! ```
//! use {
//!     reqwest::{Client, Url},
//!     tower::{Service, ServiceBuilder, ServiceExt},
//!     tower_ploton::{
//!         ApiKey, Origin, Plan, PlotonStack,
//!         mock::{FakePloton, Fault},
//!         reqwest::{FromReqwest, IntoReqwest},
//!     },
//! };
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), tower::BoxError> {
//! let fake = FakePloton::new();
//! let server = fake.listen().await?;
//! fake.fail_next(Fault::CutAfter);
//!
//! let key = ApiKey::parse("pk_test_4f9d0c2b7a6e1583")?;
//! let stack = PlotonStack::new(key, Plan::Production).origin(Origin::parse(&server.url())?);
//! let client = Client::builder().no_proxy().build()?;
//! let mut ploton = ServiceBuilder::new()
//!     .layer(FromReqwest::new())
//!     .layer(stack)
//!     .layer(IntoReqwest::new())
//!     .service(client.clone());
//!
//! let request = client
//!     .post(format!("{}/v1/tasks", server.url()))
//!     .header("content-type", "application/json")
//!     .body(r#"{"prompt":"Pay invoice 42"}"#)
//!     .build()?;
//! let response: reqwest::Response = ploton.ready().await?.call(request).await?;
//! assert_eq!(response.status(), 201);
//! assert_eq!((fake.counts().attempts, fake.counts().created), (2, 1));
//! # Ok(())
//! # }
//! ```

mod body;
mod from;
mod into;
#[cfg(feature = "reqwest-middleware")]
mod middleware;

#[cfg(feature = "reqwest-middleware")]
pub use self::middleware::{MiddlewareError, NextService, PlotonMiddleware};
pub use self::{
    body::ReqwestBody,
    from::{FromReqwest, FromReqwestFuture, FromReqwestService},
    into::{IntoReqwest, IntoReqwestFuture, IntoReqwestService},
};
