//! The typed client.

use std::{
    borrow::Cow, error::Error as StdError, fmt, marker::PhantomData, sync::Arc, time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Method, Uri};
use http_body_util::Full;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::{
    errors::ErrorCode,
    failure::Error,
    fetch::{Call, Fetching, fetch},
    pages::{PageSize, Pages},
    service::PlotonService,
    tasks::{NewTask, Task, TaskId, TaskStatus},
    wait::WaitFor,
};
use crate::{
    base_url::{BaseUrl, PathRefused},
    idempotency_key::IdempotencyKey,
    tasks::{TaskLimitHandle, TaskSlot},
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
    cancel: Cancel,
    on_task: Option<Arc<dyn Fn(&Task) + Send + Sync>>,
    task_limit: Option<TaskLimitHandle>,
}

#[derive(Clone)]
struct Cancel {
    method: Method,
    path: Cow<'static, str>,
}

/// What stands for a task's id in a path.
const ID: &str = "{id}";

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
                cancel: Cancel {
                    method: Method::POST,
                    path: Cow::Borrowed("/tasks/{id}/cancel"),
                },
                on_task: None,
                task_limit: None,
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

    /// The `User-Agent`, or `None` to send none. Default: `tower-ploton/` and the version.
    #[must_use]
    pub fn user_agent(self, user_agent: impl Into<Option<HeaderValue>>) -> Self {
        self.set(|settings| settings.fetching.user_agent = user_agent.into())
    }

    /// The longest body of an answer that is read, in bytes. Of one that is an error, 64 KiB are. Default: 16 MiB.
    #[must_use]
    pub fn max_body(self, bytes: usize) -> Self {
        self.set(|settings| settings.fetching.bounds.bytes = bytes)
    }

    /// How long the body of an answer may take, from its head. That of an error may take 5 s. Default: 30 s.
    #[must_use]
    pub fn body_timeout(self, timeout: Duration) -> Self {
        self.set(|settings| settings.fetching.bounds.time = timeout)
    }

    /// How a task is cancelled, which the API page does not say: the method, and the path below the base URL, in which `{id}`
    /// stands for the task's id. Default: `POST /tasks/{id}/cancel`.
    ///
    /// # Errors
    ///
    /// Where the path does not begin with a slash, has no `{id}` or a `#`, or could lead out of the base URL.
    pub fn cancel_by(self, method: Method, path: &str) -> Result<Self, InvalidCancelPath> {
        let some = BaseUrl::default().join(&path.replace(ID, "task_1"));
        if some.is_err() || !path.contains(ID) {
            return Err(InvalidCancelPath(()));
        }
        let path = Cow::Owned(path.to_owned());
        Ok(self.set(|settings| settings.cancel = Cancel { method, path }))
    }

    /// Tells `watch` of each task that an answer holds: created, looked up, listed or cancelled. Default: nobody.
    #[must_use]
    pub fn on_task(self, watch: impl Fn(&Task) + Send + Sync + 'static) -> Self {
        self.set(|settings| settings.on_task = Some(Arc::new(watch)))
    }

    /// Tells a [`PlotonTaskLimit`](crate::PlotonTaskLimit) what becomes of each task that an answer holds. A task that is
    /// created has its slot bound to it even without. Default: nobody.
    #[must_use]
    pub fn task_limit(self, limit: TaskLimitHandle) -> Self {
        self.set(|settings| settings.task_limit = Some(limit))
    }

    /// Lists all tasks, and hands over those that run; the [task limit](Self::task_limit) is told which they are. A task of
    /// a status that the API page does not name keeps the slot that it has, and takes none.
    ///
    /// At start-up it counts what earlier runs and other programs began. Later it settles what the limit does not know: of
    /// requests that broke off whether they created a task, and of tasks that nobody asks for whether they have ended.
    ///
    /// It costs a request for every 100 tasks that there ever were.
    ///
    /// # Errors
    ///
    /// As the client's page says; nothing is told to the limit then.
    ///
    /// # Example
    ///
    /// ```
    /// use tower::Layer;
    /// use tower_ploton::{
    ///     ApiKey, Plan, PlotonStack, PlotonTaskLimit,
    ///     api::{NewTask, Ploton},
    ///     mock::FakePloton,
    /// };
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let fake = FakePloton::new();
    /// # let key = ApiKey::parse("pk_test_4f9d0c2b7a6e1583")?;
    /// # let earlier = PlotonStack::new(key.clone(), Plan::Prototyping).layer(fake.clone());
    /// # Ploton::new(earlier).create_task(&NewTask::new("Summarise invoice 41")?).await?;
    /// let limit = PlotonTaskLimit::new(Plan::Prototyping);
    /// let handle = limit.handle();
    /// let stack = PlotonStack::new(key, Plan::Prototyping).tasks(limit);
    /// let ploton = Ploton::new(stack.layer(fake)).task_limit(handle.clone());
    ///
    /// assert_eq!(ploton.running_tasks().await?.len(), 1); // of an earlier run
    /// let task = ploton.create_task(&NewTask::new("Summarise invoice 42")?).await?;
    /// assert_eq!(handle.snapshot().running, 2);
    ///
    /// ploton.cancel_task(&task.id).await?;
    /// assert_eq!(handle.snapshot().running, 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn running_tasks(
        &self,
    ) -> impl Future<Output = Result<Vec<Task>, Error>> + Send + 'static + use<S, B> {
        let this = self.clone();
        async move {
            let asked = Instant::now();
            let (mut tasks, mut running, mut others) = (this.tasks(), Vec::new(), Vec::new());
            while let Some(task) = tasks.next().await {
                let task = task?;
                match task.status {
                    TaskStatus::Running => running.push(task),
                    TaskStatus::Other(_) => others.push(task.id),
                    _ => {}
                }
            }
            if let Some(limit) = &this.settings.task_limit {
                // One that is queued, say, has not ended; an old one of such a status takes no slot.
                others.retain(|id| limit.holds(id.as_str()));
                let running = running.iter().map(|task| &task.id);
                limit.listed(running.chain(&others).map(TaskId::as_str), asked);
            }
            Ok(running)
        }
    }

    /// Creates a task.
    ///
    /// # Errors
    ///
    /// As the client's page says. What may have been created carries its [idempotency key](Error::idempotency_key): the same
    /// task with that [key](NewTask::idempotency_key) is found, or created now.
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
            let body = body.map_err(Error::not_made)?;
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
        let (this, id) = (self.clone(), id.clone());
        async move {
            let settings = this.settings.clone();
            let result = this.task_of(Call::get(uri?)).await;
            settings.end_of(&id, &result, &ErrorCode::TaskNotFound);
            result
        }
    }

    /// Cancels a task, and says what became of it. Where the answer does not show it, the task is looked up.
    ///
    /// # Errors
    ///
    /// As the client's page says; [`ErrorCode::TaskAlreadyComplete`] where it had
    /// finished before.
    pub fn cancel_task(
        &self,
        id: &TaskId,
    ) -> impl Future<Output = Result<Task, Error>> + Send + 'static + use<S, B> {
        let Settings { cancel, .. } = &*self.settings;
        let uri = self.uri(&cancel.path.replace(ID, &id.in_path()));
        let (method, look_up) = (cancel.method.clone(), self.task(id));
        let (this, id) = (self.clone(), id.clone());
        async move {
            let settings = this.settings.clone();
            let call = Call::with_key(method, uri?, IdempotencyKey::random()).once();
            let result = this.task_of(call).await;
            settings.end_of(&id, &result, &ErrorCode::TaskAlreadyComplete);
            match result {
                // It is cancelled all the same. The page says neither what the answer is, nor that a key counts here.
                Err(Error::Unreadable(_)) => look_up.await,
                result => result,
            }
        }
    }

    /// Waits until a task has come to its end: [`WaitFor`] says how.
    pub fn wait_for(&self, id: &TaskId) -> WaitFor<S, B> {
        WaitFor::new(self.clone(), id.clone())
    }

    /// All tasks, in the order of Ploton's listing, as a stream.
    #[must_use = "a stream does nothing until it is polled"]
    pub fn tasks(&self) -> Pages<Task, S, B> {
        let settings = self.settings.clone();
        let is_watched = settings.on_task.is_some() || settings.task_limit.is_some();
        self.pages("/tasks", PageSize::default()).watched(
            // The page may have come long before its items are read: one that ran then may have ended.
            is_watched.then(|| Box::new(move |task: &Task| settings.saw(task)) as _),
        )
    }

    /// Another listing, whose items are read as `T`: [`Pages`] says how.
    #[must_use = "a stream does nothing until it is polled"]
    pub fn pages<T: DeserializeOwned>(&self, path: &str, size: PageSize) -> Pages<T, S, B> {
        let settings = &self.settings;
        let (base_url, fetching) = (settings.base_url.clone(), settings.fetching.clone());
        Pages::new(self.service.clone(), base_url, path, size, fetching)
    }

    fn uri(&self, path_and_query: &str) -> Result<Uri, Error> {
        let uri = self.settings.base_url.join(path_and_query);
        uri.map_err(|refused: PathRefused| Error::not_made(refused))
    }

    /// Makes a call that a task comes back from.
    async fn task_of(self, call: Call) -> Result<Task, Error> {
        let fetching = self.settings.fetching.clone();
        let (head, task): (_, Task) = fetch(self.service.clone(), call, fetching).await?;
        if let Some(slot) = head.extensions.get::<TaskSlot>() {
            slot.bind(task.id.as_str());
        }
        if let Some(limit) = &self.settings.task_limit {
            let id = task.id.as_str();
            let is_other = matches!(task.status, TaskStatus::Other(_));
            if task.status == TaskStatus::Running || is_other && limit.holds(id) {
                limit.running(id);
            }
        }
        self.settings.saw(&task);
        Ok(task)
    }
}

impl Settings {
    /// Tells of a task that does not run any more, as this error says.
    fn end_of(&self, id: &TaskId, result: &Result<Task, Error>, gone: &ErrorCode) {
        let is_gone = result
            .as_ref()
            .is_err_and(|error| error.code() == Some(gone));
        if let Some(limit) = self.task_limit.as_ref().filter(|_| is_gone) {
            limit.finished(id.as_str());
        }
    }

    /// Tells of a task that may be older news.
    fn saw(&self, task: &Task) {
        if let Some(limit) = self.task_limit.as_ref().filter(|_| task.status.is_final()) {
            limit.finished(task.id.as_str());
        }
        if let Some(watch) = &self.on_task {
            watch(task);
        }
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

/// The path is none that a task can be cancelled by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidCancelPath(());

impl fmt::Display for InvalidCancelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "the path of the cancel call begins with a slash, has {id}, and no # or dot segment",
        )
    }
}

impl StdError for InvalidCancelPath {}
