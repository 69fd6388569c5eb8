//! What the typed client needs of a service.

use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::Full;
use tower::{BoxError, Service};

/// A service that [`Ploton`](super::Ploton) and [`pages`](super::pages) can be made with: any
/// `Service<Request<B>, Response = Response<R>>` that is `Clone + Send + 'static`, where `R` is a body.
///
/// It is implemented for all of them, among others for a [`PlotonStack`](crate::PlotonStack) over hyper-util's client. In
/// generic code it takes the place of the whole list of bounds.
///
/// # Example
///
/// ```
/// use tower_ploton::{PlotonStack, api::{Error, Ploton, PlotonService}, mock::FakePloton};
/// # use tower_ploton::{ApiKey, Plan, api::NewTask};
/// # use tower::Layer;
///
/// /// Works over any service, and can be spawned.
/// async fn count<S: PlotonService>(ploton: Ploton<S>) -> Result<usize, Error> {
///     let mut tasks = ploton.tasks();
///     let mut count = 0;
///     while let Some(task) = tasks.next().await {
///         task?;
///         count += 1;
///     }
///     Ok(count)
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let key = ApiKey::parse("pk_test_4f9d0c2b7a6e1583")?;
/// let stack = PlotonStack::new(key, Plan::Prototyping);
/// let ploton = Ploton::new(stack.layer(FakePloton::new()));
/// assert_eq!(tokio::spawn(count(ploton)).await??, 0);
/// # Ok(())
/// # }
/// ```
pub trait PlotonService<B = Full<Bytes>>: Clone + Send + 'static {
    /// The body of its answers.
    type ResponseBody: Body<Data: Send, Error: Into<BoxError>> + Send + 'static;
    /// Its error.
    type Error: Into<BoxError>;
    /// The future of its answers.
    type Future: Future<Output = Result<Response<Self::ResponseBody>, Self::Error>> + Send + 'static;

    /// [`Service::poll_ready`], under a name that is never mistaken for it.
    ///
    /// # Errors
    ///
    /// As the service's own.
    fn poll_ready_to_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>>;

    /// [`Service::call`].
    fn send(&mut self, request: Request<B>) -> Self::Future;
}

impl<S, B, R> PlotonService<B> for S
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    R: Body + Send + 'static,
    R::Data: Send,
    R::Error: Into<BoxError>,
{
    type ResponseBody = R;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready_to_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Service::poll_ready(self, cx)
    }

    fn send(&mut self, request: Request<B>) -> Self::Future {
        Service::call(self, request)
    }
}
