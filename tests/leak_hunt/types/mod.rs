//! How every public type prints itself, with the key in it or as near as it gets.
//!
//! A type that is missing in [`show_all`] fails the test: show it there, made with the key where it can hold one.

mod client;
mod keys;
mod limit;
#[cfg(feature = "redis")]
mod redis;
mod reqwests;
mod slots;

use std::{
    any::type_name, collections::BTreeSet, fmt::Debug, fs, num::NonZeroU32, path::Path,
    time::Duration, time::SystemTime,
};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use tokio::time::Instant;
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};
use tower_ploton::{
    ApiKey, Attempts, Deadline, IdempotencyKey, KeyKind, MaxAttempts, Origin, Plan, PlotonAuth,
    PlotonIdempotency, PlotonRateLimit, PlotonReplay, PlotonRetry, PlotonStack,
    auth::PlainHttpRefused,
    limit::{DeadlineTooSoon, QueueFull, WaitTooLong},
    mock::{FakePloton, Fault, RateHeaders, RateLimitModel},
    retry::{AttemptsFailed, DeadlinePassed, KeyExpired, ReplayBody, ReplayError},
};

use crate::{
    capture::{self, note, note_error, searched},
    create, get, key,
    needles::{KEY, SHOWN},
};

pub(crate) const PLOTON: &str = "https://api.ploton.ai";

/// The types that were shown, by their path.
#[derive(Default)]
pub(crate) struct Shown(pub(crate) BTreeSet<String>);

impl Shown {
    pub(crate) fn show<T: Debug>(&mut self, value: &T) {
        note(format_args!("{value:?} {value:#?}"));
        let name = type_name::<T>();
        let name = name.split('<').next().unwrap();
        self.0.insert(name.to_owned());
    }

    /// Shows an error of type `E`, which `error` is.
    pub(crate) fn error<E: std::error::Error + 'static>(&mut self, error: &BoxError) {
        note_error(&**error);
        self.show(error.downcast_ref::<E>().unwrap());
    }
}

/// Every public type of the crate as it is built, by the path where it stands: no `pub` in it is out of reach (`unreachable_pub`).
fn public_types() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                if cfg!(feature = "redis") || path != root.join("redis") {
                    folders.push(path);
                }
                continue;
            }
            let module = path.strip_prefix(&root).unwrap().with_extension("");
            let module: Vec<_> = module.iter().map(|part| part.to_str().unwrap()).collect();
            let module = module
                .into_iter()
                .filter(|part| !["mod", "lib"].contains(part));
            let module: String = module.map(|part| format!("{part}::")).collect();
            for line in fs::read_to_string(&path).unwrap().lines() {
                let line = line.trim_start();
                let kinds = ["pub struct ", "pub enum ", "pub union "];
                if let Some(rest) = kinds.iter().find_map(|kind| line.strip_prefix(kind)) {
                    let end = rest.find(|c: char| !c.is_alphanumeric());
                    let name = &rest[..end.unwrap_or(rest.len())];
                    found.insert(format!("tower_ploton::{module}{name}"));
                }
            }
        }
    }
    found
}

#[tokio::test(start_paused = true)]
async fn no_public_type_prints_the_key() {
    capture::start();
    let mut shown = Shown::default();
    show_all(&mut shown).await;
    let missing: Vec<_> = public_types().difference(&shown.0).cloned().collect();
    assert!(missing.is_empty(), "not shown in `show_all`: {missing:#?}");
    assert!(shown.0.len() > 50, "{}", shown.0.len());
    let text = searched();
    assert!(
        text.contains(&format!("ApiKey({SHOWN})")),
        "keys were shown"
    );
}

async fn show_all(shown: &mut Shown) {
    nouns(shown);
    keys::show_all(shown).await;
    client::show_all(shown).await;
    limit::show_all(shown).await;
    reqwests::show_all(shown).await;
    slots::show_all(shown).await;
    layers(shown).await;
    retry_errors(shown).await;
    limit_errors(shown).await;
    bodies(shown).await;
    mock(shown).await;
    #[cfg(feature = "redis")]
    redis::show_all(shown).await;
}

fn nouns(shown: &mut Shown) {
    shown.show(&key());
    shown.show(&KeyKind::Test);
    shown.show(&ApiKey::parse(&format!("{KEY} ")).unwrap_err());
    shown.show(&IdempotencyKey::random());
    shown.show(&IdempotencyKey::parse(&format!("{KEY} ")).unwrap_err());
    shown.show(&Origin::default());
    shown.show(&Origin::parse(&format!("https://{KEY}@api.ploton.ai")).unwrap_err());
    shown.show(&Plan::Production);
    shown.show(&Deadline(Instant::now()));
    shown.show(&MaxAttempts(NonZeroU32::MIN));
    // Of the feature `metrics`: they hold what stands in the source.
    for name in ["Kind", "Metric"] {
        shown.0.insert(format!("tower_ploton::metrics::{name}"));
    }
}

async fn layers(shown: &mut Shown) {
    let fake = FakePloton::new().plan(Plan::Production);
    let request = || create(PLOTON, "one");

    let auth = PlotonAuth::new(key());
    shown.show(&auth);
    let mut service = auth.layer(fake.clone());
    shown.show(&service);
    shown.show(&ready(&mut service).await.call(request()));
    let plain = service.oneshot(get("http://api.ploton.ai")).await;
    shown.error::<PlainHttpRefused>(&plain.unwrap_err());

    // What is in front of the layer that adds the key holds it by that layer's service; what is behind, in the request.
    let network = auth.layer(fake.clone());
    let idempotency = PlotonIdempotency::new();
    shown.show(&idempotency);
    let mut service = idempotency.layer(network.clone());
    shown.show(&service);
    shown.show(&ready(&mut service).await.call(bearing(request())));

    let retry = PlotonRetry::new();
    shown.show(&retry);
    shown.show(&retry.handle());
    let mut service = retry.layer(network.clone());
    shown.show(&service);
    shown.show(&ready(&mut service).await.call(bearing(request())));
    let cloning = retry.clone_body_with(|body: &Full<Bytes>| Some(body.clone()));
    shown.show(&cloning);
    shown.show(&cloning.layer(network.clone()));

    let limit = PlotonRateLimit::new(Plan::Production);
    shown.show(&limit);
    shown.show(&limit.handle());
    let mut service = limit.layer(network.clone());
    shown.show(&service);
    shown.show(&ready(&mut service).await.call(bearing(request())));
    service.oneshot(bearing(request())).await.unwrap();
    let snapshot = limit.handle().snapshot();
    shown.show(&snapshot);
    shown.show(&snapshot.mode);
    shown.show(&snapshot.server.expect("the fake says its limit"));
    let until = Instant::now() + Duration::from_secs(1);
    limit.handle().pause_until(until);
    shown.show(&limit.handle().snapshot().held_by.expect("paused"));

    let stack = PlotonStack::new(key(), Plan::Production);
    shown.show(&stack);
    let mut service = stack.layer(fake);
    shown.show(&service);
    shown.show(&ready(&mut service).await.call(request()));
}

pub(crate) async fn ready<S>(service: &mut S) -> &mut S
where
    S: Service<Request<Full<Bytes>>>,
    S::Error: Debug,
{
    service.ready().await.unwrap()
}

/// With a bearer of the caller's own.
pub(crate) fn bearing<B>(mut request: Request<B>) -> Request<B> {
    let mut value = http::HeaderValue::try_from(format!("Bearer {KEY}")).unwrap();
    value.set_sensitive(true);
    request.headers_mut().insert("authorization", value);
    request
}

async fn retry_errors(shown: &mut Shown) {
    let fails = service_fn(async |_: Request<Full<Bytes>>| {
        Err::<http::Response<Full<Bytes>>, _>(std::io::Error::from(
            std::io::ErrorKind::ConnectionReset,
        ))
    });
    let retry = PlotonRetry::new();
    let service = PlotonIdempotency::new().layer(retry.layer(fails));
    let error = service
        .clone()
        .oneshot(bearing(create(PLOTON, "one")))
        .await;
    let error = error.unwrap_err();
    shown.error::<AttemptsFailed>(&error);
    let failed = error.downcast_ref::<AttemptsFailed>().unwrap();
    shown.show::<Attempts>(failed.attempts());

    let mut late = bearing(create(PLOTON, "one"));
    late.extensions_mut().insert(Deadline(Instant::now()));
    let error = service.clone().oneshot(late).await.unwrap_err();
    shown.error::<DeadlinePassed>(&error);

    let mut old = bearing(create(PLOTON, "one"));
    let first_used = SystemTime::UNIX_EPOCH;
    old.extensions_mut()
        .insert(IdempotencyKey::derive(KEY).first_used(first_used));
    shown.error::<KeyExpired>(&service.oneshot(old).await.unwrap_err());

    let (ends, mut ended) = tokio::sync::mpsc::unbounded_channel();
    let retry = PlotonRetry::new().classify_with(move |end| {
        let mut shown = Shown::default();
        shown.show(end);
        shown.show(&end.outcome());
        ends.send(shown).unwrap();
        end.outcome()
    });
    let request = bearing(create(PLOTON, "one"));
    retry.layer(fails).oneshot(request).await.unwrap_err();
    shown.0.extend(ended.recv().await.unwrap().0);
}

async fn limit_errors(shown: &mut Shown) {
    let paused = |limit: PlotonRateLimit| {
        let hour = Duration::from_secs(60 * 60);
        limit.handle().pause_until(Instant::now() + hour);
        limit.layer(PlotonAuth::new(key()).layer(FakePloton::new()))
    };
    let limit = || PlotonRateLimit::new(Plan::Production);
    let request = || bearing(create(PLOTON, "one"));
    let full = paused(limit().max_waiting(0)).oneshot(request()).await;
    shown.error::<QueueFull>(&full.unwrap_err());
    let long = paused(limit().max_wait(Duration::ZERO))
        .oneshot(request())
        .await;
    shown.error::<WaitTooLong>(&long.unwrap_err());
    let mut soon = request();
    let deadline = Deadline(Instant::now() + Duration::from_secs(1));
    soon.extensions_mut().insert(deadline);
    // The place taken in `poll_ready` knows no deadline: another service's call is first in the queue.
    let mut service = paused(limit());
    let ready = tokio::time::timeout(Duration::ZERO, ready(&mut service)).await;
    assert!(ready.is_err());
    let error = service.call(soon).await.unwrap_err();
    shown.error::<DeadlineTooSoon>(&error);
}

async fn bodies(shown: &mut Shown) {
    let body = ReplayBody::new(Limited::new(Full::<Bytes>::from(KEY), 20));
    shown.show(&body);
    let error = body.collect().await.unwrap_err();
    shown.show::<ReplayError>(&error);
    note_error(&error);
    let replay = PlotonReplay::new();
    shown.show(&replay);
    shown.show(&replay.layer(PlotonAuth::new(key()).layer(FakePloton::new())));
    let map = PlotonReplay::map(ReplayBody::new as fn(Full<Bytes>) -> _);
    shown.show(&map);
    shown.show(&map.layer(PlotonAuth::new(key()).layer(FakePloton::new())));
}

async fn mock(shown: &mut Shown) {
    let fake = FakePloton::new().accept_key(KEY).plan(Plan::Production);
    shown.show(&fake);
    let response = fake.clone().oneshot(bearing(create(PLOTON, "one"))).await;
    shown.show(&response.unwrap().into_body());
    fake.revoke_key(KEY);
    let refused = fake.clone().oneshot(bearing(create(PLOTON, "two"))).await;
    assert_eq!(refused.unwrap().status(), StatusCode::UNAUTHORIZED);
    shown.show(&fake.attempts()[0]);
    shown.show(&fake.attempts()[0].outcome);
    shown.show(&fake.counts());
    shown.show(&fake.tasks()[0]);
    shown.show(&fake.tasks()[0].status);
    shown.show(&Fault::CutAfter);
    shown.show(&RateHeaders::Always);
    shown.show(&RateLimitModel::for_plan(Plan::Production));
    shown.show(&fake.listen().await.unwrap());
}
