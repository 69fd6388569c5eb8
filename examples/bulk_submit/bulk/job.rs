//! The job: lines in, tasks out.

use std::{
    collections::HashSet,
    process,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use http::StatusCode;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::{JoinError, JoinSet},
    time::{sleep, timeout},
};
use tower::{BoxError, ServiceBuilder};
use tower_ploton::{
    PlotonStack, PlotonTaskLimit, TaskLimitHandle,
    api::{ApiError, Error, Ploton, PlotonService, TaskId},
    client::Https,
};

use super::{
    INTERRUPTED,
    args::Options,
    follow::{Pauses, follow},
    input::{Line, Lines},
    journal::{Broken, Created, Journal, Todo},
    progress::{Progress, Summary, story},
    sent::{Stopped, WriteDown},
};

/// What all of its parts share.
struct Job<S> {
    ploton: Ploton<S>,
    journal: Arc<Journal>,
    progress: Arc<Progress>,
    pauses: Pauses,
    /// Whether the ends of tasks are wanted.
    wait: bool,
    stop: watch::Receiver<bool>,
    /// For those that follow what earlier runs created.
    followers: Semaphore,
    /// The tasks that somebody follows.
    followed: Mutex<HashSet<TaskId>>,
}

pub(crate) async fn run(options: Options) -> Result<Summary, BoxError> {
    let (total, bad) = look_through(&options)?;
    let journal = Arc::new(Journal::open(&options.out)?);
    let progress = Arc::new(Progress::new(total, bad));
    let (stopper, stop) = watch::channel(false);
    tokio::spawn(listen_for_ctrl_c(stopper));

    let origin = options.base_url.origin();
    let key = options.key.clone().ok_or("there is no API key")?;
    let limit = PlotonTaskLimit::new(options.plan).origin(origin.clone());
    let slots = limit.handle();
    let stack = PlotonStack::new(key, options.plan).origin(origin.clone());
    let rate = stack.rate_limit_handle();
    let https = Https::new()?.plain_http_to(origin.clone()).client();
    let service = ServiceBuilder::new()
        .layer(limit)
        .layer(WriteDown {
            journal: journal.clone(),
            stop: stop.clone(),
        })
        .layer(stack)
        .service(https);
    let ploton = Ploton::new(service)
        .base_url(options.base_url.clone())
        .task_limit(slots.clone());

    let capacity = options.plan.concurrent_tasks().get() as usize;
    let job = Arc::new(Job {
        ploton,
        journal,
        progress: progress.clone(),
        pauses: Pauses::of(options.plan),
        wait: options.wait,
        stop,
        followers: Semaphore::new(capacity.saturating_mul(2).min(Semaphore::MAX_PERMITS)),
        followed: Mutex::default(),
    });
    let done = async {
        tokio::select! {
            done = job.run(&options, capacity) => done,
            () = job.settle(&slots) => Ok(()),
            () = progress.show(slots.clone(), rate) => Ok(()),
        }
    };
    done.await?;
    let interrupted = *job.stop.borrow();
    Ok(progress.summary(interrupted))
}

/// Counts the lines, and reports those that are no task.
fn look_through(options: &Options) -> Result<(u64, u64), BoxError> {
    let named = |error| format!("{}: {error}", options.prompts.display());
    let mut lines = Lines::open(options).map_err(named)?;
    let (mut good, mut bad) = (0, 0);
    while let Some(line) = lines.next().map_err(named)? {
        match line {
            Ok(_) => good += 1,
            Err(line) => {
                bad += 1;
                eprintln!("line {}: {}", line.number, line.why);
            }
        }
    }
    Ok((good, bad))
}

/// The first Ctrl-C lets what is sent come to its end, the second does not.
async fn listen_for_ctrl_c(stop: watch::Sender<bool>) {
    if tokio::signal::ctrl_c().await.is_ok() {
        eprintln!("Stopping: what was sent is waited for.");
        let _ = stop.send(true);
    }
    if tokio::signal::ctrl_c().await.is_ok() {
        process::exit(INTERRUPTED.into());
    }
}

type Parts = JoinSet<Result<(), BoxError>>;

impl<S: PlotonService + Sync> Job<S> {
    async fn run(self: &Arc<Self>, options: &Options, capacity: usize) -> Result<(), BoxError> {
        let mut parts = Parts::new();
        // Twice as many as can be under way: there is always one that waits for a slot.
        let places = u32::try_from(capacity)
            .unwrap_or(u32::MAX / 2)
            .saturating_mul(2);
        let semaphore = Arc::new(Semaphore::new(places as usize));
        let all = async {
            self.follow_what_runs(options.count, &mut parts).await?;
            self.submit(options, &semaphore, &mut parts).await?;
            // Every line has given its place back.
            let rest = semaphore.acquire_many(places);
            drop(all_but(rest, &mut parts).await??);
            if self.wait {
                while let Some(part) = parts.join_next().await {
                    result_of(part)?;
                }
            }
            Ok(())
        };
        let mut stop = self.stop.clone();
        let result = tokio::select! {
            result = all => Some(result),
            _ = stop.wait_for(|stop| *stop) => None,
        };
        if let Some(result) = result {
            return result;
        }
        // Parts that follow a task never end by themselves.
        let sent = all_but(semaphore.acquire_many(places), &mut parts);
        match timeout(PATIENCE, sent).await {
            Ok(Err(broken)) => return Err(broken),
            Ok(Ok(_)) => {}
            Err(_) => self
                .progress
                .say("Some that were sent had no answer in time: the next run asks again."),
        }
        Ok(())
    }

    /// What earlier runs and others began takes its slots, and gives them back when it ends.
    async fn follow_what_runs(
        self: &Arc<Self>,
        count: bool,
        parts: &mut Parts,
    ) -> Result<(), BoxError> {
        let mut open = self.journal.not_ended();
        if count {
            let running = self.ploton.running_tasks().await;
            let running = running.map_err(|error| {
                format!("the tasks that run can't be listed: {}", story(&error))
            })?;
            for task in running {
                if !(self.wait && open.iter().any(|open| open.id == task.id)) {
                    let (job, id) = (self.clone(), task.id);
                    parts.spawn(async move { job.follow(id, None).await });
                }
            }
        }
        if self.wait {
            open.sort_by_key(|task| task.number);
            for task in open {
                let job = self.clone();
                parts.spawn(async move {
                    let _place = job.followers.acquire().await?;
                    job.follow(task.id.clone(), Some(task)).await
                });
            }
        }
        Ok(())
    }

    /// A line that failed may have a task, and keeps its slot: what runs is listed where others wait for that.
    async fn settle(self: &Arc<Self>, slots: &TaskLimitHandle) {
        let mut followers = Parts::new();
        loop {
            sleep(self.pauses.longest.max(SETTLE)).await;
            let now = slots.snapshot();
            if now.unsettled == 0 || now.waiting == 0 {
                continue;
            }
            // Where that fails, it is tried again.
            for task in self.ploton.running_tasks().await.unwrap_or_default() {
                let job = self.clone();
                followers.spawn(async move { job.follow(task.id, None).await });
            }
        }
    }

    async fn follow(&self, id: TaskId, known: Option<Created>) -> Result<(), BoxError> {
        {
            let mut followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
            if !followed.insert(id.clone()) && known.is_none() {
                return Ok(());
            }
        }
        let ploton = self.ploton.clone();
        let known = known.filter(|_| self.wait);
        follow(
            ploton,
            self.pauses,
            id,
            known,
            &self.journal,
            &self.progress,
        )
        .await
    }

    /// Sends each line that needs it.
    async fn submit(
        self: &Arc<Self>,
        options: &Options,
        places: &Arc<Semaphore>,
        parts: &mut Parts,
    ) -> Result<(), BoxError> {
        let mut lines = Lines::open(options)?;
        while let Some(line) = lines.next()? {
            // The others are reported.
            let Ok(mut line) = line else { continue };
            #[allow(
                clippy::disallowed_methods,
                reason = "compared with what another run wrote down"
            )]
            let now = SystemTime::now();
            match self.journal.todo(&line, options.force, now) {
                Todo::Nothing => self.progress.earlier(),
                Todo::Unknown(sent) => {
                    let sent = humantime::format_rfc3339_seconds(sent).to_string();
                    self.progress.unknown(line.number, &sent);
                }
                Todo::Send(key) => {
                    line.task = line.task.idempotency_key(key);
                    let place = all_but(places.clone().acquire_owned(), parts).await??;
                    let job = self.clone();
                    parts.spawn(async move { job.create(line, place).await });
                }
            }
        }
        Ok(())
    }

    /// Creates a line's task, and follows it.
    async fn create(&self, line: Line, place: OwnedSemaphorePermit) -> Result<(), BoxError> {
        let mut stop = self.stop.clone();
        let created = tokio::select! {
            created = self.ploton.create_task(&line.task) => created,
            _ = stop.wait_for(|stop| *stop && !self.journal.has_left(&line.key)) => return Ok(()),
        };
        match created {
            Ok(task) => {
                let key = line.key.as_str();
                self.journal.result(line.number, key, &task).await?;
                self.progress.created();
                drop(place);
                let known = Created {
                    number: line.number,
                    key: key.to_owned(),
                    id: task.id.clone(),
                    has_ended: false,
                };
                self.follow(task.id, Some(known)).await
            }
            Err(Error::Service { error, .. }) if error.is::<Broken>() => Err(error),
            Err(Error::Service { error, .. }) if error.is::<Stopped>() => Ok(()),
            Err(error) => {
                let why = story(&error);
                if error.api().is_some_and(was_refused) {
                    self.journal.refused(&line, &why).await?;
                }
                self.progress.failed(line.number, &why);
                Ok(())
            }
        }
    }
}

/// Whether an error says that nothing was created, by this attempt or an earlier one.
fn was_refused(error: &ApiError) -> bool {
    let status = error.status();
    let is_one = error.attempts().is_none_or(|attempts| attempts.made() == 1);
    let is_unclear = [StatusCode::REQUEST_TIMEOUT, StatusCode::CONFLICT].contains(&status);
    status.is_client_error() && is_one && !is_unclear
}

/// Waits for `what`, unless a part breaks meanwhile.
async fn all_but<T>(what: impl Future<Output = T>, parts: &mut Parts) -> Result<T, BoxError> {
    let mut what = std::pin::pin!(what);
    loop {
        tokio::select! {
            done = &mut what => return Ok(done),
            Some(part) = parts.join_next() => result_of(part)?,
        }
    }
}

fn result_of(part: Result<Result<(), BoxError>, JoinError>) -> Result<(), BoxError> {
    part?
}

/// How long Ctrl-C waits for what was sent.
const PATIENCE: Duration = Duration::from_secs(10);
/// What is unclear is not asked for more often.
const SETTLE: Duration = Duration::from_millis(100);
