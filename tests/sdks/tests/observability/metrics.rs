//! Metrics, as a scrape shows them.

use std::{
    collections::BTreeSet, convert::Infallible, fs, future, net::Ipv4Addr, path::Path,
    time::Duration, time::SystemTime,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::{
    net::TcpListener,
    time::{self, Instant},
};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_ploton::{
    Deadline, Origin, Plan, PlotonIdempotency, PlotonRateLimit, PlotonRetry, PlotonStack,
    metrics::{ALL, BUCKETS, Metric},
    mock::{FakePloton, Fault},
};

use crate::{
    PLOTON, SECRET, create, key,
    recording::{Recording, everything},
    scrape::Scrape,
};

fn stack() -> PlotonStack {
    PlotonStack::new(key(), Plan::Production)
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[tokio::test(start_paused = true)]
async fn each_metric_is_in_a_scrape_with_its_kind_its_labels_and_its_description() {
    let recording = Recording::start();
    everything().await;
    let scrape = recording.scrape();
    for &Metric {
        name,
        kind,
        labels,
        description,
        ..
    } in ALL
    {
        let expected = format!("{kind:?}").to_lowercase();
        let found = scrape.types.get(name).map(String::as_str);
        assert_eq!(found, Some(&*expected), "{name}");
        assert_eq!(scrape.help[name], description, "{name}");
        let labels: BTreeSet<&str> = labels.iter().copied().collect();
        for sample in &scrape.samples {
            if scrape.metric(&sample.name) == name {
                let own = sample.labels.keys().map(String::as_str);
                let own: BTreeSet<_> = own.filter(|label| *label != "le").collect();
                assert_eq!(own, labels, "{sample:?}");
            }
        }
    }
    let known: BTreeSet<_> = ALL.iter().map(|metric| metric.name).collect();
    let found: BTreeSet<_> = scrape.types.keys().map(String::as_str).collect();
    assert_eq!(found, known, "nothing is recorded that is not described");
}

/// `_total` and `_seconds` are what Prometheus asks for, whether or not the exporter sees to that itself.
#[tokio::test(start_paused = true)]
async fn the_names_are_as_prometheus_recommends() {
    let builder = PrometheusBuilder::new().set_buckets(BUCKETS).unwrap();
    let builder = builder.with_recommended_naming(true);
    let recording = Recording::of(builder.build_recorder());
    everything().await;
    let scrape = recording.scrape();
    let known: BTreeSet<_> = ALL.iter().map(|metric| metric.name).collect();
    let found: BTreeSet<_> = scrape.types.keys().map(String::as_str).collect();
    assert_eq!(found, known);
}

#[tokio::test(start_paused = true)]
async fn what_a_troubled_request_did_is_counted() {
    let recording = Recording::start();
    let fake = FakePloton::new();
    fake.fail_next(Fault::CutAfter);
    fake.fail_next(Fault::RateLimited {
        retry_after: Some(secs(12)),
    });
    let service = stack().layer(fake.clone());
    let response = service.oneshot(create(PLOTON, "one")).await.unwrap();
    assert_eq!(response.status(), StatusCode::CREATED);
    let scrape = recording.scrape();
    let sum = |name: &str, labels: &[(&str, &str)]| scrape.sum(name, labels);

    let post = ("method", "POST");
    let requests = "ploton_requests_total";
    assert_eq!(sum(requests, &[post, ("result", "201")]), 1.0);
    assert_eq!(sum(requests, &[]), 1.0);
    let attempts = "ploton_attempts_total";
    for result in ["connection_reset", "429", "201"] {
        let counted = sum(attempts, &[post, ("result", result)]);
        assert_eq!(counted, 1.0, "{result}");
    }
    assert_eq!(sum(attempts, &[]), 3.0);
    let retries = "ploton_retries_total";
    assert_eq!(sum(retries, &[("reason", "ambiguous")]), 1.0);
    assert_eq!(sum(retries, &[("reason", "refused")]), 1.0);
    assert_eq!(sum("ploton_rate_limit_refused_total", &[]), 1.0);
    let pauses = sum("ploton_rate_limit_pauses_total", &[("reason", "429")]);
    assert_eq!(pauses, 1.0);
    assert_eq!(sum("ploton_idempotency_keys_created_total", &[]), 1.0);
    assert_eq!(sum("ploton_requests_in_flight", &[]), 0.0);
    assert_eq!(sum("ploton_rate_limit_in_flight", &[]), 0.0);
    assert_eq!(sum("ploton_rate_limit_limit", &[]), 1_000.0);
    // Each attempt is a wait, of the last one for the end of the pause.
    let waits = "ploton_rate_limit_wait_seconds";
    assert_eq!(sum(&format!("{waits}_count"), &[]), 3.0);
    // Seconds, and not milliseconds: the request took a little more than its hint.
    let took = sum("ploton_request_duration_seconds_sum", &[post]);
    assert!((12.0..20.0).contains(&took), "{took}");
    let bucket = |le| {
        sum(
            "ploton_request_duration_seconds_bucket",
            &[post, ("le", le)],
        )
    };
    assert_eq!(
        (bucket("10"), bucket("20"), bucket("+Inf")),
        (0.0, 1.0, 1.0)
    );
    let delays = sum("ploton_retry_delay_seconds_sum", &[]);
    assert!((12.0..20.0).contains(&delays), "{delays}");
    assert_eq!(sum("ploton_attempt_duration_seconds_count", &[post]), 3.0);
    // 14 and 5, of which the last retry got its own back.
    assert_eq!(sum("ploton_retry_quota_left", &[]), 500.0 - 14.0);
    assert_eq!(sum("ploton_retry_quota_capacity", &[]), 500.0);
}

#[allow(clippy::disallowed_methods, reason = "the layer reads it too")]
fn since_1970() -> f64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.unwrap().as_secs_f64()
}

#[tokio::test(start_paused = true)]
async fn gauges_show_who_waits_and_until_when() {
    let recording = Recording::start();
    let stack = stack();
    let handle = stack.rate_limit_handle();
    let service = stack.layer(FakePloton::new().latency(secs(1)));
    let wall = since_1970();
    handle.pause_until(Instant::now() + secs(30));
    let calls: Vec<_> = (0..5)
        .map(|n| tokio::spawn(service.clone().oneshot(create(PLOTON, &n.to_string()))))
        .collect();
    time::sleep(secs(10)).await;
    let until = recording.scrape();
    let until = until.sum("ploton_rate_limit_paused_until_timestamp_seconds", &[]);
    // The layer read the clock a little earlier.
    let in_pause = until - wall;
    assert!((20.0..60.0).contains(&in_pause), "{in_pause}");
    assert_eq!(
        recording.scrape().sum("ploton_rate_limit_waiting", &[]),
        5.0
    );
    // The first after a pause goes alone.
    time::sleep(Duration::from_millis(20_500)).await;
    let scrape = recording.scrape();
    assert_eq!(scrape.sum("ploton_rate_limit_waiting", &[]), 4.0);
    assert_eq!(scrape.sum("ploton_rate_limit_in_flight", &[]), 1.0);
    assert_eq!(scrape.sum("ploton_requests_in_flight", &[]), 1.0);
    for call in calls {
        call.await.unwrap().unwrap();
    }
    let scrape = recording.scrape();
    let waiting = scrape.sum("ploton_rate_limit_waiting", &[]);
    assert_eq!(waiting, 0.0);
    let paused = "ploton_rate_limit_wait_seconds_count";
    let paused = scrape.sum(paused, &[("rule", "paused")]);
    assert!(paused >= 1.0, "{scrape:?}");
    assert_eq!(scrape.sum("ploton_rate_limit_remaining", &[]), 995.0);
    // Time alone brings it back: nobody tells the gauge of that but this.
    time::sleep(secs(120)).await;
    let before = recording.scrape().sum("ploton_rate_limit_remaining", &[]);
    assert_eq!(before, 995.0);
    handle.publish();
    let after = recording.scrape().sum("ploton_rate_limit_remaining", &[]);
    assert_eq!(after, 1_000.0);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_dropped_or_late_is_counted_as_that() {
    let recording = Recording::start();
    let fake = FakePloton::new();
    fake.fail_next(Fault::Hang);
    let service = stack().layer(fake.clone());
    let call = service.clone().oneshot(create(PLOTON, "one"));
    assert!(time::timeout(secs(1), call).await.is_err());
    fake.fail_next(Fault::Hang);
    let mut late = create(PLOTON, "two");
    late.extensions_mut()
        .insert(Deadline(Instant::now() + secs(5)));
    assert!(service.oneshot(late).await.is_err());
    let scrape = recording.scrape();
    for result in ["cancelled", "deadline"] {
        let counted = scrape.sum("ploton_requests_total", &[("result", result)]);
        assert_eq!(counted, 1.0, "{result}");
    }
    assert_eq!(scrape.sum("ploton_requests_in_flight", &[]), 0.0);
}

#[tokio::test(start_paused = true)]
async fn why_requests_were_not_sent_again_or_not_at_all_is_counted() {
    let recording = Recording::start();
    let fake = || FakePloton::new().fault_rate(Fault::Status(StatusCode::BAD_GATEWAY), 1.0);
    let retry = PlotonRetry::new();
    for retry in [retry.clone(), retry.quota(20)] {
        let service = PlotonIdempotency::new().layer(retry.layer(fake()));
        service.oneshot(create(PLOTON, "one")).await.unwrap();
    }
    let scrape = recording.scrape();
    let given_up = |reason| scrape.sum("ploton_retries_given_up_total", &[("reason", reason)]);
    assert_eq!((given_up("attempts"), given_up("quota")), (1.0, 1.0));

    for (bounded, soon, reason) in [
        (
            PlotonRateLimit::new(Plan::Production).max_wait(secs(1)),
            false,
            "max_wait",
        ),
        (
            PlotonRateLimit::new(Plan::Production).max_waiting(0),
            false,
            "queue_full",
        ),
        (PlotonRateLimit::new(Plan::Production), true, "deadline"),
    ] {
        bounded.handle().pause_until(Instant::now() + secs(30));
        let mut service = bounded.layer(FakePloton::new());
        let mut request = create(PLOTON, "one");
        if soon {
            let deadline = Deadline(Instant::now() + secs(5));
            request.extensions_mut().insert(deadline);
        }
        // Called without its turn, since there is no deadline in `poll_ready`.
        if !soon {
            let ready = ServiceExt::<Request<Full<Bytes>>>::ready(&mut service);
            ready.await.unwrap();
        }
        assert!(service.call(request).await.is_err());
        let rejected = recording.scrape();
        let rejected = rejected.sum("ploton_rate_limit_rejected_total", &[("reason", reason)]);
        assert_eq!(rejected, 1.0, "{reason}");
    }
}

/// A server makes up statuses, a caller methods, paths and hosts: none of that makes a series more than there are names for.
#[tokio::test(start_paused = true)]
async fn nobody_can_make_ever_more_series_and_none_holds_a_secret() {
    let recording = Recording::start();
    let retry = PlotonRetry::new().quota(u32::MAX);
    let service = PlotonStack::new(key(), Plan::Production).retry(retry);
    let fake = FakePloton::new();
    let created = service.layer(fake.clone());
    created.oneshot(create(PLOTON, "hush")).await.unwrap();
    for status in 100..=999 {
        let server = service_fn(move |_: Request<String>| {
            let answer = Response::builder().status(status).body(String::new());
            future::ready(Ok::<_, Infallible>(answer.unwrap()))
        });
        let retry = PlotonRetry::new().attempts(1);
        let mut request = Request::new(String::new());
        *request.uri_mut() = format!("https://host{status}.example/v1/tasks/task_{status}")
            .parse()
            .unwrap();
        *request.method_mut() = format!("M{status}").parse().unwrap();
        retry.layer(server).oneshot(request).await.unwrap();
    }
    let scrape = recording.scrape();
    let count = |name| {
        let series = scrape.samples.iter().filter(|sample| sample.name == name);
        series.count()
    };
    assert_eq!(scrape.sum("ploton_requests_total", &[]), 901.0);
    assert!(count("ploton_requests_total") < 80);
    assert!(count("ploton_attempts_total") < 80);
    assert_eq!(count("ploton_request_duration_seconds_sum"), 2);
    let shown = recording.text.render();
    let id = fake.attempts()[0].idempotency_key.clone().unwrap();
    for secret in [
        SECRET,
        &id,
        "task_",
        "/v1",
        "host1",
        "M100",
        "hush",
        "ploton.ai",
    ] {
        assert!(!shown.contains(secret), "{secret}");
    }
}

/// The exporter's own server, over a socket, while requests go over others.
#[tokio::test]
async fn a_scrape_on_loopback_shows_what_the_server_counted() {
    // The exporter wants an address: one that is free now may be taken a moment later.
    let mut tries = 0;
    let (recording, exporter, addr) = loop {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let addr = free.local_addr().unwrap();
        drop(free);
        let builder = PrometheusBuilder::new().with_http_listener(addr);
        match builder.set_buckets(BUCKETS).unwrap().build() {
            Ok((recorder, exporter)) => break (Recording::of(recorder), exporter, addr),
            Err(error) => assert!(tries < 20, "{error}"),
        }
        tries += 1;
    };
    let exporter = tokio::spawn(exporter);

    let fake = FakePloton::new()
        .fault_rate(Fault::Status(StatusCode::BAD_GATEWAY), 0.2)
        .fault_rate(Fault::CutAfter, 0.1)
        .seed(3);
    let server = fake.listen().await.unwrap();
    let origin = Origin::parse(&server.url()).unwrap();
    let retry = PlotonRetry::new()
        .attempts(20)
        .base_delay(Duration::from_millis(1));
    let client = Client::builder(TokioExecutor::new()).build_http();
    let service = stack().retry(retry).origin(origin).layer(client);
    for n in 0..20 {
        let request = create(&server.url(), &n.to_string());
        let response = service.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::CREATED);
    }

    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    let url = format!("http://{addr}/metrics").parse().unwrap();
    let response = client.get(url).await.unwrap();
    let kind = response.headers()["content-type"].to_str().unwrap();
    assert!(kind.starts_with("text/plain"), "{kind}");
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let scrape = Scrape::read(std::str::from_utf8(&body).unwrap());
    exporter.abort();

    let counts = fake.counts();
    let attempts = counts.attempts as f64;
    assert_eq!(scrape.sum("ploton_attempts_total", &[]), attempts);
    let failed = scrape.sum("ploton_attempts_total", &[("result", "502")]);
    assert_eq!(failed, counts.failed as f64);
    assert_eq!(scrape.sum("ploton_retries_total", &[]), attempts - 20.0);
    let created = scrape.sum("ploton_requests_total", &[("result", "201")]);
    assert_eq!((created, counts.created), (20.0, 20));
    assert!(counts.failed > 0 && counts.cut > 0, "{counts:?}");
    drop(recording);
}

/// The table in the documents is what there is.
#[test]
fn the_documents_name_each_metric() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/observability.md");
    let docs = fs::read_to_string(docs).unwrap();
    let rows: Vec<_> = docs
        .lines()
        .filter(|line| line.starts_with("| `ploton_"))
        .collect();
    let expected: Vec<_> = ALL
        .iter()
        .map(|metric| {
            let kind = format!("{:?}", metric.kind).to_lowercase();
            let labels: Vec<_> = metric
                .labels
                .iter()
                .map(|name| format!("`{name}`"))
                .collect();
            let (name, labels) = (metric.name, labels.join(", "));
            let cells = [
                &format!("`{name}`"),
                &kind,
                metric.unit,
                &labels,
                metric.description,
            ];
            format!("| {} |", cells.join(" | "))
        })
        .collect();
    assert_eq!(
        rows,
        expected,
        "the table should be:\n{}",
        expected.join("\n")
    );
}

/// Nor do the alerts, or any other sentence, name one that is not there.
#[test]
fn the_documents_name_no_other_metric() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/observability.md");
    let docs = fs::read_to_string(docs).unwrap();
    let words = docs.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let named: BTreeSet<_> = words.filter(|word| word.starts_with("ploton_")).collect();
    let known: BTreeSet<_> = ALL.iter().map(|metric| metric.name).collect();
    assert_eq!(named, known);
}
