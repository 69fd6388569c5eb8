//! What came of it, counted at the server.

use std::{collections::HashSet, fmt};

use http::Method;
use tower_ploton::mock::Counts;

use crate::{
    load::{Answered, RATE},
    weather::Weather,
};

pub(crate) struct Summary {
    /// Requests a second that the plan allows.
    plan: u64,
    submitted: u64,
    told: usize,
    failed: u64,
    counts: Counts,
    /// Attempts of ours that reached the server; the neighbour's are GETs.
    attempts: usize,
    /// The same by the metrics.
    attempts_measured: f64,
    retries: f64,
    refused: f64,
    /// Tasks that a caller was told of and the server does not have.
    unknown: usize,
}

impl Summary {
    pub(crate) fn of(answered: &Answered, weather: &Weather, metrics: &str) -> Self {
        let fake = weather.fake();
        let attempts = fake.attempts();
        let posts = attempts
            .iter()
            .filter(|attempt| attempt.method == Method::POST);
        let created: HashSet<String> = fake.tasks().into_iter().map(|task| task.id).collect();
        Self {
            plan: weather.plan_a_second(),
            submitted: answered.submitted,
            told: answered.tasks.len(),
            failed: answered.failed,
            counts: fake.counts(),
            attempts: posts.count(),
            attempts_measured: total(metrics, "ploton_attempts_total"),
            retries: total(metrics, "ploton_retries_total"),
            refused: total(metrics, "ploton_rate_limit_refused_total"),
            unknown: answered.tasks.difference(&created).count(),
        }
    }

    /// Whether nothing was created twice, and each caller was told the truth.
    pub(crate) fn holds(&self) -> bool {
        let told = u64::try_from(self.told).unwrap_or(u64::MAX);
        let created = self.counts.created;
        self.counts.duplicated == 0
            && self.unknown == 0
            && self.submitted > 0
            && told.saturating_add(self.failed) == self.submitted
            && (told..=self.submitted).contains(&created)
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (plan, spare) = (self.plan, self.plan.saturating_sub(RATE));
        writeln!(
            f,
            "Who waits in the last calm waits behind what the bad spells left: of the plan's {plan} requests a second the load takes {RATE}, and {spare} are for the queue.\n",
        )?;
        let lines = [
            ("tasks.submitted", self.submitted.to_string()),
            ("tasks.created", self.counts.created.to_string()),
            ("tasks.duplicated", self.counts.duplicated.to_string()),
            ("answers.well", self.told.to_string()),
            ("answers.failed", self.failed.to_string()),
            ("attempts", self.attempts.to_string()),
            ("attempts.measured", self.attempts_measured.to_string()),
            ("retries.measured", self.retries.to_string()),
            ("refused.measured", self.refused.to_string()),
            ("server.failed", self.counts.failed.to_string()),
            ("server.cut", self.counts.cut.to_string()),
            ("server.replayed", self.counts.replayed.to_string()),
        ];
        let lines = lines.map(|(name, value)| format!("{name} = {value}"));
        f.write_str(&lines.join("\n"))
    }
}

/// The sum of all samples of a metric in a scrape's text.
pub(crate) fn total(text: &str, name: &str) -> f64 {
    let values = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let is_it = rest.starts_with(['{', ' ']);
        let (_, value) = rest.rsplit_once(' ').filter(|_| is_it)?;
        value.parse::<f64>().ok()
    });
    // The sum of nothing is -0.
    values.sum::<f64>() + 0.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_total_is_that_of_one_metric_over_all_labels() {
        let text = "# TYPE a counter\na{b=\"c\"} 2\na{b=\"d e\"} 3\n\na_total 9\nb 1\n";
        assert_eq!(total(text, "a"), 5.0);
        assert_eq!(total(text, "b"), 1.0);
        assert_eq!(total(text, "c"), 0.0);
    }
}
