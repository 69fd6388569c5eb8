use proptest::prelude::*;
use tokio_test::{assert_pending, assert_ready_err, assert_ready_ok, task};
use tower_test::mock;

use super::*;

type Spawned = (
    mock::Spawn<BaseUrlService<mock::Mock<Request<String>, Response<()>>>>,
    mock::Handle<Request<String>, Response<()>>,
);

fn spawn(layer: PlotonBaseUrl) -> Spawned {
    mock::spawn_layer(layer)
}

/// Sends `request` and says what arrived at the inner service.
async fn arrived((service, server): &mut Spawned, request: Request<String>) -> Request<String> {
    assert_ready_ok!(service.poll_ready());
    let mut call = task::spawn(service.call(request));
    assert_pending!(call.poll());
    let (arrived, answer) = server.next_request().await.unwrap();
    answer.send_response(Response::new(()));
    assert_ready_ok!(call.poll());
    arrived
}

fn get(uri: &str) -> Request<String> {
    Request::get(uri).body(String::new()).unwrap()
}

#[tokio::test]
async fn a_relative_request_is_completed_once_and_its_query_kept() {
    let mut pair = spawn(PlotonBaseUrl::new());
    for (uri, expected) in [
        ("/tasks", "https://api.ploton.ai/v1/tasks"),
        ("/v1/tasks", "https://api.ploton.ai/v1/tasks"),
        ("/v1", "https://api.ploton.ai/v1"),
        ("/v1/", "https://api.ploton.ai/v1/"),
        ("/v10/tasks", "https://api.ploton.ai/v1/v10/tasks"),
        ("/", "https://api.ploton.ai/v1/"),
        ("/tasks/", "https://api.ploton.ai/v1/tasks/"),
        (
            "/tasks?a=/../b//c&d=%2e%2e",
            "https://api.ploton.ai/v1/tasks?a=/../b//c&d=%2e%2e",
        ),
        ("/v1?limit=1", "https://api.ploton.ai/v1?limit=1"),
        (
            "/tasks/a..b/.c/...",
            "https://api.ploton.ai/v1/tasks/a..b/.c/...",
        ),
        ("/tasks/a%20b%25", "https://api.ploton.ai/v1/tasks/a%20b%25"),
    ] {
        let request = arrived(&mut pair, get(uri)).await;
        assert_eq!(request.uri(), expected, "{uri}");
    }
}

#[tokio::test]
async fn another_base_is_taken_with_port_and_path_or_without() {
    for (base, expected) in [
        ("http://127.0.0.1:8080/v1", "http://127.0.0.1:8080/v1/tasks"),
        (
            "http://127.0.0.1:8080/v1/",
            "http://127.0.0.1:8080/v1/tasks",
        ),
        ("https://proxy.example", "https://proxy.example/tasks"),
        ("https://proxy.example/", "https://proxy.example/tasks"),
        (
            "https://proxy.example/a/b",
            "https://proxy.example/a/b/tasks",
        ),
    ] {
        let base = BaseUrl::parse(base).unwrap();
        let mut pair = spawn(PlotonBaseUrl::new().base_url(base.clone()));
        let request = arrived(&mut pair, get("/tasks")).await;
        assert_eq!(request.uri(), expected, "{base}");
        assert!(base.origin().contains(request.uri()));
    }
}

#[tokio::test]
async fn a_path_that_could_lead_out_is_refused_and_not_sent() {
    let (mut service, mut server) = spawn(PlotonBaseUrl::new());
    for uri in [
        "//evil.example/tasks",
        "/tasks//7",
        "/..",
        "/../v2/tasks",
        "/tasks/../../keys",
        "/tasks/./7",
        "/tasks/%2e%2E/keys",
        "/tasks/.%2e/keys",
        "/tasks/%252e%252e/keys",
        "/tasks/%25252525252e%25252525252e/keys",
        "/tasks/x%2f..%2f..%2fkeys",
        "/tasks/x%2F%2Fevil.example",
        "/tasks/..%5ckeys",
        "/%5cevil.example/x",
        "/tasks/..;a=b/keys",
        "/tasks/..%3b/keys",
        "/tasks/..%00/keys",
        "/v1/../keys",
        // No path at all: without a slash it reads as a host.
        "tasks",
        "*",
    ] {
        assert_ready_ok!(service.poll_ready());
        let mut call = task::spawn(service.call(get(uri)));
        let error = assert_ready_err!(call.poll(), "{uri}");
        assert!(error.is::<PathRefused>(), "{uri}");
    }
    let mut next = task::spawn(server.next_request());
    assert_pending!(next.poll(), "none of them reached the inner service");
}

#[test]
fn a_path_is_joined_whole_or_not_at_all() {
    let base = BaseUrl::default();
    for path in ["/tasks#x", "#", "?limit=1", "", "tasks", "/tasks/7#/cancel"] {
        assert_eq!(base.join(path), Err(PathRefused::new()), "{path}");
    }
    let joined = base.join("/tasks?tag=%23x").unwrap();
    assert_eq!(joined, "https://api.ploton.ai/v1/tasks?tag=%23x");
}

/// Each decoding went through all of it, and there was one for every two bytes: tens of seconds for this one.
#[test]
fn what_is_encoded_over_and_over_is_refused_at_once() {
    let base = BaseUrl::default();
    let encoded = |times: usize| format!("/%{}", "25".repeat(times));
    assert!(base.join(&encoded(8)).is_ok());
    for times in [9, 32_000] {
        assert_eq!(base.join(&encoded(times)), Err(PathRefused::new()));
    }
    let told = PathRefused::new().to_string();
    assert!(told.contains("encoded over and over"), "{told}");
}

#[tokio::test]
async fn an_absolute_request_for_another_origin_passes_untouched() {
    let mut pair = spawn(PlotonBaseUrl::new());
    for uri in [
        "https://evil.example/v1/../tasks//x",
        "http://api.ploton.ai/v1/tasks",
        "https://api.ploton.ai:8443/tasks",
    ] {
        let mut request = get(uri);
        *request.body_mut() = "{}".to_owned();
        let request = arrived(&mut pair, request).await;
        assert_eq!(request.uri(), uri);
        assert!(request.headers().is_empty(), "{uri}");
    }
    let connect = Request::connect("evil.example:443").body(String::new());
    let request = arrived(&mut pair, connect.unwrap()).await;
    assert_eq!(request.uri(), "evil.example:443");
    assert!(request.headers().is_empty());
}

#[tokio::test]
async fn headers_are_added_where_the_caller_set_none() {
    let mut pair = spawn(PlotonBaseUrl::new());
    let version = concat!("tower-ploton/", env!("CARGO_PKG_VERSION"));
    for uri in ["/tasks", "https://api.ploton.ai/v1/tasks"] {
        let request = Request::post(uri).body("{}".to_owned()).unwrap();
        let request = arrived(&mut pair, request).await;
        assert_eq!(request.headers()[CONTENT_TYPE], "application/json");
        assert_eq!(request.headers()[ACCEPT], "application/json");
        assert_eq!(request.headers()[USER_AGENT], version);

        let request = arrived(&mut pair, get(uri)).await;
        assert!(
            !request.headers().contains_key(CONTENT_TYPE),
            "no body, no type"
        );
        assert_eq!(request.headers()[ACCEPT], "application/json");

        let own = Request::post(uri)
            .header(CONTENT_TYPE, "application/json; charset=utf-8")
            .header(ACCEPT, "*/*")
            .header(USER_AGENT, "mine")
            .body("{}".to_owned());
        let request = arrived(&mut pair, own.unwrap()).await;
        assert_eq!(
            request.headers()[CONTENT_TYPE],
            "application/json; charset=utf-8"
        );
        assert_eq!(request.headers()[ACCEPT], "*/*");
        assert_eq!(request.headers()[USER_AGENT], "mine");
        assert_eq!(request.headers().len(), 3);
    }
}

#[tokio::test]
async fn the_user_agent_can_be_another_or_none() {
    let mut pair = spawn(PlotonBaseUrl::new().user_agent(HeaderValue::from_static("mine/1")));
    let request = arrived(&mut pair, get("/tasks")).await;
    assert_eq!(request.headers()[USER_AGENT], "mine/1");

    let mut pair = spawn(PlotonBaseUrl::new().user_agent(None));
    let request = arrived(&mut pair, get("/tasks")).await;
    assert!(!request.headers().contains_key(USER_AGENT));
}

#[test]
fn a_bad_base_is_an_error_that_says_why() {
    for (base, why) in [
        ("", "is a URI"),
        ("/v1", "is a URI"),
        ("api.ploton.ai", "is a URI"),
        ("http://api.ploton.ai/v1", "plain HTTP"),
        ("ftp://api.ploton.ai/v1", "scheme"),
        ("https://user@api.ploton.ai/v1", "user information"),
        ("https://api.ploton.ai/v1?x", "no query"),
        ("https://api.ploton.ai/v1#x", "no fragment"),
        ("https://api.ploton.ai//v1", "dot segment"),
        ("https://api.ploton.ai/v1//", "dot segment"),
        ("https://api.ploton.ai/a/../v1", "dot segment"),
        ("https://api.ploton.ai/%2e%2e/v1", "dot segment"),
    ] {
        let error = BaseUrl::parse(base).unwrap_err().to_string();
        assert!(error.contains(why), "{base}: {error}");
    }
}

proptest! {
    /// Against the resolution of dot segments that RFC 3986, 5.2.4, describes, after any number of decodings.
    #[test]
    fn whatever_is_joined_stays_below_the_base(
        parts in prop::collection::vec(
            prop::sample::select(vec!["/", ".", "..", "%2e", "%2F", "%25", "2e", "2f", "\\", ";", "a", "v1"]),
            0..12,
        ),
    ) {
        let path = format!("/{}", parts.concat());
        let Ok(uri) = BaseUrl::default().join(&path) else { return Ok(()) };
        prop_assert!(uri.to_string().starts_with("https://api.ploton.ai/v1"));
        let mut path = uri.path().to_owned();
        for _ in 0..8 {
            let mut depth = 0_i32;
            for segment in path.split(['/', '\\']).skip(1) {
                match segment.split(';').next() {
                    Some("..") => depth -= 1,
                    Some(".") => {}
                    _ => depth += 1,
                }
                prop_assert!(depth > 0, "{path}");
            }
            prop_assert!(!path.contains("//"), "{path}");
            path = path
                .replace("%2e", ".")
                .replace("%2F", "/")
                .replace("%2f", "/")
                .replace("%25", "%");
        }
    }
}
