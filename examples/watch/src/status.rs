//! A line a second.

use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::time::{Instant, interval_at};
use tower_ploton::{RateLimitHandle, limit::RateLimitSnapshot, retry::RetryHandle};

use crate::{summary::total, weather::Weather};

pub(crate) struct Status {
    weather: Weather,
    limit: RateLimitHandle,
    quota: RetryHandle,
    metrics: PrometheusHandle,
}

impl Status {
    pub(crate) const fn new(
        weather: Weather,
        limit: RateLimitHandle,
        quota: RetryHandle,
        metrics: PrometheusHandle,
    ) -> Self {
        Self {
            weather,
            limit,
            quota,
            metrics,
        }
    }

    /// Prints until it is dropped.
    pub(crate) async fn print(self, start: Instant) {
        let mut ticks = interval_at(start + SECOND, SECOND);
        let (mut attempts, mut at) = (0.0, start);
        loop {
            ticks.tick().await;
            // What is left of the plan changes by time alone.
            self.limit.publish();
            let text = self.metrics.render();
            let now = Instant::now();
            let (before, since) = (attempts, at);
            (attempts, at) = (total(&text, "ploton_attempts_total"), now);
            let rate = (attempts - before) / now.saturating_duration_since(since).as_secs_f64();
            let limit = self.limit.snapshot();
            println!(
                "{:>4} s  {:<10}  {rate:>4.1} attempts/s  {:>2} of {} tokens  {:>3} waiting  {:<18}  {:>3} retries  quota {:>3}",
                now.saturating_duration_since(start).as_secs(),
                self.weather.spell(),
                limit.remaining,
                limit.limit,
                limit.waiting,
                held(&limit, now),
                total(&text, "ploton_retries_total"),
                self.quota.quota_left(),
            );
        }
    }
}

/// The pause, or the rule that holds the queue.
fn held(limit: &RateLimitSnapshot, now: Instant) -> String {
    let pause = limit
        .paused_until
        .map(|until| until.saturating_duration_since(now).as_secs_f64());
    match (pause, limit.held_by) {
        (Some(left), _) => format!("paused {left:.1} s"),
        (None, Some(rule)) if limit.waiting > 0 => rule.to_string(),
        _ => String::new(),
    }
}

const SECOND: Duration = Duration::from_secs(1);
