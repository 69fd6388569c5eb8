//! Redirects, which reqwest follows beneath the layers.

use http::StatusCode;
use reqwest::{Client, redirect::Policy};
use tokio::net::TcpSocket;
use tower::{ServiceBuilder, ServiceExt};
use tower_ploton::{
    PlotonRetry,
    mock::FakePloton,
    reqwest::{FromReqwest, IntoReqwest},
};
use tower_ploton_sdks::{Fault, Server, Tls, bearer, stack};

use super::{TASK, builder, client, post, snippet, start};

async fn sent_elsewhere(client: Client, status: u16) -> (Server, Server, FakePloton, StatusCode) {
    let (_, server) = start().await;
    let (fake, foreign) = start().await;
    let to = format!("{}/v1/tasks", foreign.url());
    server.fail([Fault::Redirect { status, to }]);
    let ploton = snippet::ploton(client, stack(&server));
    let response = ploton.oneshot(post(server.url(), TASK)).await.unwrap();
    let status = response.status();
    (server, foreign, fake, status)
}

#[tokio::test]
async fn a_redirect_takes_no_key_to_another_origin_whatever_the_policy() {
    let policies: [fn() -> Policy; 2] = [Policy::default, || {
        Policy::custom(|attempt| attempt.follow())
    }];
    for policy in policies {
        for status in [301, 302, 303, 307, 308] {
            let client = builder(&Tls::new()).redirect(policy());
            let (server, foreign, fake, answer) =
                sent_elsewhere(client.build().unwrap(), status).await;
            assert_eq!(foreign.seen().len(), 1, "it was followed");
            assert_eq!(foreign.credentials(), Vec::<String>::new());
            // The other origin's answer comes back as the attempt's.
            assert_eq!(answer, StatusCode::UNAUTHORIZED);
            assert_eq!((server.seen().len(), fake.tasks().len()), (1, 0));
            // The idempotency key, which is no secret, goes along, with a GET too.
            let seen = &foreign.seen()[0];
            assert!(seen.idempotency_key.is_some());
            assert_eq!(seen.method == "POST", [307, 308].contains(&status));
        }
    }
}

#[tokio::test]
async fn without_a_policy_the_redirect_comes_back() {
    let client = builder(&Tls::new()).redirect(Policy::none());
    let (server, foreign, _, answer) = sent_elsewhere(client.build().unwrap(), 307).await;
    assert_eq!(answer, StatusCode::TEMPORARY_REDIRECT);
    assert_eq!((server.seen().len(), foreign.seen().len()), (1, 0));
}

/// Within the origin the key goes along, and the way costs one token, as it is one attempt.
#[tokio::test]
async fn a_redirect_at_home_keeps_the_key() {
    let (fake, server) = start().await;
    let to = format!("{}/v1/tasks", server.url());
    server.fail([Fault::Redirect { status: 308, to }]);
    let stack = stack(&server);
    let handle = stack.rate_limit_handle();
    let before = handle.snapshot().remaining;
    let ploton = snippet::ploton(client(), stack);
    let response = ploton.oneshot(post(server.url(), TASK)).await.unwrap();
    assert_eq!(response.status(), StatusCode::CREATED);
    server.assert_one_request(2);
    assert_eq!(server.seen()[1].authorization, bearer());
    assert_eq!(fake.tasks().len(), 1);
    assert_eq!(handle.snapshot().remaining, before - 1);
}

/// A way home over another origin: reqwest took the key out on the way, and nobody puts it in again.
#[tokio::test]
async fn the_way_back_home_goes_without_a_key() {
    let (_, server) = start().await;
    let (_, foreign) = start().await;
    let to = |server: &Server| Fault::Redirect {
        status: 307,
        to: format!("{}/v1/tasks", server.url()),
    };
    server.fail([to(&foreign)]);
    foreign.fail([to(&server)]);
    let ploton = snippet::ploton(client(), stack(&server));
    let response = ploton.oneshot(post(server.url(), TASK)).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    let keys: Vec<_> = server.seen().into_iter().map(|s| s.authorization).collect();
    assert_eq!(keys, [bearer(), None]);
    assert_eq!(foreign.credentials(), Vec::<String>::new());
}

/// Two servers that send to each other, or one to itself.
#[tokio::test]
async fn a_loop_of_redirects_is_followed_once() {
    let (_, server) = start().await;
    let to = format!("{}/v1/tasks", server.url());
    server.fail(vec![Fault::Redirect { status: 307, to }; 50]);
    let ploton = snippet::ploton(client(), stack(&server));
    let error = ploton.oneshot(post(server.url(), TASK)).await.unwrap_err();
    let error = error.downcast::<reqwest::Error>().expect("tried once");
    assert!(error.is_redirect());
    assert_eq!(server.seen().len(), 11, "the request, and ten redirects");
}

/// So the page of the module says: what was done before the redirect is not to be seen in the error.
#[tokio::test]
async fn a_redirect_to_where_nobody_listens_is_taken_for_not_sent() {
    // Bound, so that nobody else gets the port, and without an ear.
    let nobody = TcpSocket::new_v4().unwrap();
    nobody.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let to = format!("http://{}/v1/tasks", nobody.local_addr().unwrap());
    for (policy, sent) in [(Policy::default(), 2), (Policy::none(), 1)] {
        let (_, server) = start().await;
        let there = Fault::Redirect {
            status: 303,
            to: to.clone(),
        };
        server.fail([there.clone(), there]);
        let client = builder(&Tls::new()).redirect(policy).build().unwrap();
        let service = ServiceBuilder::new()
            .layer(FromReqwest::new())
            .layer(PlotonRetry::new().attempts(2))
            .layer(IntoReqwest::new())
            .service(client);
        let answer = service.oneshot(post(server.url(), TASK)).await;
        assert_eq!(answer.is_ok(), sent == 1, "{answer:?}");
        assert_eq!(server.seen().len(), sent);
    }
}
