//! How far it is, and why it waits.

use std::{
    collections::VecDeque,
    error::Error,
    fmt::{self, Write as _},
    io::{self, IsTerminal as _},
    iter,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::{Instant, sleep};
use tower_ploton::{RateLimitHandle, TaskLimitHandle, api::TaskStatus};

/// What became of the lines; and the bar, or the plain lines, that show it.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Lines that are tasks.
    pub(crate) total: u64,
    pub(crate) bad: u64,
    created: AtomicU64,
    earlier: AtomicU64,
    failed: AtomicU64,
    unknown: AtomicU64,
    complete: AtomicU64,
    ended_otherwise: AtomicU64,
    /// `None` where nobody looks.
    bar: Option<ProgressBar>,
}

impl Progress {
    pub(crate) fn new(total: u64, bad: u64) -> Self {
        let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}").ok();
        let style = style.filter(|_| io::stderr().is_terminal());
        Self {
            total,
            bad,
            bar: style.map(|style| ProgressBar::new(total).with_style(style)),
            ..Self::default()
        }
    }

    pub(crate) fn created(&self) {
        self.created.fetch_add(1, Ordering::Relaxed);
    }

    /// It has its task from an earlier run.
    pub(crate) fn earlier(&self) {
        self.earlier.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn failed(&self, number: u64, why: &str) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        self.say(&format!("line {number}: {why}"));
    }

    pub(crate) fn unknown(&self, number: u64, sent: &str) {
        self.unknown.fetch_add(1, Ordering::Relaxed);
        self.say(&format!(
            "line {number}: sent at {sent} and without an answer: the server does not know its key any more, so nobody \
             knows whether it was created. Look, then send it with --force"
        ));
    }

    pub(crate) fn ended(&self, status: &TaskStatus) {
        let count = match status {
            TaskStatus::Complete => &self.complete,
            _ => &self.ended_otherwise,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => eprintln!("{text}"),
        }
    }

    /// Shows how far it is until it is dropped.
    pub(crate) async fn show(&self, slots: TaskLimitHandle, rate: RateLimitHandle) {
        let pause = if self.bar.is_some() { BAR } else { PLAIN };
        // What was created by when, within the last minute.
        let mut history = VecDeque::from([(Instant::now(), 0)]);
        loop {
            sleep(pause).await;
            let (now, created) = (Instant::now(), self.created.load(Ordering::Relaxed));
            history.push_back((now, created));
            let is_old = |then: &(Instant, u64)| now - then.0 > Duration::from_secs(60);
            while history.len() > 2 && history.front().is_some_and(is_old) {
                history.pop_front();
            }
            let (since, before) = history.front().copied().unwrap_or((now, created));
            let seconds = (now - since).as_secs_f64();
            let text = self.line(created, (created - before) as f64 / seconds, &slots, &rate);
            match &self.bar {
                Some(bar) => {
                    bar.set_position(self.done());
                    bar.set_message(text);
                }
                None => eprintln!("{}/{} {text}", self.done(), self.total),
            }
        }
    }

    /// Lines that need no more.
    fn done(&self) -> u64 {
        let counts = [&self.created, &self.earlier, &self.failed, &self.unknown];
        counts
            .iter()
            .map(|count| count.load(Ordering::Relaxed))
            .sum()
    }

    fn line(
        &self,
        created: u64,
        rate: f64,
        slots: &TaskLimitHandle,
        limit: &RateLimitHandle,
    ) -> String {
        let mut text = format!("created {created}, {:.0} a minute", rate * 60.0);
        let (slots, limit) = (slots.snapshot(), limit.snapshot());
        if slots.waiting > 0 && slots.running >= slots.capacity as usize {
            let _ = write!(text, ", waiting: {} tasks run", slots.running);
        } else if let Some(rule) = limit.held_by.filter(|_| limit.waiting > 0) {
            let _ = write!(text, ", waiting for the rate limit: {rule}");
        }
        let left = self.total.saturating_sub(self.done());
        if rate > 0.0 && left > 0 {
            let seconds = Duration::from_secs((left as f64 / rate) as u64);
            let _ = write!(text, ", ETA {}", humantime::format_duration(seconds));
        }
        text
    }

    pub(crate) fn summary(&self, interrupted: bool) -> Summary {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Summary {
            lines: self.total + self.bad,
            created: count(&self.created),
            earlier: count(&self.earlier),
            failed: count(&self.failed),
            unknown: count(&self.unknown),
            bad: self.bad,
            // Fewer than none where the file grew meanwhile.
            left: self.total.saturating_sub(self.done()),
            complete: count(&self.complete),
            ended_otherwise: count(&self.ended_otherwise),
            interrupted,
        }
    }
}

/// What became of the lines in the end.
#[derive(Debug)]
pub(crate) struct Summary {
    lines: u64,
    created: u64,
    earlier: u64,
    failed: u64,
    unknown: u64,
    bad: u64,
    left: u64,
    complete: u64,
    ended_otherwise: u64,
    pub(crate) interrupted: bool,
}

impl Summary {
    /// Whether every line has its task.
    pub(crate) const fn is_complete(&self) -> bool {
        self.created + self.earlier == self.lines
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.interrupted {
            writeln!(f, "Stopped. The same command goes on from here.")?;
        }
        if self.complete + self.ended_otherwise > 0 {
            writeln!(f, "tasks.complete = {}", self.complete)?;
            writeln!(f, "tasks.failed_or_cancelled = {}", self.ended_otherwise)?;
        }
        writeln!(f, "lines = {}", self.lines)?;
        writeln!(f, "created = {}", self.created)?;
        writeln!(f, "created.earlier = {}", self.earlier)?;
        writeln!(f, "failed = {}", self.failed)?;
        writeln!(f, "unknown = {}", self.unknown)?;
        writeln!(f, "bad = {}", self.bad)?;
        write!(f, "left = {}", self.left)
    }
}

/// An error and what it comes from, in one line.
pub(crate) fn story(error: &(dyn Error + 'static)) -> String {
    let causes = iter::successors(Some(error), |&error| error.source());
    let causes: Vec<String> = causes.map(ToString::to_string).collect();
    causes.join(": ")
}

const BAR: Duration = Duration::from_millis(200);
const PLAIN: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_grew_leaves_no_lines_and_no_panic() {
        let progress = Progress::new(1, 0);
        progress.created();
        progress.created();
        assert_eq!(progress.summary(false).left, 0);
    }
}
