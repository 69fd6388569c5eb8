//! Nothing is measured before that is asked for. In a process of its own: it is asked for in the whole of it.
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by a panic"
)]

#[allow(dead_code, reason = "its recorder begins to measure at once")]
#[path = "observability/recording.rs"]
mod recording;
#[allow(dead_code, reason = "only some of a scrape is looked at")]
#[path = "observability/scrape.rs"]
mod scrape;

use std::time::Duration;

use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::time;
use tower::{Layer, ServiceExt};
use tower_ploton::{
    PlotonAuth, PlotonIdempotency, PlotonRetry,
    metrics::{BUCKETS, start},
    mock::FakePloton,
};
use tower_ploton_sdks::{KEY, create, key};

use self::{recording::everything, scrape::Scrape};

const PLOTON: &str = "https://api.ploton.ai";

#[tokio::test(start_paused = true)]
async fn nothing_is_measured_before_the_start_nor_what_began_before_it() {
    let builder = PrometheusBuilder::new().set_buckets(BUCKETS).unwrap();
    let recorder = builder.build_recorder();
    let text = recorder.handle();
    let _guard = metrics::set_default_local_recorder(&recorder);
    everything().await;
    assert_eq!(text.render(), "");

    let fake = FakePloton::new().latency(Duration::from_secs(2));
    // Without a rate limit, so that both are on their way at once.
    let network = PlotonAuth::new(key()).layer(fake);
    let service = PlotonIdempotency::new().layer(PlotonRetry::new().layer(network));
    let call = |name: &str| tokio::spawn(service.clone().oneshot(create(PLOTON, name)));
    let before = call("one");
    time::sleep(Duration::from_secs(1)).await;
    assert_eq!(text.render(), "");
    start();
    let after = call("two");
    time::sleep(Duration::from_millis(500)).await;
    let scrape = || Scrape::read(&text.render());
    let in_flight = "ploton_requests_in_flight";
    assert_eq!(scrape().sum(in_flight, &[]), 1.0);
    // Only its end would show that it is taken off without having been put on.
    before.await.unwrap().unwrap();
    assert_eq!(scrape().sum(in_flight, &[]), 1.0);
    after.await.unwrap().unwrap();
    assert_eq!(scrape().sum(in_flight, &[]), 0.0);
    for counted in ["ploton_requests_total", "ploton_attempts_total"] {
        assert_eq!(
            scrape().sum(counted, &[("result", "201")]),
            1.0,
            "{counted}"
        );
        assert_eq!(scrape().sum(counted, &[]), 1.0, "{counted}");
    }
}
