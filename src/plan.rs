//! What an account may do: requests a minute and concurrent tasks.

use std::{fmt, num::NonZeroU32};

/// The plan of a Ploton account: how many requests a minute it may send, and how many tasks may run at once.
///
/// # Example
///
/// ```
/// use std::num::NonZeroU32;
/// use tower_ploton::Plan;
///
/// assert_eq!(Plan::Production.requests_per_minute().get(), 1_000);
///
/// let ours = Plan::Enterprise {
///     requests_per_minute: NonZeroU32::new(6_000).unwrap(),
///     concurrent_tasks: NonZeroU32::new(400).unwrap(),
/// };
/// assert_eq!(ours.concurrent_tasks().get(), 400);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Plan {
    /// The free plan: 100 requests a minute, 10 concurrent tasks.
    Prototyping,
    /// 1,000 requests a minute, 100 concurrent tasks.
    Production,
    /// What a contract says.
    Enterprise {
        /// Requests a minute.
        requests_per_minute: NonZeroU32,
        /// Tasks that may run at once.
        concurrent_tasks: NonZeroU32,
    },
}

impl Plan {
    /// Requests a minute.
    #[must_use]
    pub const fn requests_per_minute(self) -> NonZeroU32 {
        match self {
            Self::Prototyping => HUNDRED,
            Self::Production => THOUSAND,
            Self::Enterprise {
                requests_per_minute,
                ..
            } => requests_per_minute,
        }
    }

    /// Tasks that may run at once.
    #[must_use]
    pub const fn concurrent_tasks(self) -> NonZeroU32 {
        match self {
            Self::Prototyping => TEN,
            Self::Production => HUNDRED,
            Self::Enterprise {
                concurrent_tasks, ..
            } => concurrent_tasks,
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Prototyping => "prototyping",
            Self::Production => "production",
            Self::Enterprise { .. } => "enterprise",
        })
    }
}

const TEN: NonZeroU32 = NonZeroU32::MIN.saturating_add(9);
const HUNDRED: NonZeroU32 = NonZeroU32::MIN.saturating_add(99);
const THOUSAND: NonZeroU32 = NonZeroU32::MIN.saturating_add(999);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plans_are_those_of_the_api_page() {
        let table = [(Plan::Prototyping, 100, 10), (Plan::Production, 1_000, 100)];
        for (plan, requests, tasks) in table {
            assert_eq!(plan.requests_per_minute().get(), requests);
            assert_eq!(plan.concurrent_tasks().get(), tasks);
        }
    }
}
