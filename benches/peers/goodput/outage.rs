//! A minute in which every request is answered with a 503: what a client sends meanwhile, and when it is back.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};

use super::{
    clients::Retrying,
    load::{ask, paused},
    network::Delays,
    parallel::in_parallel,
    plan_use::MODELS,
    support::print::{Table, cell},
    wire::{Outage, Wire},
};

/// Requests a minute that the plan allows, and that are asked for: one in each step.
const N: u32 = 1_000;
const STEP: Duration = Duration::from_millis(100);

pub(crate) const FROM: usize = 60;
pub(crate) const TO: usize = 120;
pub(crate) const SECONDS: usize = 180;
/// Asked for in each second.
pub(crate) const OFFERED: f64 = 10.0;
const RUNS: u64 = 20;

/// What happened in each second, on average of all runs.
pub(crate) struct Course {
    pub(crate) retrying: Retrying,
    /// Attempts that were sent.
    pub(crate) attempts: Vec<f64>,
    /// Requests that ended in a success.
    pub(crate) successes: Vec<f64>,
    /// Requests asked for that ended without one.
    lost: Vec<f64>,
}

impl Course {
    /// Attempts sent for each request asked for while the outage lasts.
    pub(crate) fn amplification(&self) -> f64 {
        let asked = OFFERED * (TO - FROM) as f64;
        self.attempts[FROM..TO].iter().sum::<f64>() / asked
    }

    /// The seconds after the outage until as many requests succeed as are asked for, or 95 % of them.
    pub(crate) fn recovery(&self) -> usize {
        let back = |&second: &usize| self.successes[second] >= 0.95 * OFFERED;
        (TO..SECONDS).find(back).unwrap_or(SECONDS) - TO
    }

    /// Most attempts in one second, as a multiple of what is asked for.
    pub(crate) fn peak(&self) -> f64 {
        self.attempts.iter().copied().fold(0.0, f64::max) / OFFERED
    }

    pub(crate) fn lost(&self) -> f64 {
        self.lost.iter().sum()
    }
}

/// In seconds since the start: attempts sent, and of each request when it was asked for, ended, and whether it succeeded.
type Noted = (Vec<f64>, Vec<(f64, f64, bool)>);

fn run(retrying: Retrying, seed: u64) -> Noted {
    paused().block_on(async {
        let start = Instant::now();
        let attempts = Arc::new(Mutex::new(Vec::new()));
        let outage = Outage {
            from: start + Duration::from_secs(FROM as u64),
            to: start + Duration::from_secs(TO as u64),
            attempts: attempts.clone(),
        };
        let world = MODELS[0].world(N, seed).begin();
        let client = retrying.client(Wire::with_outage(world, outage), N);
        let since = |at: Instant| (at - start).as_secs_f64();

        let mut running = JoinSet::new();
        let end = start + Duration::from_secs(SECONDS as u64);
        let mut next = start;
        while next < end {
            sleep_until(next).await;
            let mut client = client.clone();
            running.spawn(async move {
                let answer = ask(&mut client).await;
                let succeeded = answer.is_ok_and(|answer| answer.status().is_success());
                (next, Instant::now(), succeeded)
            });
            next += STEP;
        }
        let ended = running.join_all().await;
        let ended = ended
            .into_iter()
            .map(|(asked, ended, succeeded)| (since(asked), since(ended), succeeded));
        let attempts = attempts.lock().unwrap();
        (
            attempts.iter().map(|&at| since(at)).collect(),
            ended.collect(),
        )
    })
}

pub(crate) fn courses() -> Vec<Course> {
    // What takes longer than this on its way is not part of what is shown.
    assert_eq!(MODELS[0].world(N, 0).delays, Delays::Far);
    let runs: Vec<_> = Retrying::ALL
        .into_iter()
        .flat_map(|retrying| (0..RUNS).map(move |seed| (retrying, seed)))
        .collect();
    let noted = in_parallel(&runs, |&(retrying, seed)| run(retrying, seed));
    let course = |(retrying, noted): (Retrying, &[Noted])| {
        let mut course = Course {
            retrying,
            attempts: vec![0.0; SECONDS],
            successes: vec![0.0; SECONDS],
            lost: vec![0.0; SECONDS],
        };
        let count = |seconds: &mut Vec<f64>, at: f64| {
            if let Some(second) = seconds.get_mut(at as usize) {
                *second += 1.0 / RUNS as f64;
            }
        };
        for (attempts, ended) in noted {
            for &at in attempts {
                count(&mut course.attempts, at);
            }
            for &(asked, ended, succeeded) in ended {
                if succeeded {
                    count(&mut course.successes, ended);
                } else {
                    count(&mut course.lost, asked);
                }
            }
        }
        course
    };
    let noted = noted.chunks(RUNS as usize);
    Retrying::ALL.into_iter().zip(noted).map(course).collect()
}

pub(crate) fn print(courses: &[Course]) {
    let title = "a 60 s outage, 600 requests asked for";
    let columns = [
        "attempts for each of them",
        "most in 1 s",
        "back to 95 % after",
        "lost",
    ];
    let mut table = Table::new(title, &columns);
    for course in courses {
        let cells = [
            cell(course.amplification()),
            format!("{} times", cell(course.peak())),
            format!("{} s", course.recovery()),
            cell(course.lost()),
        ];
        table.row(course.retrying.title(), cells);
    }
    table.print();
}
