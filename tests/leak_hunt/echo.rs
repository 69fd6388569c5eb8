//! A server that says what it was told: a key in its answer is in no log of ours.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, header::AUTHORIZATION, request::Parts};
use http_body_util::Full;
use tower::{BoxError, Layer, ServiceBuilder, ServiceExt, service_fn};
use tower_ploton::{PlotonAuth, PlotonIdempotency, PlotonRetry, PlotonStack};

use crate::{
    capture::{self, note, note_error, searched},
    create, key, origin, plan, send,
    servers::{Recorder, client},
};

/// Says in every header and in the body what was sent.
fn echo(head: &Parts) -> Response<Full<Bytes>> {
    let said = head.headers.get(AUTHORIZATION).unwrap().to_str().unwrap();
    let key = said.strip_prefix("Bearer ").unwrap();
    let status = head.uri.path().trim_start_matches('/');
    let mut answer = Response::builder().status(status);
    for name in [
        "retry-after",
        "retry-after-ms",
        "ratelimit",
        "ratelimit-policy",
        "x-ratelimit-limit",
        "x-ratelimit-remaining",
        "x-ratelimit-reset",
        "date",
        "idempotent-replayed",
        "idempotency-key",
        "www-authenticate",
        "location",
    ] {
        answer = answer.header(name, key);
    }
    answer.body(Full::from(said.to_owned())).unwrap()
}

const ECHOED: [u16; 10] = [200, 201, 302, 401, 403, 409, 422, 429, 500, 503];

fn for_status(url: &str, status: u16) -> Request<Full<Bytes>> {
    let mut request = create(url, "one");
    *request.uri_mut() = format!("{url}/{status}").parse().unwrap();
    request
}

#[tokio::test]
async fn what_the_server_echoes_is_in_no_log() {
    capture::start();
    let server = Recorder::start(echo).await;
    let retry = PlotonRetry::new()
        .base_delay(Duration::from_millis(1))
        .max_delay(Duration::from_millis(2));
    for http2 in [false, true] {
        let service = ServiceBuilder::new()
            .layer(PlotonIdempotency::new())
            .layer(retry.clone())
            .layer(PlotonAuth::new(key()).origin(origin(&server.url)))
            .service(client(http2));
        for status in ECHOED {
            let answered = send(&service, for_status(&server.url, status)).await;
            assert_eq!(answered.map(|status| status.as_u16()), Some(status));
        }
    }
    searched();
}

/// Pauses for a 429 take their time, so this one is not on sockets.
#[tokio::test(start_paused = true)]
async fn what_the_server_echoes_is_in_no_log_of_the_whole_stack() {
    capture::start();
    let network = service_fn(async |request: Request<Full<Bytes>>| {
        Ok::<_, BoxError>(echo(&request.into_parts().0))
    });
    let service = PlotonStack::new(key(), plan()).layer(network);
    for status in ECHOED {
        let request = for_status("https://api.ploton.ai", status);
        let answered = service.clone().oneshot(request).await;
        match answered {
            Ok(answered) => assert_eq!(answered.status().as_u16(), status),
            Err(error) => note_error(&*error),
        }
    }
    note(format_args!("{service:?}"));
    searched();
}
