//! Over TLS, by reqwest.

use http::Version;
use tower::service_fn;
use tower_ploton_sdks::{Fault, Once, Server, Tls, bearer, stack};

use super::{OpenAIError, ask, echo, through};

#[tokio::test]
async fn a_question_is_asked_once_through_faults_over_tls() {
    tokio::join!(
        asks_once("h2", Version::HTTP_2),
        asks_once("http/1.1", Version::HTTP_11),
    );
}

async fn asks_once(protocol: &str, version: Version) {
    let (tls, once) = (Tls::new(), Once::new(service_fn(echo)));
    let server = Server::start_tls(once.clone(), &tls, &[protocol]).await;
    server.fail([Fault::Status(500), Fault::CutAfter]);
    ask(&through(stack(&server), &server, &tls)).await.unwrap();
    server.assert_one_request(3);
    assert!(server.seen().iter().all(|seen| seen.version == version));
    assert_eq!(server.credentials(), bearer().as_slice());
    assert_eq!(once.done(), 1);
}

/// Nothing is sent, and nothing is tried again.
#[tokio::test]
async fn a_server_that_is_not_trusted_gets_nothing() {
    let server = Server::start_tls(service_fn(echo), &Tls::new(), &["h2"]).await;
    let error = ask(&through(stack(&server), &server, &Tls::new())).await;
    let error = error.unwrap_err();
    assert!(matches!(error, OpenAIError::Boxed(_)), "{error:?}");
    assert_eq!((server.seen().len(), server.connections()), (0, 1));
}
