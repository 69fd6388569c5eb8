//! The layers outside the four, the typed client, and the ready one, over a service that adds the key.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::Full;
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};
use tower_ploton::{
    BaseUrl, Plan, PlotonAuth, PlotonBaseUrl, PlotonTaskLimit, TaskSlot,
    api::{
        ApiError, Error, NewTask, PageSize, Ploton, PlotonErrors, Task, TaskId, TaskStatus, pages,
    },
    base_url::PathRefused,
    client::{Https, NoRoots},
    mock::FakePloton,
    tasks::NoTaskSlot,
};

use super::{PLOTON, Shown, bearing, ready};
use crate::{capture::note_error, create, get, key, needles::KEY};

pub(super) async fn show_all(shown: &mut Shown) {
    base_url(shown).await;
    tasks(shown).await;
    errors(shown).await;
    typed(shown).await;
    unreadable(shown).await;
    ready_client(shown);
}

async fn base_url(shown: &mut Shown) {
    shown.show(&BaseUrl::default());
    let bad = BaseUrl::parse(&format!("ftp://{KEY}")).unwrap_err();
    note_error(&bad);
    shown.show(&bad);
    let layer = PlotonBaseUrl::new();
    shown.show(&layer);
    let mut service = layer.layer(PlotonAuth::new(key()).layer(FakePloton::new()));
    shown.show(&service);
    shown.show(&ready(&mut service).await.call(bearing(get("/tasks"))));
    let refused = service.oneshot(bearing(get("/tasks/%2e%2e/keys"))).await;
    shown.error::<PathRefused>(&refused.unwrap_err());
}

async fn tasks(shown: &mut Shown) {
    let limit = PlotonTaskLimit::new(Plan::Prototyping).max_wait(Duration::ZERO);
    shown.show(&limit);
    shown.show(&limit.handle());
    shown.show(&limit.handle().snapshot());
    let mut service = limit.layer(PlotonAuth::new(key()).layer(FakePloton::new()));
    shown.show(&service);
    shown.show(&ready(&mut service).await.call(bearing(create(PLOTON, "0"))));
    // The one that was called and dropped may have been sent: it keeps its slot.
    for n in 1..=9 {
        let prompt = n.to_string();
        let response = service.clone().oneshot(bearing(create(PLOTON, &prompt)));
        shown.show::<TaskSlot>(response.await.unwrap().extensions().get().unwrap());
    }
    let full = service.oneshot(bearing(create(PLOTON, "eleven"))).await;
    shown.error::<NoTaskSlot>(&full.unwrap_err());
}

/// A server that answers with all that it knows of the request, the key among it.
async fn tells_all(
    request: Request<Full<Bytes>>,
    status: StatusCode,
) -> Result<Response<Full<Bytes>>, BoxError> {
    let told = |headers: &HeaderMap| {
        let bearer = headers["authorization"].to_str().unwrap();
        serde_json::json!({ "error": { "code": KEY, "message": bearer } }).to_string()
    };
    let body = told(request.headers());
    Ok(Response::builder().status(status).body(body.into())?)
}

async fn errors(shown: &mut Shown) {
    let layer = PlotonErrors::new();
    shown.show(&layer);
    let service = service_fn(|request| tells_all(request, StatusCode::FORBIDDEN));
    let mut service = layer.layer(PlotonAuth::new(key()).layer(service));
    shown.show(&layer.layer(FakePloton::new()));
    shown.show(&ready(&mut service).await.call(bearing(get(PLOTON))));
    let error = service.oneshot(get(PLOTON)).await.unwrap_err();
    shown.error::<ApiError>(&error);
    let error = error.downcast_ref::<ApiError>().unwrap();
    shown.show(error.code().unwrap());
}

async fn typed(shown: &mut Shown) {
    let fake = FakePloton::new();
    let ploton = Ploton::new(PlotonAuth::new(key()).layer(fake.clone()));
    shown.show(&ploton);
    let new = NewTask::new("Summarise invoice 42").unwrap();
    shown.show(&new);
    let task = ploton.create_task(&new).await.unwrap();
    shown.show::<Task>(&task);
    shown.show::<TaskStatus>(&task.status);
    shown.show::<TaskId>(&task.id);
    shown.show(&ploton.tasks());
    let wait = ploton.wait_for(&task.id).within(Duration::ZERO);
    shown.show(&wait);
    match wait.await.unwrap_err() {
        Error::StillRunning(still) => {
            note_error(&still);
            shown.show(&still);
        }
        other => panic!("{other}"),
    }

    shown.show(&PageSize::default());
    let size = PageSize::new(0).unwrap_err();
    note_error(&size);
    shown.show(&size);
    let id = TaskId::parse(&KEY.repeat(10)).unwrap_err();
    note_error(&id);
    shown.show(&id);
    let long = NewTask::new(KEY.repeat(1_000)).unwrap_err();
    note_error(&long);
    shown.show(&long);
    let path = ploton.cancel_by(http::Method::POST, KEY).unwrap_err();
    note_error(&path);
    shown.show(&path);
}

async fn unreadable(shown: &mut Shown) {
    let service = service_fn(|request| tells_all(request, StatusCode::OK));
    let ploton = Ploton::new(PlotonAuth::new(key()).layer(service));
    let id = TaskId::parse("task_1").unwrap();
    let error = ploton.task(&id).await.unwrap_err();
    note_error(&error);
    shown.show(&error);
    match &error {
        Error::Unreadable(unreadable) => shown.show(unreadable),
        other => panic!("{other}"),
    }

    // The same page again and again.
    let service = service_fn(async |_: Request<Full<Bytes>>| {
        let page = r#"{"data":[{"id":"task_1"}],"has_more":true}"#;
        Ok::<_, BoxError>(Response::new(Full::<Bytes>::from(page)))
    });
    let service = PlotonAuth::new(key()).layer(service);
    let mut rows = pages::<serde_json::Value>(service, "/tasks", PageSize::default());
    let error = loop {
        if let Err(error) = rows.next().await.expect("it goes on for ever") {
            break error;
        }
    };
    match error {
        Error::PagesRepeat(repeat) => {
            note_error(&repeat);
            shown.show(&repeat);
        }
        other => panic!("{other}"),
    }
}

fn ready_client(shown: &mut Shown) {
    let https = Https::new().unwrap();
    shown.show(&https);
    let mut client = https.client();
    shown.show(&client);
    shown.show(&client.call(bearing(get("http://127.0.0.1:1"))));
    shown.0.insert(std::any::type_name::<NoRoots>().to_owned());
}
