//! Where keys come from, before and after they gave theirs, and what goes wrong with them.

use std::{fs, path::Path};

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use tower::{BoxError, Layer, ServiceExt, service_fn};
use tower_ploton::{
    ApiKey, PlotonAuth,
    auth::{FreshKey, KeyFile, KeyRenewed, KeyUnavailable},
};

use super::{PLOTON, Shown};
use crate::{capture::note_error, get, key, key_file, needles::KEY};

pub(super) async fn show_all(shown: &mut Shown) {
    shown.show(&FreshKey::from(key()));
    shown.show(&KeyFile::new(key_file()));
    bad_keys(shown);

    let auth = PlotonAuth::from_source(KeyFile::new(key_file()));
    let handle = auth.key_handle();
    shown.show(&handle);
    handle.renew().await.unwrap();
    shown.show(&handle);
    shown.show(&auth);
    assert_eq!(handle.key(), Some(key()));

    let fails = PlotonAuth::from_source(async || Err::<ApiKey, _>("the store is sealed"));
    let service = fails.layer(service_fn(async |_| {
        Ok::<_, BoxError>(Response::new(Full::<Bytes>::default()))
    }));
    let error = service.oneshot(get(PLOTON)).await.unwrap_err();
    shown.error::<KeyUnavailable>(&error);
    shown.show(&fails.key_handle());

    let replaced = PlotonAuth::new(key());
    let handle = replaced.key_handle();
    let refuses = replaced.layer(service_fn(move |_| {
        let set = handle.set(ApiKey::parse("pk_test_0000000000000000").unwrap());
        let refused = Response::builder().status(StatusCode::UNAUTHORIZED);
        let refused = refused.body(Full::<Bytes>::default()).unwrap();
        std::future::ready(set.map(|()| refused))
    }));
    let refused = refuses.oneshot(get(PLOTON)).await.unwrap();
    shown.show::<KeyRenewed>(refused.extensions().get().unwrap());
}

fn bad_keys(shown: &mut Shown) {
    let live = ApiKey::parse(&KEY.replace("test", "live")).unwrap();
    let wrong = PlotonAuth::new(key()).key_handle().set(live).unwrap_err();
    note_error(&wrong);
    shown.show(&wrong);

    // What is in the file is close to a key.
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("leak_hunt.bad_key");
    fs::write(&path, format!("{KEY} {KEY}")).unwrap();
    let unread = ApiKey::from_file(&path).unwrap_err();
    note_error(&unread);
    shown.show(&unread);
    note_error(&ApiKey::from_env("TOWER_PLOTON_NO_SUCH_KEY").unwrap_err());
}
