//! Creates 60 tasks, each exactly once, through a server that fails, cuts connections and refuses.
//!
//! `cargo run --example quickstart` needs no key and no network: it starts the fake Ploton on a loopback port.
//!
//! `PLOTON_API_KEY=pk_… cargo run --example quickstart -- --real` lists the account's tasks at the real API, and changes
//! nothing there. `--log` shows what the layers say.
#![allow(clippy::indexing_slicing, reason = "indexing JSON does not panic")]

use std::{collections::HashSet, env, process::ExitCode, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tower::{BoxError, Service, ServiceBuilder, ServiceExt};
use tower_ploton::{
    ApiKey, Attempts, Origin, Plan, PlotonRetry, PlotonStack,
    client::Https,
    mock::{FakePloton, Fault, Outcome},
};

const TASKS: usize = 60;

#[tokio::main]
async fn main() -> Result<ExitCode, BoxError> {
    let mut real = false;
    for argument in env::args().skip(1) {
        match argument.as_str() {
            "--real" => real = true,
            "--log" => tracing_subscriber::fmt().init(),
            other => {
                return Err(format!("unknown argument {other}: there are --real and --log").into());
            }
        }
    }
    if real {
        list_real().await
    } else {
        create_on_the_fake().await
    }
}

async fn create_on_the_fake() -> Result<ExitCode, BoxError> {
    let key = ApiKey::parse("pk_test_4f9d0c2b7a6e1583")?;
    let fake = FakePloton::new()
        .accept_key("pk_test_4f9d0c2b7a6e1583")
        .plan(Plan::Production)
        .seed(60)
        .fault_rate(Fault::Status(StatusCode::INTERNAL_SERVER_ERROR), 0.10)
        .fault_rate(Fault::CutAfter, 0.05);
    fake.fail_next(Fault::RateLimited {
        retry_after: Some(Duration::from_secs(1)),
    });
    let server = fake.listen().await?;
    println!(
        "A fake Ploton listens on {}. It refuses the first request for a second, answers every tenth",
        server.url()
    );
    println!("with 500, and cuts every twentieth connection after the task was created.");
    println!(
        "Creating {TASKS} tasks through it, at the pace of the production plan: 1,000 requests a minute.\n"
    );

    let stack = PlotonStack::new(key, Plan::Production)
        .origin(Origin::parse(&server.url())?)
        // More than the default of 4: here every seventh attempt fails, and the demo must not depend on luck.
        .retry(PlotonRetry::new().attempts(10));
    let service = ServiceBuilder::new()
        .layer(stack)
        .service(Client::builder(TokioExecutor::new()).build_http());

    let mut calls = JoinSet::new();
    for n in 1..=TASKS {
        let service = service.clone();
        let body = json!({ "prompt": format!("Summarise invoice {n}") }).to_string();
        let request = Request::post(format!("{}/v1/tasks", server.url()))
            .header("content-type", "application/json")
            .body(Full::<Bytes>::from(body))?;
        calls.spawn(async move {
            let created = send(service, request).await?;
            let id = created["id"].as_str().ok_or("a task without an id")?;
            Ok::<_, BoxError>(id.to_owned())
        });
    }
    let mut submitted = 0;
    let mut ids = HashSet::new();
    while let Some(call) = calls.join_next().await {
        submitted += 1;
        match call? {
            Ok(id) => drop(ids.insert(id)),
            Err(error) => println!("a task was not created: {error}"),
        }
    }
    let to_create = fake.counts().attempts;

    let (mut listed, mut lists) = (HashSet::new(), 0);
    loop {
        let url = format!("{}/v1/tasks?limit=50&offset={}", server.url(), listed.len());
        let page = send(service.clone(), Request::get(url).body(Full::default())?).await?;
        lists += 1;
        let items = page["data"].as_array().ok_or("a page without data")?;
        listed.extend(
            items
                .iter()
                .filter_map(|task| task["id"].as_str().map(str::to_owned)),
        );
        if items.is_empty() || page["has_more"] != true {
            break;
        }
    }

    let counts = fake.counts();
    let attempts = fake.attempts();
    let ended = |outcome| {
        let posts = attempts
            .iter()
            .filter(|attempt| attempt.method == Method::POST);
        posts.filter(|attempt| attempt.outcome == outcome).count()
    };
    let retried = attempts.len().saturating_sub(submitted + lists);
    println!("What arrived at the server:");
    println!("  {to_create} attempts to create a task, of which");
    println!(
        "  {} were answered with 500,",
        ended(Outcome::Answered(StatusCode::INTERNAL_SERVER_ERROR))
    );
    println!(
        "  {} were cut after the task was created; sent again, they got the stored answer,",
        ended(Outcome::CutAfter)
    );
    println!(
        "  {} were refused with 429; nothing left until its Retry-After had passed.",
        ended(Outcome::Answered(StatusCode::TOO_MANY_REQUESTS))
    );
    println!(
        "It has {} tasks, and the client read {} back.\n",
        counts.created,
        listed.len()
    );

    println!("tasks.submitted = {submitted}");
    println!("tasks.created = {}", counts.created);
    println!("tasks.duplicated = {}", counts.duplicated);
    println!("attempts = {}", attempts.len());
    println!("retried = {retried}");
    println!("rate_limited = {}", counts.refused);

    let held = ids.len() == TASKS
        && submitted == TASKS
        && listed == ids
        && counts.created == TASKS as u64
        && counts.duplicated == 0
        && attempts.len() > TASKS
        && retried > 0
        && counts.refused > 0;
    Ok(if held {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn list_real() -> Result<ExitCode, BoxError> {
    let key = env::var("PLOTON_API_KEY").map_err(|_| "--real needs PLOTON_API_KEY")?;
    let service = ServiceBuilder::new()
        .layer(PlotonStack::new(ApiKey::parse(&key)?, Plan::Prototyping))
        .service(Https::new()?.client());
    let request =
        Request::get("https://api.ploton.ai/v1/tasks?limit=20").body(Full::<Bytes>::default())?;
    let page = send(service, request).await?;
    for task in page["data"].as_array().into_iter().flatten() {
        println!("{} {}", task["id"], task["status"]);
    }
    Ok(ExitCode::SUCCESS)
}

/// The JSON of a 2xx answer.
async fn send<S, B>(service: S, request: Request<Full<Bytes>>) -> Result<Value, BoxError>
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>, Error = BoxError>,
    B: http_body::Body<Error: Into<BoxError>>,
{
    let response = service.oneshot(request).await?;
    let (head, body) = response.into_parts();
    if !head.status.is_success() {
        let story = head
            .extensions
            .get::<Attempts>()
            .map(Attempts::to_string)
            .unwrap_or_default();
        return Err(format!("{} after {story}", head.status).into());
    }
    let body = body.collect().await.map_err(Into::into)?.to_bytes();
    Ok(serde_json::from_slice(&body)?)
}
