//! A key in a file that others replace.

use std::{
    fs,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use http::{Request, Response};
use tower::{BoxError, ServiceExt, service_fn};

use super::{super::*, get};

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let name = format!("tower-ploton-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn key(&self) -> PathBuf {
        self.0.join("key")
    }

    /// Puts another file in the place of the key's, as mounted secrets change.
    fn replace(&self, text: &str) {
        let next = self.0.join("next");
        fs::write(&next, text).unwrap();
        fs::rename(next, self.key()).unwrap();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The key that a request through `auth` carries.
async fn carried(auth: &PlotonAuth) -> Result<String, BoxError> {
    let seen = Arc::new(Mutex::new(String::new()));
    let noted = seen.clone();
    let service = auth.layer(service_fn(move |request: Request<()>| {
        let key = request.headers()[AUTHORIZATION].to_str().unwrap();
        noted.lock().unwrap().push_str(key);
        async { Ok::<_, BoxError>(Response::new(())) }
    }));
    service.oneshot(get("https://api.ploton.ai/")).await?;
    let seen = seen.lock().unwrap().clone();
    Ok(seen)
}

/// `KeyFile::new(env::var("PLOTON_API_KEY")?)`: it showed the key.
#[test]
fn a_key_in_the_place_of_its_file_is_not_shown() {
    let shown = format!("{:?}", KeyFile::new("pk_test_hunter2hunter2"));
    assert!(shown.contains("pk_test_…"), "{shown}");
    assert!(!shown.contains("hunter2"), "{shown}");
    let shown = format!("{:?}", KeyFile::new("/run/secrets/ploton-key"));
    assert!(shown.contains("/run/secrets/ploton-key"), "{shown}");
}

#[tokio::test(start_paused = true)]
async fn a_key_file_is_read_again_and_a_broken_one_changes_nothing() {
    let folder = Folder::new("key-file");
    let auth = PlotonAuth::from_source(KeyFile::new(folder.key()));
    let failure = carried(&auth).await.unwrap_err();
    assert!(failure.is::<KeyUnavailable>());

    folder.replace("pk_test_one\n");
    assert_eq!(carried(&auth).await.unwrap(), "Bearer pk_test_one");

    folder.replace("pk_test_two\n");
    assert_eq!(carried(&auth).await.unwrap(), "Bearer pk_test_one");
    // Without requests for so long the file is read before the next one.
    tokio::time::advance(Duration::from_secs(20)).await;
    assert_eq!(carried(&auth).await.unwrap(), "Bearer pk_test_two");

    fs::remove_file(folder.key()).unwrap();
    tokio::time::advance(Duration::from_secs(20)).await;
    assert_eq!(carried(&auth).await.unwrap(), "Bearer pk_test_two");
    assert!(auth.key_handle().last_failure().is_some());

    folder.replace("pk_test_three\n");
    auth.key_handle().renew().await.unwrap();
    assert_eq!(carried(&auth).await.unwrap(), "Bearer pk_test_three");
}
