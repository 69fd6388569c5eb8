//! Spans: one for a logical request, one in it for each attempt, by OpenTelemetry's HTTP conventions.

use std::{future, io, num::NonZeroU32, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use opentelemetry::{
    Value,
    trace::{Event, SpanKind, Status, TracerProvider},
};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use tokio::time;
use tower::{BoxError, Layer, Service, ServiceBuilder, ServiceExt, buffer::Buffer, service_fn};
use tower_ploton::{
    MaxAttempts, Origin, Plan, PlotonAuth, PlotonIdempotency, PlotonRateLimit, PlotonRetry,
    PlotonStack,
    mock::{FakePloton, Fault},
};
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::{Registry, layer::SubscriberExt};

use crate::{PLOTON, SECRET, create, key};

/// The spans of a thread that have ended.
struct Traces {
    exporter: InMemorySpanExporter,
    _guard: DefaultGuard,
}

impl Traces {
    fn capture() -> Self {
        let exporter = InMemorySpanExporter::default();
        let provider = SdkTracerProvider::builder()
            .with_simple_exporter(exporter.clone())
            .build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        let subscriber = Registry::default().with(layer);
        Self {
            exporter,
            _guard: tower_ploton_sdks::subscribe(subscriber),
        }
    }

    fn all(&self) -> Vec<SpanData> {
        self.exporter.get_finished_spans().unwrap()
    }

    /// Those with this name, in the order of their begin.
    fn named(&self, name: &str) -> Vec<SpanData> {
        let mut spans = self.all();
        spans.retain(|span| span.name == name);
        spans.sort_by_key(|span| span.start_time);
        spans
    }

    /// The one of the logical request, and those of its attempts.
    fn request(&self) -> (SpanData, Vec<SpanData>) {
        let requests = self.named("ploton POST");
        let [request] = &requests[..] else {
            panic!("{requests:#?}");
        };
        let attempts = self.named("POST");
        for attempt in &attempts {
            assert_eq!(attempt.parent_span_id, request.span_context.span_id());
            assert_eq!(
                attempt.span_context.trace_id(),
                request.span_context.trace_id()
            );
        }
        (request.clone(), attempts)
    }
}

fn field(span: &SpanData, name: &str) -> Option<String> {
    let mut fields = span.attributes.iter();
    let field = fields.find(|field| field.key.as_str() == name)?;
    Some(field.value.to_string())
}

fn fields(spans: &[SpanData], name: &str) -> Vec<Option<String>> {
    spans.iter().map(|span| field(span, name)).collect()
}

fn some(value: &str) -> Option<String> {
    Some(value.to_owned())
}

/// A service that suffers `faults`, one an attempt, and then none.
fn troubled(faults: &[Fault]) -> FakePloton {
    let fake = FakePloton::new();
    for fault in faults {
        fake.fail_next(fault.clone());
    }
    fake
}

fn refusal() -> Fault {
    Fault::RateLimited {
        retry_after: Some(Duration::from_secs(2)),
    }
}

#[tokio::test(start_paused = true)]
async fn a_logical_request_is_one_span_and_each_attempt_a_client_span_in_it() {
    let traces = Traces::capture();
    let fake = troubled(&[Fault::CutAfter, refusal()]);
    let service = PlotonStack::new(key(), Plan::Production).layer(fake.clone());
    let response = service.oneshot(create(PLOTON, "one")).await.unwrap();
    assert_eq!(response.status(), StatusCode::CREATED);

    let (request, attempts) = traces.request();
    assert_eq!(traces.all().len(), 4);
    assert_eq!(attempts.len(), fake.attempts().len());
    // Two would be counted as HTTP requests by whoever counts client spans.
    assert_eq!(request.span_kind, SpanKind::Internal);
    assert_eq!(request.status, Status::Unset);
    assert_eq!(field(&request, "http.request.method"), some("POST"));
    assert_eq!(field(&request, "server.address"), some("api.ploton.ai"));
    assert_eq!(field(&request, "url.path"), some("/v1/tasks"));
    assert_eq!(field(&request, "http.response.status_code"), some("201"));
    assert_eq!(field(&request, "http.request.resend_count"), some("2"));
    assert_eq!(field(&request, "error.type"), None);
    let key = fake.attempts()[0].idempotency_key.clone();
    assert_eq!(field(&request, "ploton.idempotency_key"), key);

    for attempt in &attempts {
        assert_eq!(attempt.span_kind, SpanKind::Client);
        assert_eq!(field(attempt, "http.request.method"), some("POST"));
        assert_eq!(field(attempt, "server.address"), some("api.ploton.ai"));
        assert_eq!(field(attempt, "server.port"), some("443"));
        let url = some("https://api.ploton.ai/v1/tasks");
        assert_eq!(field(attempt, "url.full"), url);
        assert_eq!(field(attempt, "http.request.method_original"), None);
    }
    // By the conventions they are integers, by which a backend can choose.
    for span in attempts.iter().chain([&request]) {
        for field in &span.attributes {
            let is_number = field.value.to_string().parse::<i64>().is_ok();
            let is_text = field.key.as_str() == "error.type";
            assert_eq!(
                matches!(field.value, Value::I64(_)),
                is_number && !is_text,
                "{field:?}"
            );
        }
    }
    let resent = fields(&attempts, "http.request.resend_count");
    assert_eq!(resent, [None, some("1"), some("2")]);
    let status = fields(&attempts, "http.response.status_code");
    assert_eq!(status, [None, some("429"), some("201")]);
    let errors = fields(&attempts, "error.type");
    assert_eq!(errors, [some("connection_reset"), some("429"), None]);
    let failed = Status::error("");
    let status: Vec<_> = attempts.iter().map(|span| span.status.clone()).collect();
    assert_eq!(status, [failed.clone(), failed, Status::Unset]);
    let versions = fields(&attempts, "network.protocol.version");
    assert_eq!(versions, [None, some("1.1"), some("1.1")]);
    for (before, after) in attempts.iter().zip(&attempts[1..]) {
        assert!(before.end_time <= after.start_time);
    }
}

#[tokio::test(start_paused = true)]
async fn the_events_of_a_request_are_in_its_trace() {
    let traces = Traces::capture();
    let fake = troubled(&[Fault::CutAfter, refusal()]);
    let stack = PlotonStack::new(key(), Plan::Production);
    let limit = stack.rate_limit_handle();
    let service = stack.layer(fake.latency(Duration::from_secs(1)));
    let call = tokio::spawn(service.oneshot(create(PLOTON, "one")));
    time::sleep(Duration::from_millis(500)).await;
    // The second attempt waits for the end of this.
    limit.pause_until(time::Instant::now() + Duration::from_secs(10));
    call.await.unwrap().unwrap();

    let (request, attempts) = traces.request();
    let told = |span: &SpanData, name: &str| {
        let events = span.events.iter().filter(|event| event.name == name);
        let events: Vec<_> = events.collect();
        let field = |name: &str| -> Vec<_> {
            let of = |event: &&Event| -> Option<String> {
                let field = event.attributes.iter().find(|own| own.key.as_str() == name);
                field.map(|field| field.value.to_string())
            };
            events.iter().filter_map(of).collect()
        };
        (events.len(), field("delay_from"), field("rule"))
    };
    let strings = |strings: &[&str]| -> Vec<_> { strings.iter().map(|s| s.to_string()).collect() };
    let (again, from, _) = told(&request, "sending the request again after a delay");
    assert_eq!((again, from), (2, strings(&["backoff", "retry-after"])));
    let (waited, _, rule) = told(&attempts[1], "a request waited for its turn");
    assert_eq!((waited, rule), (1, strings(&["paused"])));
    let (paused, _, _) = told(&attempts[1], "a 429 pauses all requests");
    assert_eq!(paused, 1);
}

#[tokio::test(start_paused = true)]
async fn a_request_is_in_the_span_of_its_caller_whoever_drives_it_later() {
    let traces = Traces::capture();
    let mut service = PlotonStack::new(key(), Plan::Production).layer(troubled(&[refusal()]));
    let job = tracing::info_span!("job");
    ServiceExt::<Request<Full<Bytes>>>::ready(&mut service)
        .await
        .unwrap();
    // Called in the span, polled by a task that knows nothing of it.
    let call = job.in_scope(|| service.call(create(PLOTON, "one")));
    tokio::spawn(call).await.unwrap().unwrap();
    drop(job);

    let (request, attempts) = traces.request();
    assert_eq!(attempts.len(), 2);
    let job = &traces.named("job")[0];
    assert_eq!(request.parent_span_id, job.span_context.span_id());
}

/// A network whose attempts fail until the third, which makes a span when it is called, and one when it is polled.
fn network()
-> impl Service<Request<Full<Bytes>>, Response = Response<Full<Bytes>>, Error = io::Error, Future: Send>
+ Send
+ 'static {
    let mut calls = 0;
    service_fn(move |_: Request<Full<Bytes>>| {
        tracing::info_span!("called").in_scope(|| calls += 1);
        let status = if calls < 3 { 503 } else { 200 };
        async move {
            time::sleep(Duration::from_millis(20)).await;
            tracing::info_span!("polled").in_scope(|| ());
            Ok(Response::builder()
                .status(status)
                .body(Full::default())
                .unwrap())
        }
    })
}

#[tokio::test(start_paused = true)]
async fn what_is_inside_sees_the_attempt_as_its_parent_on_a_task_of_its_own_too() {
    let traces = Traces::capture();
    // The worker of a buffer calls the network.
    let service = ServiceBuilder::new()
        .layer(PlotonIdempotency::new())
        .layer(PlotonRetry::new())
        .layer(PlotonRateLimit::new(Plan::Production))
        .service(Buffer::new(network(), 4));
    service.oneshot(create(PLOTON, "one")).await.unwrap();
    let (_, attempts) = traces.request();
    assert_eq!(attempts.len(), 3);
    for name in ["called", "polled"] {
        let inside = traces.named(name);
        assert_eq!(inside.len(), 3);
        for (span, attempt) in inside.iter().zip(&attempts) {
            assert_eq!(span.parent_span_id, attempt.span_context.span_id());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn requests_at_the_same_time_have_traces_of_their_own() {
    let traces = Traces::capture();
    let fake = FakePloton::new()
        .latency(Duration::from_millis(500))
        .fault_rate(Fault::Status(StatusCode::BAD_GATEWAY), 0.3)
        .seed(7);
    let retry = PlotonRetry::new().attempts(20).quota(u32::MAX);
    let stack = PlotonStack::new(key(), Plan::Production).retry(retry);
    let service = stack.layer(fake.clone());
    let calls: Vec<_> = (0..40)
        .map(|n| tokio::spawn(service.clone().oneshot(create(PLOTON, &n.to_string()))))
        .collect();
    for call in calls {
        assert!(call.await.unwrap().unwrap().status().is_success());
    }
    let (requests, attempts) = (traces.named("ploton POST"), traces.named("POST"));
    assert_eq!(requests.len(), 40);
    assert_eq!(attempts.len(), fake.attempts().len());
    assert!(attempts.len() > 40);
    for request in &requests {
        let own: Vec<_> = attempts
            .iter()
            .filter(|attempt| attempt.parent_span_id == request.span_context.span_id())
            .collect();
        let resent = field(request, "http.request.resend_count");
        let resent = resent.map_or(0, |resent| resent.parse().unwrap());
        assert_eq!(own.len(), resent + 1_usize);
    }
}

#[tokio::test(start_paused = true)]
async fn no_span_and_no_event_holds_a_secret() {
    let traces = Traces::capture();
    let fake = troubled(&[Fault::CutAfter, refusal()]);
    let stack = PlotonStack::new(key(), Plan::Production);
    let service = stack.layer(fake.clone());
    let mut request = create(PLOTON, "the prompt is nobody's business");
    *request.uri_mut() = "https://me:hunter2@api.ploton.ai/v1/tasks?token=hunter2"
        .parse()
        .unwrap();
    request
        .headers_mut()
        .insert("cookie", "hunter2".parse().unwrap());
    let _ = service.oneshot(request).await;
    let shown = format!("{:?}", traces.all()).to_lowercase();
    assert!(shown.contains("api.ploton.ai/v1/tasks"), "{shown}");
    for secret in [SECRET, "hunter2", "authorization", "bearer", "business"] {
        assert!(!shown.contains(secret), "{secret} in {shown}");
    }
}

/// The idempotency key in the request's span, with the idempotency layer outside and inside the retry layer.
#[tokio::test(start_paused = true)]
async fn the_idempotency_key_is_on_the_request_unless_that_is_turned_off() {
    for shown in [true, false] {
        for outside in [true, false] {
            let traces = Traces::capture();
            let fake = troubled(&[Fault::CutAfter]);
            let idempotency = PlotonIdempotency::new().key_in_span(shown);
            let retry = PlotonRetry::new().key_in_span(shown);
            let network = PlotonAuth::new(key()).layer(fake.clone());
            let call = create(PLOTON, "one");
            let response = if outside {
                idempotency.layer(retry.layer(network)).oneshot(call).await
            } else {
                retry.layer(idempotency.layer(network)).oneshot(call).await
            };
            assert_eq!(response.unwrap().status(), StatusCode::CREATED);
            let key = fake.attempts()[0].idempotency_key.clone();
            let (request, _) = traces.request();
            let key = key.filter(|_| shown);
            assert_eq!(field(&request, "ploton.idempotency_key"), key);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_fails_is_an_error_by_its_last_outcome() {
    let failed = || Fault::Status(StatusCode::BAD_GATEWAY);
    for (fault, kind) in [
        (failed(), "502"),
        (Fault::CutBefore, "connection_reset"),
        (Fault::Status(StatusCode::UNPROCESSABLE_ENTITY), "422"),
        (Fault::Hang, "deadline"),
    ] {
        let traces = Traces::capture();
        let fake = FakePloton::new().fault_rate(fault, 1.0);
        let retry = PlotonRetry::new()
            .attempts(2)
            .deadline(Duration::from_secs(20));
        let stack = PlotonStack::new(key(), Plan::Production).retry(retry);
        let _ = stack.layer(fake).oneshot(create(PLOTON, "one")).await;
        let (request, attempts) = traces.request();
        for span in attempts.last().into_iter().chain([&request]) {
            assert_eq!(field(span, "error.type"), some(kind));
            assert_eq!(span.status, Status::error(""), "{kind}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_dropped_is_cancelled() {
    let traces = Traces::capture();
    let fake = troubled(&[Fault::Hang]);
    let service = PlotonStack::new(key(), Plan::Production).layer(fake);
    let call = service.oneshot(create(PLOTON, "one"));
    assert!(time::timeout(Duration::from_secs(1), call).await.is_err());
    let (request, attempts) = traces.request();
    for span in [&request, &attempts[0]] {
        assert_eq!(field(span, "error.type"), some("cancelled"));
        assert_eq!(span.status, Status::error(""));
    }
}

#[tokio::test(start_paused = true)]
async fn a_method_that_nobody_knows_makes_no_new_name() {
    let traces = Traces::capture();
    let server = service_fn(|_: Request<String>| {
        future::ready(Ok::<_, BoxError>(Response::new(String::new())))
    });
    let request = Request::builder()
        .method(Method::from_bytes(b"BREW").unwrap())
        .uri("http://[::1]:8080/pot?strength=2")
        .extension(MaxAttempts(NonZeroU32::MIN))
        .body(String::new())
        .unwrap();
    PlotonRetry::new()
        .layer(server)
        .oneshot(request)
        .await
        .unwrap();
    let attempt = &traces.named("HTTP")[0];
    assert_eq!(field(attempt, "http.request.method"), some("_OTHER"));
    assert_eq!(field(attempt, "http.request.method_original"), some("BREW"));
    assert_eq!(field(attempt, "server.address"), some("::1"));
    assert_eq!(field(attempt, "server.port"), some("8080"));
    assert_eq!(field(attempt, "url.full"), some("http://[::1]:8080/pot"));
    assert_eq!(traces.named("ploton HTTP").len(), 1);
}

/// By real sockets: the connections of the client have tasks of their own.
#[tokio::test]
async fn attempts_over_a_socket_are_in_the_same_trace() {
    let traces = Traces::capture();
    let fake = troubled(&[Fault::CutAfter, Fault::Status(StatusCode::BAD_GATEWAY)]);
    let server = fake.listen().await.unwrap();
    let stack = PlotonStack::new(key(), Plan::Production);
    let stack = stack.origin(Origin::parse(&server.url()).unwrap());
    let executor = hyper_util::rt::TokioExecutor::new();
    let client = hyper_util::client::legacy::Client::builder(executor).build_http();
    let service = stack.layer(client);
    let response = service.oneshot(create(&server.url(), "one")).await.unwrap();
    assert_eq!(response.status(), StatusCode::CREATED);
    assert_eq!(fake.counts().created, 1);
    let (_, attempts) = traces.request();
    assert_eq!(attempts.len(), fake.attempts().len());
    let port = some(&server.addr().port().to_string());
    assert!(
        fields(&attempts, "server.port")
            .iter()
            .all(|seen| *seen == port)
    );
    let resent = fields(&attempts, "http.request.resend_count");
    assert_eq!(resent, [None, some("1"), some("2")]);
}
