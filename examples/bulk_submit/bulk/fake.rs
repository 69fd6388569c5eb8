//! A Ploton on a loopback port, to try the program without a key.

use std::time::Duration;

use http::StatusCode;
use tower::BoxError;
use tower_ploton::{
    ApiKey, BaseUrl,
    mock::{FakePloton, FakeServer, Fault},
};

use super::args::Options;

pub(crate) struct Fake {
    fake: FakePloton,
    /// It serves until it is dropped.
    _server: FakeServer,
}

/// Where there is no key: a fake with the plan's limits, whose tasks run for two seconds, which fails now and then.
pub(crate) async fn instead(options: Options) -> Result<(Options, Option<Fake>), BoxError> {
    if options.key.is_some() {
        return Ok((options, None));
    }
    let fake = FakePloton::new()
        .accept_key(KEY)
        .plan(options.plan)
        .task_duration(Duration::from_secs(2))
        .fault_rate(Fault::Status(StatusCode::INTERNAL_SERVER_ERROR), 0.03)
        .fault_rate(Fault::CutAfter, 0.03);
    let server = fake.listen().await?;
    let options = Options {
        base_url: BaseUrl::parse(&format!("{}/v1", server.url()))?,
        key: Some(ApiKey::parse(KEY)?),
        ..options
    };
    let fake = Fake {
        fake,
        _server: server,
    };
    Ok((options, Some(fake)))
}

impl Fake {
    pub(crate) fn report(&self) {
        let counts = self.fake.counts();
        println!(
            "The fake has {} tasks, {} of them twice. {} requests reached it: it failed {} and cut {}.",
            counts.created, counts.duplicated, counts.attempts, counts.failed, counts.cut
        );
    }
}

const KEY: &str = "pk_test_4f9d0c2b7a6e1583";
