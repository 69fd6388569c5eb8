//! Over TLS, by kube's own connector.

use kube::api::PostParams;
use tower::service_fn;
use tower_ploton_sdks::{Fault, Once, Server, Tls, bearer, key};

use super::{bulk, cluster, config_maps, config_that_trusts, snippet};

#[tokio::test]
async fn a_resource_is_created_once_through_faults_over_tls() {
    let (tls, once) = (Tls::new(), Once::new(service_fn(cluster)));
    let server = Server::start_tls(once.clone(), &tls, &["http/1.1"]).await;
    let config = config_that_trusts(&tls, &server);
    let client = snippet::client(&config, &server.origin(), key()).unwrap();

    server.fail([Fault::Status(500), Fault::CutAfter]);
    let params = PostParams::default();
    let created = config_maps(client).create(&params, &bulk()).await.unwrap();
    assert_eq!(created, bulk());
    server.assert_one_request(3);
    assert_eq!(server.credentials(), bearer().as_slice());
    assert_eq!(once.done(), 1);
}

/// Nothing is sent, and nothing is tried again.
#[tokio::test]
async fn a_cluster_that_is_not_trusted_gets_nothing() {
    let server = Server::start_tls(service_fn(cluster), &Tls::new(), &["http/1.1"]).await;
    let config = config_that_trusts(&Tls::new(), &server);
    let client = snippet::client(&config, &server.origin(), key()).unwrap();
    let error = config_maps(client).get("bulk").await.unwrap_err();
    assert!(matches!(error, kube::Error::Service(_)), "{error:?}");
    assert_eq!((server.seen().len(), server.connections()), (0, 1));
}
