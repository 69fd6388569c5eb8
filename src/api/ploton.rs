//! The typed client.

use std::{fmt, marker::PhantomData, sync::Arc};

use bytes::Bytes;
use http::{Method, Uri};
use http_body_util::Full;
use serde::de::DeserializeOwned;

use super::{
    failure::Error,
    fetch::{Call, Fetching, fetch},
    pages::{PageSize, Pages},
    service::PlotonService,
    tasks::{NewTask, Task, TaskId},
};
use crate::{
    base_url::{BaseUrl, PathRefused},
    idempotency_key::IdempotencyKey,
};

/// Ploton's calls, over any service: a [`PlotonStack`](crate::PlotonStack) over an HTTP client, or whatever else is a
/// [`PlotonService`].
///
/// Every POST has an idempotency key. A call whose answer breaks off within the body is made again, with the same key, at most
/// three times: the layers can't see that. Everything else is what the service does with it.
///
/// Clones are cheap and share what the service shares.
///
/// # Errors
///
/// An [`Error`] that says which of these it was: an answer that is an error, an answer that can't be read, no answer.
///
/// # Example
///
/// ```
/// use tower::Layer;
/// use tower_ploton::{
///     ApiKey, Plan, PlotonStack,
///     api::{ErrorCode, NewTask, Ploton, TaskStatus},
///     mock::FakePloton,
/// };
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let stack = PlotonStack::new(ApiKey::parse("pk_test_4f9d0c2b7a6e1583")?, Plan::Production);
/// let ploton = Ploton::new(stack.layer(FakePloton::new()));
///
/// let task = ploton.create_task(&NewTask::new("Summarise invoice 42")?).await?;
/// assert_eq!(task.status, TaskStatus::Running);
/// assert_eq!(ploton.task(&task.id).await?.id, task.id);
///
/// let task = ploton.cancel_task(&task.id).await?;
/// assert_eq!(task.status, TaskStatus::Cancelled);
/// let error = ploton.cancel_task(&task.id).await.unwrap_err();
/// assert_eq!(error.code(), Some(&ErrorCode::TaskAlreadyComplete));
/// # Ok(())
/// # }
/// ```
pub struct Ploton<S, B = Full<Bytes>> {
    service: S,
    settings: Arc<Settings>,
    body: PhantomData<fn() -> B>,
}

#[derive(Clone)]
struct Settings {
    base_url: BaseUrl,
    fetching: Fetching,
    on_task: Option<Arc<dyn Fn(&Task) + Send + Sync>>,
}

impl<S: PlotonService> Ploton<S> {
    /// A client over `service`, whose requests have a `Full<Bytes>` for a body.
    #[must_use]
    pub fn new(service: S) -> Self {
        Self::with_body(service)
    }
}

impl<S, B> Ploton<S, B>
where
    S: PlotonService<B>,
    B: From<Bytes> + Send + 'static,
{
    /// A client over a service whose requests have another body than `Full<Bytes>`.
    #[must_use]
    pub fn with_body(service: S) -> Self {
        Self {
            service,
            settings: Arc::new(Settings {
                base_url: BaseUrl::default(),
                fetching: Fetching::new(),
                on_task: None,
            }),
            body: PhantomData,
        }
    }

    fn set(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(Arc::make_mut(&mut self.settings));
        self
    }

    /// Where the API is. Default: `https://api.ploton.ai/v1`.
    #[must_use]
    pub fn base_url(self, base_url: BaseUrl) -> Self {
        self.set(|settings| settings.base_url = base_url)
    }

    /// Tells `watch` of each task that an answer holds: created, looked up, listed or cancelled. Default: nobody.
    #[must_use]
    pub fn on_task(self, watch: impl Fn(&Task) + Send + Sync + 'static) -> Self {
        self.set(|settings| settings.on_task = Some(Arc::new(watch)))
    }

    /// Creates a task.
    ///
    /// # Errors
    ///
    /// As the client's page says. What may have been created carries its idempotency key: the same call with that key
    /// finds it, or creates it now.
    pub fn create_task(
        &self,
        task: &NewTask,
    ) -> impl Future<Output = Result<Task, Error>> + Send + 'static + use<S, B> {
        let key = task.idempotency_key.clone();
        let key = key.unwrap_or_else(IdempotencyKey::random);
        let uri = self.uri("/tasks");
        let body = serde_json::to_vec(task);
        let this = self.clone();
        async move {
            let body = body.map_err(|error| Error::Service(error.into()))?;
            let call = Call::with_key(Method::POST, uri?, key).json(body.into());
            this.task_of(call).await
        }
    }

    /// Looks a task up.
    ///
    /// # Errors
    ///
    /// As the client's page says.
    pub fn task(
        &self,
        id: &TaskId,
    ) -> impl Future<Output = Result<Task, Error>> + Send + 'static + use<S, B> {
        let uri = self.uri(&format!("/tasks/{}", id.in_path()));
        let this = self.clone();
        async move { this.task_of(Call::get(uri?)).await }
    }

    /// Cancels a task, and says what became of it.
    ///
    /// # Errors
    ///
    /// As the client's page says; [`ErrorCode::TaskAlreadyComplete`](super::ErrorCode::TaskAlreadyComplete) where it had
    /// finished before.
    pub fn cancel_task(
        &self,
        id: &TaskId,
    ) -> impl Future<Output = Result<Task, Error>> + Send + 'static + use<S, B> {
        let uri = self.uri(&format!("/tasks/{}/cancel", id.in_path()));
        let this = self.clone();
        async move {
            let call = Call::with_key(Method::POST, uri?, IdempotencyKey::random());
            this.task_of(call).await
        }
    }

    /// All tasks, in the order of Ploton's listing, as a stream.
    #[must_use = "a stream does nothing until it is polled"]
    pub fn tasks(&self) -> Pages<Task, S, B> {
        let watch = self.settings.on_task.clone();
        self.pages("/tasks", PageSize::default())
            .watched(watch.map(|watch| Box::new(move |task: &Task| watch(task)) as _))
    }

    /// Another listing, whose items are read as `T`: [`Pages`] says how.
    #[must_use = "a stream does nothing until it is polled"]
    pub fn pages<T: DeserializeOwned>(&self, path: &str, size: PageSize) -> Pages<T, S, B> {
        let (base_url, fetching) = (self.settings.base_url.clone(), self.settings.fetching);
        Pages::new(self.service.clone(), base_url, path, size, fetching)
    }

    fn uri(&self, path_and_query: &str) -> Result<Uri, Error> {
        let uri = self.settings.base_url.join(path_and_query);
        uri.map_err(|refused: PathRefused| Error::Service(refused.into()))
    }

    /// Makes a call that a task comes back from.
    async fn task_of(self, call: Call) -> Result<Task, Error> {
        let (_, task) = fetch(self.service.clone(), call, self.settings.fetching).await?;
        if let Some(watch) = &self.settings.on_task {
            watch(&task);
        }
        Ok(task)
    }
}

impl<S: Clone, B> Clone for Ploton<S, B> {
    fn clone(&self) -> Self {
        Self {
            service: self.service.clone(),
            settings: self.settings.clone(),
            body: PhantomData,
        }
    }
}

impl<S, B> fmt::Debug for Ploton<S, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ploton")
            .field("base_url", &self.settings.base_url)
            .finish_non_exhaustive()
    }
}
