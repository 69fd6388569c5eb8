//! Who asks for what, and what became of it.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use http::{Request, Response};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{
    runtime::Runtime,
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use tower::{BoxError, Service, ServiceExt};

use super::{clients::Client, wire::OnTheWay};

pub(crate) const MINUTE: Duration = Duration::from_secs(60);

/// What became of the logical requests of a run.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Fates {
    pub(crate) succeeded: u32,
    /// Their callers got an error or an answer that is no success.
    pub(crate) lost: u32,
    /// Of those that succeeded: all their time but the last attempt's own.
    pub(crate) waited: Duration,
}

impl Fates {
    pub(crate) fn add(&mut self, others: Self) {
        self.succeeded += others.succeeded;
        self.lost += others.lost;
        self.waited += others.waited;
    }

    /// In seconds.
    pub(crate) fn mean_wait(&self) -> f64 {
        self.waited.as_secs_f64() / f64::from(self.succeeded.max(1))
    }

    fn note(&mut self, asked: Instant, answer: &Result<Response<String>, BoxError>) {
        match answer {
            Ok(response) if response.status().is_success() => {
                let OnTheWay(way) = response.extensions().get().copied().unwrap();
                self.succeeded += 1;
                self.waited += (Instant::now() - asked).saturating_sub(way);
            }
            _ => self.lost += 1,
        }
    }
}

pub(crate) fn paused() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap()
}

pub(crate) fn create() -> Request<()> {
    Request::post("https://api.ploton.ai/v1/tasks")
        .body(())
        .unwrap()
}

pub(crate) async fn ask(client: &mut Client) -> Result<Response<String>, BoxError> {
    client.ready().await?.call(create()).await
}

/// `callers` that always want something, until `end`: each asks again at once, whatever became of the last request.
pub(crate) async fn saturate(client: Client, callers: u32, end: Instant) -> Fates {
    let fates = Arc::new(Mutex::new(Fates::default()));
    let mut running = JoinSet::new();
    for _ in 0..callers {
        let (mut client, fates) = (client.clone(), fates.clone());
        running.spawn(async move {
            loop {
                let asked = Instant::now();
                let answer = ask(&mut client).await;
                fates.lock().unwrap().note(asked, &answer);
            }
        });
    }
    sleep_until(end).await;
    running.shutdown().await;
    *fates.lock().unwrap()
}

/// Groups of requests at random instants, `load` of a plan of `n` on average, in geometric sizes around n/14. Ends when the
/// last one has its answer.
pub(crate) async fn groups(client: Client, n: u32, load: f64, seed: u64, end: Instant) -> Fates {
    let mut random = StdRng::seed_from_u64(!seed);
    let fates = Arc::new(Mutex::new(Fates::default()));
    let n = f64::from(n);
    let size = n / 14.0;
    let gap = size / (load * n / MINUTE.as_secs_f64());
    let mut running = JoinSet::new();
    while Instant::now() < end {
        let mut exponential = || -(1.0 - random.random::<f64>()).ln();
        sleep(Duration::from_secs_f64(gap * exponential())).await;
        let count = 1 + (exponential() / -(1.0 - 1.0 / size).ln()) as u32;
        for _ in 0..count {
            let (mut client, fates) = (client.clone(), fates.clone());
            running.spawn(async move {
                let asked = Instant::now();
                let answer = ask(&mut client).await;
                fates.lock().unwrap().note(asked, &answer);
            });
        }
    }
    running.join_all().await;
    *fates.lock().unwrap()
}
