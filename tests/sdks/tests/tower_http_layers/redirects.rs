//! Redirects on real sockets: a key stays at home, and a POST is done once.

use bytes::Bytes;
use http::StatusCode;
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use tower::{BoxError, ServiceBuilder, ServiceExt};
use tower_http::follow_redirect::{
    FollowRedirectLayer,
    policy::{self, FilterCredentials, Policy, PolicyExt},
};
use tower_ploton::{
    PlotonAuth, PlotonIdempotency, PlotonReplay, PlotonRetry,
    retry::{ReplayBody, RetryBody},
};
use tower_ploton_sdks::{Fault, Server, create, key, stack};

use super::{http, ploton};

/// Follows all redirects, with the body.
fn everywhere<B: RetryBody>() -> impl Policy<B, BoxError> + Clone {
    policy::clone_body_fn(B::try_clone)
}

/// The same, as browsers do: without credentials to another origin.
fn carefully<B: RetryBody>() -> impl Policy<B, BoxError> + Clone {
    FilterCredentials::new().and::<_, B, BoxError>(everywhere())
}

#[tokio::test]
async fn a_redirect_takes_no_key_to_another_origin() {
    for status in [302, 307] {
        for above in [true, false] {
            let (_, home) = ploton().await;
            let (foreign_fake, foreign) = ploton().await;
            let to = |server: &Server, path| Fault::Redirect {
                status,
                to: format!("{}{path}", server.url()),
            };
            // There, on to another of its paths, back home, and there again.
            home.fail([to(&foreign, "/v1/tasks"), to(&foreign, "/v1/tasks")]);
            foreign.fail([to(&foreign, "/v1/more"), to(&home, "/v1/tasks")]);
            let request = create(home.url(), "one");
            let answer = if above {
                // By whatever policy.
                let layers = ServiceBuilder::new()
                    .layer(FollowRedirectLayer::with_policy(everywhere()))
                    .layer(stack(&home));
                layers.service(http()).oneshot(request).await.unwrap()
            } else {
                let layers = ServiceBuilder::new()
                    .layer(stack(&home))
                    .layer(FollowRedirectLayer::with_policy(carefully()))
                    .map_err(BoxError::from);
                layers.service(http()).oneshot(request).await.unwrap()
            };
            assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "it has no key");
            assert_eq!((home.seen().len(), foreign.seen().len()), (2, 3));
            assert_eq!(foreign.credentials(), Vec::<String>::new());
            assert_eq!(home.credentials().len(), 1);
            assert_eq!(foreign_fake.counts().created, 0);
            let back_home = &home.seen()[1];
            assert_eq!(back_home.authorization.is_some(), above, "by its own URI");
        }
    }
}

/// Redirects before what is cut, and after it.
fn redirects(server: &Server) {
    let to_itself = || Fault::Redirect {
        status: 307,
        to: format!("{}/v1/tasks?again", server.url()),
    };
    server.fail([to_itself(), Fault::CutAfter, to_itself()]);
}

#[tokio::test]
async fn a_post_that_is_redirected_inside_the_key_creates_once() {
    let (fake, server) = ploton().await;
    redirects(&server);
    let above = ServiceBuilder::new()
        .layer(PlotonIdempotency::new())
        .layer(FollowRedirectLayer::with_policy(everywhere()))
        .layer(stack(&server));
    let call = above.service(http()).oneshot(create(server.url(), "one"));
    assert_eq!(call.await.unwrap().status(), StatusCode::CREATED);
    server.assert_one_request(4);
    assert_eq!(fake.counts().created, 1);

    let (fake, server) = ploton().await;
    redirects(&server);
    let below = ServiceBuilder::new()
        .layer(stack(&server))
        .layer(FollowRedirectLayer::with_policy(carefully()))
        .map_err(BoxError::from);
    let call = below.service(http()).oneshot(create(server.url(), "one"));
    assert_eq!(call.await.unwrap().status(), StatusCode::CREATED);
    server.assert_one_request(4);
    assert_eq!(fake.counts().created, 1);

    // Bodies that can't be cloned, too.
    let (fake, server) = ploton().await;
    redirects(&server);
    let replayed = ServiceBuilder::new()
        .layer(PlotonReplay::new())
        .layer(stack(&server))
        .layer(FollowRedirectLayer::with_policy(carefully()))
        .map_err(BoxError::from)
        .service(http::<ReplayBody<UnsyncBoxBody<Bytes, BoxError>>>());
    let boxed = |body: Full<Bytes>| body.map_err(BoxError::from).boxed_unsync();
    let call = replayed.oneshot(create(server.url(), "one").map(boxed));
    assert_eq!(call.await.unwrap().status(), StatusCode::CREATED);
    server.assert_one_request(4);
    assert_eq!(fake.counts().created, 1);
}

/// So the page of `PlotonIdempotency` says: to this layer each hop is a request.
#[tokio::test]
async fn a_post_that_is_redirected_outside_the_key_creates_twice() {
    let (fake, server) = ploton().await;
    redirects(&server);
    let above = ServiceBuilder::new()
        .layer(FollowRedirectLayer::with_policy(everywhere()))
        .layer(stack(&server));
    let call = above.service(http()).oneshot(create(server.url(), "one"));
    assert_eq!(call.await.unwrap().status(), StatusCode::CREATED);
    assert_eq!(fake.counts().created, 2);

    // Nor does a retry layer outside help where a redirect to another origin takes from a request what layers tell each
    // other of it.
    let (_, home) = ploton().await;
    let (fake, other) = ploton().await;
    let there = || Fault::Redirect {
        status: 307,
        to: format!("{}/v1/tasks", other.url()),
    };
    home.fail([there(), there()]);
    other.fail([Fault::CutAfter]);
    let between = ServiceBuilder::new()
        .layer(PlotonRetry::new())
        .layer(FollowRedirectLayer::with_policy(carefully()))
        .layer(PlotonIdempotency::new())
        .layer(PlotonAuth::new(key()).origin(other.origin()));
    let call = between.service(http()).oneshot(create(home.url(), "one"));
    assert_eq!(call.await.unwrap().status(), StatusCode::CREATED);
    assert_eq!(fake.counts().created, 2);
}
