//! A watch: events for as long as one answer lasts.

use std::{convert::Infallible, pin::pin, time::Duration};

use http::Response;
use hyper_util::{client::legacy, rt::TokioExecutor};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Client,
    api::{WatchEvent, WatchParams},
    client::ConfigExt,
};
use serde_json::json;
use tokio_stream::{Stream, StreamExt};
use tower::{ServiceBuilder, service_fn};
use tower_ploton::{PlotonReplay, PlotonStack, retry::AttemptsFailed};
use tower_ploton_sdks::{FREE, Fault, LATER, SOON, Server, every_fault, slowly, stack, timed};

use super::{bulk, client, config, config_maps};

/// A cluster where `bulk` is added, and changed after `pause`.
async fn start(pause: Duration) -> Server {
    let event = |kind| format!("{}\n", json!({ "type": kind, "object": bulk() }));
    let watch = move |_| async move {
        let events = [(SOON, event("ADDED")), (pause, event("MODIFIED"))];
        Ok::<_, Infallible>(Response::new(slowly(events)))
    };
    Server::start(service_fn(watch)).await
}

async fn watch(
    client: Client,
) -> kube::Result<impl Stream<Item = kube::Result<WatchEvent<ConfigMap>>>> {
    let params = WatchParams::default();
    config_maps(client).watch(&params, "0").await
}

/// The next event is that `bulk` was added.
async fn assert_added(events: impl Stream<Item = kube::Result<WatchEvent<ConfigMap>>> + Unpin) {
    let mut events = events;
    let first = events.next().await.unwrap().unwrap();
    assert!(matches!(first, WatchEvent::Added(found) if found == bulk()));
}

/// kube's client through a whole stack: what `PlotonReplay` keeps can be sent again.
pub(crate) fn through(stack: &PlotonStack, server: &Server) -> Client {
    let service = ServiceBuilder::new()
        .layer(config(server).base_uri_layer())
        .layer(PlotonReplay::new())
        .layer(stack)
        .service(legacy::Client::builder(TokioExecutor::new()).build_http());
    Client::new(service, "default")
}

#[tokio::test]
async fn a_watch_begins_through_every_fault() {
    let server = start(SOON).await;
    server.fail(every_fault());
    let events = watch(client(&server, &server)).await.unwrap();
    let events: Vec<_> = events.collect::<Result<_, _>>().await.unwrap();
    assert!(matches!(
        &*events,
        [WatchEvent::Added(_), WatchEvent::Modified(_)]
    ));
    let seen = server.seen();
    assert_eq!(seen.len(), 4);
    assert!(seen.iter().all(|seen| seen.idempotency_key.is_none()));
    assert!(seen[3].path.contains("watch=true"), "{}", seen[3].path);
}

#[tokio::test]
async fn a_watch_that_never_begins_ends_in_our_error() {
    let server = start(SOON).await;
    server.fail(vec![Fault::CutBefore; 4]);
    let Err(kube::Error::Service(error)) = watch(client(&server, &server)).await.map(drop) else {
        panic!("an error of the layers");
    };
    assert!(error.is::<AttemptsFailed>(), "{error:?}");
    assert_eq!(server.seen().len(), 4);
}

/// kube takes a cut for the end of the watch, which `kube::runtime::watcher` begins again.
#[tokio::test]
async fn a_watch_that_breaks_off_is_the_callers() {
    let server = start(Duration::MAX).await;
    let client = client(&server, &server);
    let mut events = pin!(watch(client.clone()).await.unwrap());
    assert_added(events.as_mut()).await;
    server.cut_connections();
    assert!(events.next().await.is_none());
    assert_eq!(server.seen().len(), 1, "nothing is repeated");

    assert_added(pin!(watch(client).await.unwrap())).await;
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test]
async fn a_watch_goes_on_after_the_time_for_its_head_and_is_no_longer_in_flight() {
    let server = start(LATER).await;
    let stack = timed(&server);
    let mut events = pin!(watch(through(&stack, &server)).await.unwrap());
    assert_added(events.as_mut()).await;
    assert_eq!(stack.rate_limit_handle().snapshot().in_flight, 0);
    let next = events.next().await.unwrap().unwrap();
    assert!(matches!(next, WatchEvent::Modified(_)));
    assert!(events.next().await.is_none());
}

/// The first request of all goes ahead alone, until its answer's head is there.
#[tokio::test]
async fn an_open_watch_holds_back_nobody() {
    let server = start(Duration::MAX).await;
    let client = through(&stack(&server), &server);
    let mut ahead = pin!(watch(client.clone()).await.unwrap());
    assert_added(ahead.as_mut()).await;
    let next = tokio::time::timeout(FREE, watch(client)).await.unwrap();
    assert_added(pin!(next.unwrap())).await;
    assert_eq!(server.seen().len(), 2);
}
