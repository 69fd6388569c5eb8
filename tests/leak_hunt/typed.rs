//! How the types of the base URL, the typed client and the ready client print themselves.

use std::{future, time::Duration};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_ploton::{
    BaseUrl, Plan, PlotonAuth, PlotonBaseUrl, PlotonStack,
    api::{ApiError, Error, NewTask, PageSize, Ploton, PlotonErrors, TaskId},
    base_url::PathRefused,
    client::Https,
    mock::FakePloton,
};

use crate::{
    capture::{note, note_error},
    get, key,
    needles::KEY,
    types::{PLOTON, Shown, bearing, ready},
};

pub(crate) async fn api(shown: &mut Shown) {
    let base_url = PlotonBaseUrl::new();
    shown.show(&base_url);
    let mut service = base_url.layer(PlotonAuth::new(key()).layer(FakePloton::new()));
    shown.show(&service);
    shown.show(&ready(&mut service).await.call(bearing(get("/tasks"))));
    let refused = service.oneshot(get("/../keys")).await.unwrap_err();
    shown.error::<PathRefused>(&refused);
    shown.show(&BaseUrl::default());
    let with_key = format!("https://api.ploton.ai/v1?key={KEY}");
    shown.show(&BaseUrl::parse(&with_key).unwrap_err());

    let errors = PlotonErrors::new();
    shown.show(&errors);
    let mut service = errors.layer(PlotonAuth::new(key()).layer(FakePloton::new()));
    shown.show(&service);
    shown.show(&ready(&mut service).await.call(bearing(get(PLOTON))));
    // A server that says which key it refuses, as a code, in words and in a header.
    let error = serde_json::json!({"error": {"code": KEY, "message": format!("not {KEY}")}});
    let service = errors.layer(echo(401, &error.to_string()));
    let error = service.oneshot(get(PLOTON)).await.unwrap_err();
    shown.error::<ApiError>(&error);
    let error: &ApiError = error.downcast_ref().unwrap();
    shown.show(error.code().unwrap());
    note(format_args!(
        "{} {}",
        error.message(),
        error.request_id().unwrap()
    ));
    // One that sends back what it was sent.
    let page = errors.layer(echo(502, &format!("<pre>Bearer {KEY}</pre>")));
    shown.error::<ApiError>(&page.oneshot(get(PLOTON)).await.unwrap_err());

    let new = NewTask::new("one").unwrap();
    let ploton = Ploton::new(echo(
        200,
        &serde_json::json!({"id": 7, "key": KEY}).to_string(),
    ));
    let error = ploton.create_task(&new).await.unwrap_err();
    note_error(&error);
    shown.show(&error);
    let Error::Unreadable(error) = error else {
        panic!("{error}")
    };
    shown.show(&error);

    // serde repeats what it did not expect.
    for body in [
        serde_json::json!(KEY),
        serde_json::json!({"data": [KEY], "has_more": false}),
    ] {
        let ploton = Ploton::new(echo(200, &body.to_string()));
        note_error(&ploton.create_task(&new).await.unwrap_err());
        note_error(&ploton.tasks().next().await.unwrap().unwrap_err());
    }

    let ploton = Ploton::new(PlotonStack::new(key(), Plan::Production).layer(FakePloton::new()));
    shown.show(&ploton);
    shown.show(&new);
    shown.show(&NewTask::new(KEY.repeat(1_000)).unwrap_err());
    let task = ploton.create_task(&new).await.unwrap();
    shown.show(&task);
    shown.show(&task.status);
    shown.show(&task.id);
    shown.show(&TaskId::parse(&format!("{KEY} ")).unwrap_err());
    let wait = ploton.wait_for(&task.id).within(Duration::ZERO);
    shown.show(&wait);
    let Err(Error::StillRunning(error)) = wait.await else {
        panic!("it runs")
    };
    shown.show(&error);
    shown.show(&ploton.tasks());
    shown.show(&PageSize::default());
    shown.show(&PageSize::new(0).unwrap_err());
    let page = echo(
        200,
        r#"{"data":[{"id":"task_1","status":"running"}],"has_more":true}"#,
    );
    let mut tasks = Ploton::new(page).tasks();
    let error = loop {
        if let Err(error) = tasks.next().await.unwrap() {
            break error;
        }
    };
    let Error::PagesRepeat(error) = error else {
        panic!("{error}")
    };
    shown.show(&error);
    shown.show(
        &ploton
            .cancel_by(http::Method::POST, &format!("/{KEY}"))
            .unwrap_err(),
    );
}

/// Answers everything alike, with the key as the request's id.
fn echo(
    status: u16,
    body: &str,
) -> impl Service<
    Request<Full<Bytes>>,
    Response = http::Response<Full<Bytes>>,
    Error = http::Error,
    Future: Send,
> + Clone
+ Send
+ use<> {
    let body = Bytes::copy_from_slice(body.as_bytes());
    service_fn(move |_: Request<Full<Bytes>>| {
        let response = http::Response::builder().status(status);
        let response = response.header("x-request-id", KEY);
        future::ready(response.body(Full::new(body.clone())))
    })
}

pub(crate) fn client(shown: &mut Shown) {
    let https = Https::new().unwrap();
    shown.show(&https);
    let mut client = https.client();
    shown.show(&client);
    shown.show(&client.call(bearing(get("http://api.ploton.ai"))));
    // It comes of a machine without certificates, and holds what is said of their files.
    shown
        .0
        .insert("tower_ploton::client::tls::NoRoots".to_owned());
}
