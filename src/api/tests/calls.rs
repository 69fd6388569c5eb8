use std::{error::Error as _, time::Duration};

use http::{HeaderValue, Method};
use tokio::time;
use tower::{BoxError, Layer, service_fn, util::BoxCloneService};

use super::*;
use crate::{
    ApiKey, BaseUrl, IdempotencyKey, Origin, Plan, PlotonAuth, PlotonRetry, PlotonStack,
    api::{Error, ErrorCode, NewTask, Ploton, PlotonErrors, PlotonService, TaskId, TaskStatus},
    base_url::PathRefused,
    mock::{FakePloton, Fault},
    retry::KeyExpired,
};

fn new_task() -> NewTask {
    NewTask::new("Pay invoice 42").unwrap()
}

fn stack() -> PlotonStack {
    let key = ApiKey::parse("pk_test_4f9d0c2b7a6e1583").unwrap();
    PlotonStack::new(key, Plan::Production)
}

#[tokio::test]
async fn a_call_is_a_request_as_the_api_page_words_it() {
    let server = Server::new(|_, _| answer(200, Scripted::whole(TASK)));
    let ploton = Ploton::new(server.clone());
    let key = IdempotencyKey::parse("invoice-42").unwrap();
    let task = new_task()
        .field("tool", "crm")
        .field("prompt", "other")
        .idempotency_key(key);
    let created = ploton.create_task(&task).await.unwrap();
    assert_eq!(created.tool.as_deref(), Some("crm"));
    let odd = TaskId::parse("a/b?c#d%2e").unwrap();
    ploton.task(&odd).await.unwrap();
    ploton.cancel_task(&created.id).await.unwrap();

    let [create, show, cancel] = server.arrived().try_into().unwrap();
    assert_eq!(create.method, "POST");
    assert_eq!(create.uri, "https://api.ploton.ai/v1/tasks");
    assert_eq!(create.body, r#"{"prompt":"Pay invoice 42","tool":"crm"}"#);
    assert_eq!(create.headers["content-type"], "application/json");
    assert_eq!(create.headers["idempotency-key"], "invoice-42");
    assert_eq!(show.method, "GET");
    assert_eq!(
        show.uri,
        "https://api.ploton.ai/v1/tasks/a%2Fb%3Fc%23d%252e"
    );
    assert!(show.body.is_empty() && !show.headers.contains_key("content-type"));
    assert!(!show.headers.contains_key("idempotency-key"));
    assert_eq!(cancel.method, "POST");
    assert_eq!(
        cancel.uri,
        "https://api.ploton.ai/v1/tasks/task_8xK2mP/cancel"
    );
    assert!(cancel.headers.contains_key("idempotency-key"));
    for request in [create, show, cancel] {
        assert_eq!(request.headers["accept"], "application/json");
        assert!(
            request.headers["user-agent"]
                .to_str()
                .unwrap()
                .starts_with("tower-ploton/")
        );
    }
}

#[tokio::test]
async fn an_id_that_looks_like_a_way_out_is_not_sent() {
    let server = Server::new(|_, _| answer(200, Scripted::whole(TASK)));
    let ploton = Ploton::new(server.clone());
    for id in ["..;x", "a/../../b", "..%2fkeys"] {
        let id = TaskId::parse(id).unwrap();
        let Err(Error::Service { error, .. }) = ploton.task(&id).await else {
            panic!("{id} was sent")
        };
        assert!(error.is::<PathRefused>());
    }
    assert!(server.arrived().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_post_whose_answer_broke_off_is_repeated_with_the_same_key() {
    for (broken, created) in [(1, true), (3, true), (4, false), (9, false)] {
        let fake = FakePloton::new();
        for _ in 0..broken {
            fake.fail_next(Fault::TruncatedBody);
        }
        let result = Ploton::new(stack().layer(fake.clone()))
            .create_task(&new_task())
            .await;
        assert_eq!(fake.counts().created, 1, "however often it is sent");
        let attempts = fake.attempts();
        assert_eq!(attempts.len(), (broken + 1).min(4));
        let key = attempts[0].idempotency_key.clone().unwrap();
        assert!(
            attempts
                .iter()
                .all(|attempt| attempt.idempotency_key.as_ref() == Some(&key))
        );
        match result {
            Ok(task) => assert!(created && task.id.as_str() == fake.tasks()[0].id),
            Err(Error::Unreadable(error)) => {
                assert!(!created);
                assert_eq!(error.calls(), 4);
                assert_eq!(error.status(), 201);
                assert_eq!(error.idempotency_key().unwrap().as_str(), key);
                let source: &io::Error = error.source().unwrap().downcast_ref().unwrap();
                assert_eq!(source.kind(), io::ErrorKind::UnexpectedEof);
            }
            Err(other) => panic!("{other}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_end_is_bounded_in_time_and_counts_as_broken_off() {
    let slow = || {
        Scripted::new([
            Step::Data("{".into()),
            Step::Wait(Duration::from_secs(3600)),
        ])
    };
    let start = tokio::time::Instant::now();
    let server = Server::scripted(
        200,
        vec![slow(), Scripted::whole(&TASK[..20]), Scripted::whole(TASK)],
    );
    let task = Ploton::new(server.clone())
        .task(&TaskId::parse("task_8xK2mP").unwrap())
        .await;
    assert_eq!(task.unwrap().status, TaskStatus::Running);
    assert_eq!(server.arrived().len(), 3);
    assert!((30..=31).contains(&(tokio::time::Instant::now() - start).as_secs()));

    let server = Server::new(move |_, _| answer(200, slow()));
    let error = Ploton::new(server)
        .create_task(&new_task())
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        r#"200, but the body did not end within 30 s: "{" (4 calls)"#
    );
}

#[tokio::test(start_paused = true)]
async fn the_bounds_and_the_user_agent_are_the_callers_to_choose() {
    let slow = [Step::Wait(Duration::from_secs(40)), Step::Data(TASK.into())];
    let server = Server::scripted(200, vec![Scripted::new(slow)]);
    let patient = Ploton::new(server.clone())
        .body_timeout(Duration::MAX)
        .user_agent(None);
    patient.create_task(&new_task()).await.unwrap();
    assert!(!server.arrived()[0].headers.contains_key("user-agent"));

    let server = Server::new(|_, _| answer(200, Scripted::whole(TASK)));
    let strict = Ploton::new(server.clone()).max_body(TASK.len() - 1);
    let strict = strict.user_agent(HeaderValue::from_static("mine/1"));
    let error = strict.create_task(&new_task()).await.unwrap_err();
    let text = format!("the body has more than {} bytes", TASK.len() - 1);
    assert!(error.to_string().contains(&text), "{error}");
    strict
        .max_body(TASK.len())
        .create_task(&new_task())
        .await
        .unwrap();
    assert_eq!(server.arrived()[1].headers["user-agent"], "mine/1");
}

#[tokio::test]
async fn a_body_that_would_be_the_same_again_is_not_asked_for_again() {
    let megabyte = Bytes::from(vec![b' '; 1 << 20]);
    let table = [
        (Scripted::whole(""), "200, but the body is empty"),
        (
            Scripted::whole("<html>"),
            r#"200, but the body is not JSON: "<html>""#,
        ),
        (
            Scripted::whole(r#"{"id":7}"#),
            r#"200, but the body is not what was expected: "{"id":7}""#,
        ),
        (
            Scripted::whole(r#"{"id":"","status":"running"}"#),
            r#"200, but the body is not what was expected: "{"id":"","status":"running"}""#,
        ),
        (
            Scripted::new([Step::Endless(megabyte)]),
            r#"200, but the body has more than 16777216 bytes: """#,
        ),
    ];
    for (body, expected) in table {
        let server = Server::scripted(200, vec![body]);
        let error = Ploton::new(server.clone())
            .create_task(&new_task())
            .await
            .unwrap_err();
        assert_eq!(error.to_string(), expected);
        assert_eq!(server.arrived().len(), 1);
    }
}

#[tokio::test]
async fn a_task_is_a_task_whatever_its_lesser_fields_hold() {
    let bodies = [
        r#"{"id":"task_1","status":"running"}"#,
        r#"{"id":"task_1","status":"running","tool":null,"created_at":"yesterday","result":{"a":[1]}}"#,
        r#"{"id":"task_1","status":"running","tool":7,"created_at":1718459532}"#,
    ];
    for body in bodies {
        let server = Server::scripted(201, vec![Scripted::whole(body)]);
        let task = Ploton::new(server).create_task(&new_task()).await.unwrap();
        assert_eq!(
            (task.id.as_str(), task.status),
            ("task_1", TaskStatus::Running)
        );
        assert_eq!((task.tool, task.created_at), (None, None));
    }
    let statuses = [
        ("running", TaskStatus::Running, false),
        ("complete", TaskStatus::Complete, true),
        ("failed", TaskStatus::Failed, true),
        ("cancelled", TaskStatus::Cancelled, true),
        ("canceled", TaskStatus::Cancelled, true),
        ("queued", TaskStatus::Other("queued".into()), false),
    ];
    for (text, status, is_final) in statuses {
        assert_eq!(TaskStatus::from(text), status);
        assert_eq!(status.is_final(), is_final, "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_says_what_came_instead_of_a_task() {
    let fake = FakePloton::new();
    let ploton = Ploton::new(stack().layer(fake.clone()));
    let error = ploton
        .task(&TaskId::parse("task_9").unwrap())
        .await
        .unwrap_err();
    assert_eq!(error.code(), Some(&ErrorCode::TaskNotFound));
    assert_eq!(
        error.to_string(),
        "404 task_not_found: no such task (1 attempt in 0.0 s)"
    );

    // The key is known although no layer took part.
    let error = Ploton::new(fake.clone())
        .create_task(&new_task())
        .await
        .unwrap_err();
    let api = error.api().unwrap();
    assert_eq!(api.code(), Some(&ErrorCode::MissingApiKey));
    let sent = fake.attempts()[1].idempotency_key.clone().unwrap();
    assert_eq!(api.idempotency_key().unwrap().as_str(), sent);

    // What a layer inside made of the answer is the same.
    let inside = PlotonErrors::new().layer(fake.clone());
    let error = Ploton::new(inside)
        .create_task(&new_task())
        .await
        .unwrap_err();
    assert_eq!(error.code(), Some(&ErrorCode::MissingApiKey));

    fake.fail_next(Fault::CutBefore);
    let error = Ploton::new(fake)
        .create_task(&new_task())
        .await
        .unwrap_err();
    let Error::Service { error, .. } = error else {
        panic!("{error}")
    };
    assert!(error.is::<io::Error>());
}

#[tokio::test]
async fn what_may_have_been_created_is_found_with_the_key_of_its_error() {
    let fake = FakePloton::new();
    for (fault, creates) in [(Fault::CutAfter, 0), (Fault::CutBefore, 1)] {
        fake.fail_next(fault);
        let key = ApiKey::parse("pk_test_4f9d0c2b7a6e1583").unwrap();
        let ploton = Ploton::new(PlotonAuth::new(key).layer(fake.clone()));
        let error = ploton.create_task(&new_task()).await.unwrap_err();
        assert!(matches!(error, Error::Service { .. }), "{error}");
        let key = error.idempotency_key().expect("a key").clone();
        let sent = fake.attempts().pop().unwrap().idempotency_key.unwrap();
        assert_eq!(key.as_str(), sent);

        let before = fake.counts().created;
        let again = new_task().idempotency_key(key);
        ploton.create_task(&again).await.unwrap();
        assert_eq!(fake.counts().created - before, creates);
    }
}

/// Of a key that was not random the age was lost, and a day later the task was created again.
#[tokio::test(start_paused = true)]
async fn the_key_of_an_error_is_not_sent_again_when_the_server_may_have_forgotten_it() {
    let fake = FakePloton::new();
    let auth = PlotonAuth::new(ApiKey::parse("pk_test_4f9d0c2b7a6e1583").unwrap());
    let once = Ploton::new(auth.layer(fake.clone()));
    let later = Ploton::new(PlotonRetry::new().layer(auth.layer(fake.clone())));
    for key in [IdempotencyKey::random(), IdempotencyKey::derive("one")] {
        fake.fail_next(Fault::CutAfter);
        let task = new_task().idempotency_key(key);
        let error = once.create_task(&task).await.unwrap_err();
        let key = error.idempotency_key().expect("a key").clone();
        let again = new_task().idempotency_key(key);
        time::advance(Duration::from_secs(24 * 60 * 60)).await;
        let error = later.create_task(&again).await.unwrap_err();
        let Error::Service { error, .. } = error else {
            panic!("{error}")
        };
        assert!(error.is::<KeyExpired>(), "{error}");
    }
    assert_eq!(fake.counts().created, 2);
}

#[tokio::test]
async fn a_task_can_be_cancelled_in_another_way() {
    let server = Server::new(|_, request| match &*request.method {
        "GET" => answer(200, Scripted::whole(TASK.replace("running", "cancelled"))),
        _ => answer(204, Scripted::new([])),
    });
    let ploton = Ploton::new(server.clone());
    let ploton = ploton.cancel_by(Method::DELETE, "/jobs/{id}?now").unwrap();
    let task = ploton
        .cancel_task(&TaskId::parse("task/1").unwrap())
        .await
        .unwrap();
    assert_eq!(
        task.status,
        TaskStatus::Cancelled,
        "an answer without a task: it is looked up"
    );
    let [cancel, show] = server.arrived().try_into().unwrap();
    assert_eq!(
        (&*cancel.method, &*cancel.uri),
        ("DELETE", "https://api.ploton.ai/v1/jobs/task%2F1?now")
    );
    assert_eq!(
        (&*show.method, &*show.uri),
        ("GET", "https://api.ploton.ai/v1/tasks/task%2F1")
    );

    // After a # nothing is sent: that would be `DELETE /jobs`.
    for path in ["/jobs/cancel", "jobs/{id}", "/../{id}", "", "/jobs#{id}"] {
        assert!(
            ploton.clone().cancel_by(Method::POST, path).is_err(),
            "{path}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_cancel_whose_answer_broke_off_is_not_sent_again() {
    let fake = FakePloton::new();
    let ploton = Ploton::new(stack().layer(fake.clone()));
    let task = ploton.create_task(&new_task()).await.unwrap();
    fake.fail_next(Fault::TruncatedBody);
    assert_eq!(
        ploton.cancel_task(&task.id).await.unwrap().status,
        TaskStatus::Cancelled
    );
    let methods: Vec<_> = fake
        .attempts()
        .iter()
        .map(|a| a.method.to_string())
        .collect();
    assert_eq!(methods, ["POST", "POST", "GET"]);
}

#[tokio::test]
async fn each_task_that_an_answer_holds_is_told() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let told = seen.clone();
    let key = ApiKey::parse("pk_test_4f9d0c2b7a6e1583").unwrap();
    let ploton = Ploton::new(PlotonStack::new(key, Plan::Production).layer(FakePloton::new()))
        .on_task(move |task| {
            told.lock()
                .unwrap()
                .push(format!("{} {}", task.id, task.status))
        });
    let task = ploton.create_task(&new_task()).await.unwrap();
    ploton.task(&task.id).await.unwrap();
    ploton.tasks().next().await.unwrap().unwrap();
    ploton.cancel_task(&task.id).await.unwrap();
    ploton.cancel_task(&task.id).await.unwrap_err();
    let running = format!("{} running", task.id);
    let cancelled = format!("{} cancelled", task.id);
    assert_eq!(
        *seen.lock().unwrap(),
        [&running, &running, &running, &cancelled].map(String::as_str)
    );
}

#[tokio::test]
async fn it_works_at_another_base_over_a_real_client_and_in_tasks_of_their_own() {
    let server = FakePloton::new().listen().await.unwrap();
    let base = BaseUrl::parse(&format!("{}/v1", server.url())).unwrap();
    let client = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new())
        .build_http::<Full<Bytes>>();
    let service = stack().origin(base.origin().clone()).layer(client);
    let ploton = Ploton::new(service).base_url(base);

    async fn submit<S: PlotonService>(ploton: Ploton<S>) -> Result<TaskStatus, Error> {
        Ok(ploton.create_task(&new_task()).await?.status)
    }
    let task = tokio::spawn(submit(ploton.clone())).await.unwrap();
    assert_eq!(task.unwrap(), TaskStatus::Running);
    // The future holds nothing of the client.
    let call = ploton.create_task(&new_task());
    drop(ploton);
    assert_eq!(
        tokio::spawn(call).await.unwrap().unwrap().status,
        TaskStatus::Running
    );
}

#[tokio::test]
async fn a_service_need_not_be_sync_nor_take_full_bodies() {
    #[derive(Clone)]
    struct Own(Bytes);
    impl From<Bytes> for Own {
        fn from(bytes: Bytes) -> Self {
            Self(bytes)
        }
    }
    let service = service_fn(async |request: Request<Own>| {
        assert!(request.body().0.starts_with(b"{"));
        Ok::<_, BoxError>(answer(201, Scripted::whole(TASK)))
    });
    let boxed: BoxCloneService<_, _, _> = BoxCloneService::new(service);
    let ploton: Ploton<_, Own> = Ploton::with_body(boxed);
    let task = tokio::spawn(ploton.create_task(&new_task())).await.unwrap();
    assert_eq!(task.unwrap().id.as_str(), "task_8xK2mP");
    assert!(Origin::default().contains(&BaseUrl::default().join("/tasks").unwrap()));
}
