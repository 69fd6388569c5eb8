//! The workers, as their parent sees them.

use std::{
    collections::BTreeSet,
    env,
    io::{self, BufRead, BufReader},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, Sender, channel},
    thread,
};

use tower_ploton::redis::Scope;

/// Where they find what they need.
pub(crate) struct Addresses {
    pub(crate) ploton: String,
    pub(crate) redis: String,
    pub(crate) scope: Scope,
}

pub(crate) struct Workers {
    addresses: Addresses,
    workers: Vec<Worker>,
    told: Receiver<(usize, String)>,
    tell: Sender<(usize, String)>,
    pub(crate) failures: Vec<String>,
}

/// Its process ends with this value.
#[derive(Default)]
struct Worker {
    process: Option<(Child, Option<ChildStdin>)>,
    done: BTreeSet<u64>,
    reaches_redis: bool,
}

impl Workers {
    pub(crate) fn start(addresses: Addresses, count: u32) -> io::Result<Self> {
        let (tell, told) = channel();
        let mut workers = Self {
            addresses,
            workers: (0..count).map(|_| Worker::default()).collect(),
            told,
            tell,
            failures: Vec::new(),
        };
        for index in 0..workers.workers.len() {
            workers.start_one(index)?;
        }
        Ok(workers)
    }

    /// Starts one, or starts it again, from the first job on that it did not say to be done. What it had begun is begun again.
    pub(crate) fn start_one(&mut self, index: usize) -> io::Result<()> {
        let Some(worker) = self.workers.get_mut(index) else {
            return Ok(());
        };
        let mut jobs = 0_u64..;
        let first = jobs.find(|job| !worker.done.contains(job));
        let mut child = this_program()?
            .arg("worker")
            .args(["--number", &(index + 1).to_string()])
            .args(["--first", &first.unwrap_or_default().to_string()])
            .args(["--ploton", &self.addresses.ploton])
            .args(["--redis", &self.addresses.redis])
            .args(["--scope", self.addresses.scope.as_str()])
            .stdout(Stdio::piped())
            .spawn()?;
        if let Some(out) = child.stdout.take() {
            let tell = self.tell.clone();
            thread::spawn(move || {
                for line in BufReader::new(out).lines().map_while(Result::ok) {
                    let _ = tell.send((index, line));
                }
            });
        }
        let input = child.stdin.take();
        worker.process = Some((child, input));
        Ok(())
    }

    /// SIGKILL: it has no chance to finish anything.
    pub(crate) fn kill(&mut self, index: usize) {
        if let Some(worker) = self.workers.get_mut(index) {
            worker.end();
        }
    }

    /// Lets them finish what they began.
    pub(crate) fn stop(&mut self) {
        for (_, input) in self
            .workers
            .iter_mut()
            .filter_map(|one| one.process.as_mut())
        {
            *input = None;
        }
    }

    /// How many run.
    pub(crate) fn running(&mut self) -> usize {
        let processes = self
            .workers
            .iter_mut()
            .filter_map(|one| one.process.as_mut());
        processes
            .filter_map(|(child, _)| child.try_wait().ok())
            .filter(Option::is_none)
            .count()
    }

    /// How many said last that Redis answers.
    pub(crate) fn reaching_redis(&self) -> usize {
        self.workers
            .iter()
            .filter(|worker| worker.reaches_redis)
            .count()
    }

    /// Jobs that were said to be done.
    pub(crate) fn done(&self) -> usize {
        self.workers.iter().map(|worker| worker.done.len()).sum()
    }

    pub(crate) fn listen(&mut self) {
        while let Ok((index, line)) = self.told.try_recv() {
            let Some(worker) = self.workers.get_mut(index) else {
                continue;
            };
            match line.split_once(' ') {
                Some(("done", job)) => worker.done.extend(job.parse::<u64>()),
                Some(("store", state)) => worker.reaches_redis = state == "here",
                _ => self.failures.push(format!("worker {}: {line}", index + 1)),
            }
        }
    }
}

impl Worker {
    fn end(&mut self) {
        if let Some((mut child, _)) = self.process.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        self.reaches_redis = false;
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.end();
    }
}

/// This program, to be run as a child that is told by the end of its standard input to end.
pub(crate) fn this_program() -> io::Result<Command> {
    let mut command = Command::new(env::current_exe()?);
    // Ctrl-C is for the parent alone, which ends the others in order.
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    command.stdin(Stdio::piped());
    Ok(command)
}
