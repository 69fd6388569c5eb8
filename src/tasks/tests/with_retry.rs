//! What the retry layer inside knows of its attempts, this layer knows.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::{HeaderValue, Request, Response};
use tokio::time::Instant;
use tower::{BoxError, Layer, ServiceBuilder, ServiceExt, service_fn};

use super::service::{create, response};
use crate::{
    Deadline, IdempotencyKey, Plan, PlotonIdempotency, PlotonRetry, PlotonTaskLimit,
    no_turn::QueueFull,
};

/// Sends one request whose attempts end so: with a status, or with 0 for a cut and 1 for one that was not sent.
async fn slot_after(ends: &'static [u16]) -> usize {
    let limit = PlotonTaskLimit::new(Plan::Prototyping);
    let handle = limit.handle();
    let attempt = Arc::new(AtomicUsize::new(0));
    let service = ServiceBuilder::new()
        .layer(limit)
        .layer(PlotonIdempotency::new())
        .layer(PlotonRetry::new().attempts(u32::try_from(ends.len()).unwrap()))
        .service(service_fn(move |_: Request<String>| {
            let made = attempt.fetch_add(1, Ordering::Relaxed);
            async move {
                match ends[made] {
                    0 => Err(io::Error::from(io::ErrorKind::ConnectionReset).into()),
                    1 => Err(QueueFull {
                        waiting: 1,
                        wait: Duration::ZERO,
                    }
                    .into()),
                    status => Ok::<_, BoxError>(response(status).map(|()| String::new())),
                }
            }
        }));
    let request = create().map(|()| String::new());
    let _ = service.oneshot(request).await;
    handle.snapshot().running
}

#[tokio::test(start_paused = true)]
async fn every_attempt_counts() {
    let table: [(&[u16], usize); 10] = [
        (&[429], 0),
        (&[429, 429, 429], 0),
        (&[0, 429], 1),
        (&[503, 401], 1),
        (&[429, 422], 0),
        (&[429, 503], 1),
        (&[429, 201], 1),
        (&[1], 0),
        (&[0, 1], 1),
        (&[409], 1),
    ];
    for (ends, running) in table {
        assert_eq!(slot_after(ends).await, running, "{ends:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_dropped_between_two_attempts_that_were_refused_frees_its_slot() {
    for (status, running) in [(429, 0), (503, 1)] {
        let limit = PlotonTaskLimit::new(Plan::Prototyping);
        let handle = limit.handle();
        let inner = PlotonRetry::new().layer(service_fn(move |_: Request<String>| async move {
            let mut response = response(status).map(|()| String::new());
            let headers = response.headers_mut();
            headers.insert("retry-after", HeaderValue::from_static("5"));
            Ok::<_, BoxError>(response)
        }));
        let mut request = create().map(|()| String::new());
        request.extensions_mut().insert(IdempotencyKey::random());
        let headers = request.headers_mut();
        headers.insert("idempotency-key", HeaderValue::from_static("k"));
        let call = limit.layer(inner).oneshot(request);
        let call = tokio::time::timeout(Duration::from_secs(1), call);
        assert!(call.await.is_err());
        assert_eq!(handle.snapshot().running, running, "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_passes_before_the_first_attempt_frees_the_slot() {
    let limit = PlotonTaskLimit::new(Plan::Prototyping);
    let handle = limit.handle();
    let server =
        service_fn(async |_: Request<String>| Ok::<_, BoxError>(Response::new(String::new())));
    let service = limit.layer(PlotonRetry::new().layer(server));
    let mut request = create().map(|()| String::new());
    request.extensions_mut().insert(Deadline(Instant::now()));
    assert!(service.oneshot(request).await.is_err());
    assert_eq!(handle.snapshot().running, 0);
}
