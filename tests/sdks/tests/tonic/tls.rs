//! Over TLS, by tonic's own.

use std::error::Error;

use tonic::transport::{ClientTlsConfig, Endpoint};
use tower::service_fn;
use tower_ploton::retry::AttemptsFailed;
use tower_ploton_sdks::{Fault, Once, SOON, Server, Tls, bearer, key};

use super::{endpoint, serve, snippet, streams::tail, unary};

fn trusting(tls: &Tls, server: &Server) -> Endpoint {
    let config = ClientTlsConfig::new().trust_anchors(tls.roots().roots);
    endpoint(server).tls_config(config).unwrap()
}

#[tokio::test]
async fn calls_are_done_once_through_faults_over_tls() {
    let (tls, once) = (Tls::new(), Once::new(service_fn(serve)));
    let server = Server::start_tls(once.clone(), &tls, &["h2"]).await;
    let mut grpc = snippet::client(trusting(&tls, &server), server.origin(), key());
    server.fail([Fault::Status(500), Fault::CutAfter]);
    assert_eq!(unary(&mut grpc, "one").await.unwrap(), "created one");
    server.assert_one_request(3);

    let mut said = tail(&mut grpc, SOON).await.unwrap();
    assert_eq!(said.message().await.unwrap().unwrap(), "first");
    assert_eq!(said.message().await.unwrap().unwrap(), "second");
    assert!(said.message().await.unwrap().is_none());
    assert_eq!(server.credentials(), bearer().as_slice());
    assert_eq!(once.done(), 2);
}

/// tonic's error does not say that it is TLS that failed, so it is tried again, in vain.
#[tokio::test]
async fn a_server_that_is_not_trusted_gets_nothing() {
    let server = Server::start_tls(service_fn(serve), &Tls::new(), &["h2"]).await;
    let mut grpc = snippet::client(trusting(&Tls::new(), &server), server.origin(), key());
    let status = unary(&mut grpc, "one").await.unwrap_err();
    let failed = status.source().unwrap().downcast_ref::<AttemptsFailed>();
    assert_eq!(failed.unwrap().attempts().made(), 4);
    assert_eq!((server.seen().len(), server.connections()), (0, 4));
}
