//! Redirects, followed outside the auth layer by any policy or inside it by the default one: no key reaches another origin.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod support;

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{
    Request, Response, StatusCode, Uri,
    header::{AUTHORIZATION, LOCATION},
};
use http_body_util::Full;
use tower::{BoxError, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_http::follow_redirect::{
    FollowRedirectLayer,
    policy::{
        Action, FilterCredentials, Limited, Policy, PolicyExt, SameOrigin, Standard, redirect_fn,
    },
};
use tower_ploton::{Origin, PlotonAuth, auth::PlainHttpRefused};

use support::key;

type Body = Full<Bytes>;

/// Where the servers send a request, one after the other.
const CHAINS: [&[&str]; 8] = [
    &["https://evil.example/"],
    &["https://evil.example/", "https://evil.example/again"],
    &["https://evil.example/", "https://api.ploton.ai/back"],
    &[
        "https://evil.example/",
        "https://api.ploton.ai/back",
        "https://evil.example/again",
    ],
    &[
        "https://api.ploton.ai/on",
        "https://api.ploton.ai.evil.example/",
    ],
    &["https://api.ploton.ai@evil.example/"],
    &["https://api.ploton.ai:8443/"],
    &["//evil.example/", "/relative"],
];

/// Everybody's server: it sends requests along a chain, and notes where they came and whether they had a key.
#[derive(Clone)]
struct Network {
    chain: &'static [&'static str],
    status: StatusCode,
    seen: Arc<Mutex<Vec<(Uri, bool)>>>,
}

impl Network {
    fn new(chain: &'static [&'static str], status: StatusCode) -> Self {
        Self {
            chain,
            status,
            seen: Arc::default(),
        }
    }

    fn service(
        &self,
    ) -> impl Service<Request<Body>, Response = Response<Body>, Error = BoxError, Future: Send>
    + Clone
    + use<> {
        let network = self.clone();
        service_fn(move |request: Request<Body>| {
            let response = network.answer(&request);
            async { Ok::<_, BoxError>(response) }
        })
    }

    fn answer(&self, request: &Request<Body>) -> Response<Body> {
        let mut seen = self.seen.lock().unwrap();
        let mut response = Response::new(Body::default());
        if let Some(next) = self.chain.get(seen.len()) {
            *response.status_mut() = self.status;
            response
                .headers_mut()
                .insert(LOCATION, next.parse().unwrap());
        }
        let has_key = request.headers().contains_key(AUTHORIZATION);
        seen.push((request.uri().clone(), has_key));
        response
    }

    /// The requests that carried a key home, and those that carried it elsewhere.
    fn keys(&self) -> (Vec<Uri>, Vec<Uri>) {
        let seen = self.seen.lock().unwrap();
        let carried = seen.iter().filter(|(_, has_key)| *has_key);
        carried
            .map(|(uri, _)| uri.clone())
            .partition(|uri| Origin::default().contains(uri))
    }

    fn arrivals(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

async fn get<S>(service: S) -> Result<Response<Body>, BoxError>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = BoxError>,
{
    let request = Request::get("https://api.ploton.ai/v1/tasks");
    service
        .oneshot(request.body(Body::default()).unwrap())
        .await
}

/// How many of the chain's stops, and the first, are Ploton's.
fn at_home(chain: &[&str]) -> usize {
    let home = |stop: &&&str| Origin::default().contains(&stop.parse().unwrap());
    1 + chain.iter().filter(home).count()
}

async fn nothing_leaks_below<P>(policy: P)
where
    P: Policy<Body, BoxError> + Clone,
{
    for chain in CHAINS {
        for status in [StatusCode::FOUND, StatusCode::TEMPORARY_REDIRECT] {
            let network = Network::new(chain, status);
            let service = ServiceBuilder::new()
                .layer(FollowRedirectLayer::with_policy(policy.clone()))
                .layer(PlotonAuth::new(key()))
                .service(network.service());
            get(service).await.unwrap();
            let (home, elsewhere) = network.keys();
            assert_eq!(elsewhere, Vec::<Uri>::new(), "{chain:?}");
            assert_eq!(home.len(), at_home(chain), "{chain:?}");
            assert_eq!(network.arrivals(), chain.len() + 1);
        }
    }
}

#[tokio::test]
async fn outside_the_layer_any_policy_will_do() {
    nothing_leaks_below(Standard::default()).await;
    nothing_leaks_below(Limited::new(5)).await;
    nothing_leaks_below(redirect_fn(|_| Ok(Action::Follow))).await;
    let none_taken_out = FilterCredentials::new().remove_none();
    nothing_leaks_below(Limited::new(5).and::<_, Body, BoxError>(none_taken_out)).await;
}

#[tokio::test]
async fn a_redirect_to_plain_http_is_refused() {
    for chain in [
        &["http://api.ploton.ai/v1/tasks"][..],
        &["https://evil.example/", "http://api.ploton.ai:8080/"],
    ] {
        let network = Network::new(chain, StatusCode::FOUND);
        let service = ServiceBuilder::new()
            .layer(FollowRedirectLayer::new())
            .layer(PlotonAuth::new(key()))
            .service(network.service());
        let error = get(service).await.unwrap_err();
        assert!(error.is::<PlainHttpRefused>());
        assert_eq!(network.arrivals(), chain.len(), "the last was not sent");
    }
}

/// Follows each chain by `policy` inside the auth layer; the chains by which a key got elsewhere.
async fn leaks_above<P>(policy: P) -> usize
where
    P: Policy<Body, BoxError> + Clone,
{
    let mut leaks = 0;
    for chain in CHAINS {
        let network = Network::new(chain, StatusCode::FOUND);
        let service = ServiceBuilder::new()
            .layer(PlotonAuth::new(key()))
            .layer(FollowRedirectLayer::with_policy(policy.clone()))
            .service(network.service());
        get(service).await.unwrap();
        let (home, elsewhere) = network.keys();
        assert!(!home.is_empty());
        leaks += usize::from(!elsewhere.is_empty());
    }
    leaks
}

#[tokio::test]
async fn inside_the_layer_the_default_policy_keeps_the_key_at_home() {
    assert_eq!(leaks_above(Standard::default()).await, 0);
    let filtered = FilterCredentials::new().and::<_, Body, BoxError>(Limited::new(5));
    assert_eq!(leaks_above(filtered).await, 0);
    assert_eq!(leaks_above(SameOrigin::new()).await, 0);
}

/// So the layer's page says: should one of them stop, the page may say less.
#[tokio::test]
async fn inside_the_layer_the_policies_named_on_its_page_leak() {
    assert_eq!(leaks_above(Limited::new(5)).await, CHAINS.len());
    let follow = redirect_fn(|_| Ok(Action::Follow));
    assert_eq!(leaks_above(follow).await, CHAINS.len());
    let none_taken_out = FilterCredentials::new().remove_none();
    assert_eq!(leaks_above(none_taken_out).await, CHAINS.len());
}
