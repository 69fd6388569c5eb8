//! What stands around a reqwest client.

use std::any::type_name;

use bytes::Bytes;
use reqwest::{Body, Client};
use reqwest_middleware::{ClientBuilder, Error};
use tower::{Layer, Service, ServiceExt};
use tower_ploton::{
    Plan, PlotonRetry, PlotonStack,
    mock::{FakePloton, Fault},
    reqwest::{
        FromReqwest, IntoReqwest, IntoReqwestService, MiddlewareError, NextService,
        PlotonMiddleware, ReqwestBody,
    },
    stack::StackService,
};

use super::Shown;
use crate::{
    capture::{note, note_error},
    key,
    needles::KEY,
    origin,
};

pub(super) async fn show_all(shown: &mut Shown) {
    let fake = FakePloton::new();
    let server = fake.listen().await.unwrap();
    let stack = PlotonStack::new(key(), Plan::Production)
        .origin(origin(&server.url()))
        .retry(PlotonRetry::new().attempts(2));
    let client = Client::builder().no_proxy().build().unwrap();
    let create = || {
        let request = client.post(format!("{}/v1/tasks", server.url()));
        request.bearer_auth(KEY).body(KEY)
    };

    let from = FromReqwest::new();
    shown.show(&from);
    let into = IntoReqwest::new();
    shown.show(&into);
    let mut service = from.layer(stack.layer(into.layer(client.clone())));
    shown.show(&service);
    let ready = ServiceExt::<reqwest::Request>::ready(&mut service).await;
    shown.show(&ready.unwrap().call(create().build().unwrap()));
    let mut service = into.layer(client.clone());
    shown.show(&service);
    let request = http::Request::<Body>::try_from(create().build().unwrap()).unwrap();
    let ready = ServiceExt::<http::Request<Body>>::ready(&mut service).await;
    shown.show(&ready.unwrap().call(request));
    shown.show(&ReqwestBody::from(Bytes::from_static(KEY.as_bytes())));

    let middleware = PlotonMiddleware::new(Peek(stack));
    shown.show(&middleware);
    let ploton = ClientBuilder::new(client.clone()).with(middleware).build();
    fake.fail_next(Fault::CutBefore);
    fake.fail_next(Fault::CutBefore);
    let url = format!("{}/v1/tasks", server.url());
    let error = ploton.post(url).body(KEY).send().await.unwrap_err();
    note_error(&error);
    let Error::Middleware(error) = error else {
        panic!("{error}")
    };
    shown.show::<MiddlewareError>(error.downcast_ref().unwrap());
    // By the layer, for it is there alone.
    let name = type_name::<NextService<'_>>().split('<').next().unwrap();
    shown.0.insert(name.to_owned());
}

/// A stack that shows what it is put around.
#[derive(Clone, Debug)]
struct Peek(PlotonStack);

type Inner<'a> = IntoReqwestService<NextService<'a>>;

impl<'a> Layer<Inner<'a>> for Peek {
    type Service = StackService<Inner<'a>>;

    fn layer(&self, inner: Inner<'a>) -> Self::Service {
        let shown = format!("{inner:?} {inner:#?}");
        assert!(shown.contains("NextService"));
        note(shown);
        self.0.layer(inner)
    }
}
