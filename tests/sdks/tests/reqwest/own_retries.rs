//! What reqwest sends again by itself, beneath the layers.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use http::Response;
use reqwest::retry;
use tokio::net::TcpListener;
use tower::{Layer, ServiceBuilder, ServiceExt};
use tower_ploton::{
    PlotonRetry,
    reqwest::{FromReqwest, IntoReqwest},
    retry::AttemptEnd,
};
use tower_ploton_sdks::Tls;

use super::{TASK, builder, post};

/// An HTTP/2 server that refuses so many streams, answers the others with 201, and counts them.
async fn refuses(streams: usize) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let seen = Arc::new(AtomicUsize::new(0));
    let count = seen.clone();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let mut connection = h2::server::handshake(socket).await.unwrap();
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                if count.fetch_add(1, Ordering::SeqCst) < streams {
                    respond.send_reset(h2::Reason::REFUSED_STREAM);
                } else {
                    let response = Response::builder().status(201).body(()).unwrap();
                    respond.send_response(response, true).unwrap();
                }
            }
        }
    });
    (url, seen)
}

/// Sends a POST without a key; how often reqwest failed, and how many streams the server saw.
async fn send(client: reqwest::Client, refused: usize) -> (usize, usize) {
    let (url, streams) = refuses(refused).await;
    let failed = Arc::new(AtomicUsize::new(0));
    let count = failed.clone();
    let retry = PlotonRetry::new().classify_with(move |end: &AttemptEnd<'_>| {
        count.fetch_add(end.status().is_none().into(), Ordering::SeqCst);
        end.outcome()
    });
    let service = ServiceBuilder::new()
        .layer(FromReqwest::new())
        .layer(retry)
        .service(IntoReqwest::new().layer(client));
    let response = service.oneshot(post(&url, TASK)).await.unwrap();
    assert_eq!(response.status(), 201);
    let seen = streams.load(Ordering::SeqCst);
    (failed.load(Ordering::SeqCst), seen)
}

#[tokio::test]
async fn a_refused_stream_is_sent_again_by_reqwest_and_where_it_does_not_by_the_layer() {
    let client = || builder(&Tls::new()).http2_prior_knowledge();
    let own = || client().build().unwrap();
    assert_eq!(send(own(), 2).await, (0, 3));
    assert_eq!(send(own(), 3).await, (1, 4));
    let never = client().retry(retry::never()).build().unwrap();
    assert_eq!(send(never, 2).await, (2, 3));
}
