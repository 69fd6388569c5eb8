use std::future::poll_fn;

use futures_core::Stream;
use serde_json::{Value, json};
use tower::Layer;

use super::*;
use crate::{
    ApiKey, BaseUrl, Plan, PlotonRateLimit, PlotonStack, PlotonTaskLimit,
    api::{Error, NewTask, PageSize, Pages, Ploton, PlotonService, pages},
    mock::{FakePloton, Fault},
};

/// `limit` and `offset` that a request asks for.
fn asked(request: &Arrived) -> (usize, usize) {
    let (_, query) = request.uri.split_once('?').unwrap();
    let value = |name| {
        let pair = query.split('&').find_map(|pair| pair.strip_prefix(name));
        pair.unwrap().parse().unwrap()
    };
    (value("limit="), value("offset="))
}

fn page(items: &[Value], has_more: bool) -> Response<Scripted> {
    let body = json!({"data": items, "has_more": has_more, "total": null});
    answer(200, Scripted::whole(body.to_string()))
}

/// Lists what `list` says it holds when the n-th request comes.
fn listing(list: impl Fn(usize) -> Vec<Value> + Send + Sync + 'static) -> Server {
    Server::new(move |number, request| {
        let (limit, offset) = asked(request);
        let all = list(number);
        let rest = all.get(offset..).unwrap_or_default();
        page(&rest[..rest.len().min(limit)], rest.len() > limit)
    })
}

fn rows(ids: impl IntoIterator<Item = usize>) -> Vec<Value> {
    ids.into_iter()
        .map(|id| json!({"id": format!("task_{id}")}))
        .collect()
}

async fn all<T, S>(pages: &mut Pages<T, S>) -> Result<Vec<T>, Error>
where
    T: serde::de::DeserializeOwned,
    S: PlotonService,
{
    let mut all = Vec::new();
    while let Some(item) = pages.next().await {
        all.push(item?);
    }
    assert!(pages.next().await.is_none(), "the end is the end");
    Ok(all)
}

fn size(items: u8) -> PageSize {
    PageSize::new(items).unwrap()
}

#[tokio::test]
async fn items_come_in_order_and_the_offset_grows_by_what_came() {
    for (count, prefetch) in [
        (0, false),
        (1, false),
        (6, true),
        (7, false),
        (7, true),
        (8, true),
    ] {
        let server = listing(move |_| rows(0..count));
        let mut pages = pages::<Value>(server.clone(), "/tasks", size(3)).prefetch(prefetch);
        assert_eq!(all(&mut pages).await.unwrap(), rows(0..count));
        assert_eq!(pages.offset(), count as u64);
        let offsets: Vec<_> = server.arrived().iter().map(asked).collect();
        let expected: Vec<_> = (0..count.div_ceil(3).max(1))
            .map(|page| (3, 3 * page))
            .collect();
        assert_eq!(offsets, expected, "{count} items, prefetch {prefetch}");
    }
}

#[tokio::test]
async fn a_server_that_gives_shorter_pages_than_asked_is_followed() {
    let server = Server::new(|_, request| {
        let (_, offset) = asked(request);
        page(&rows(offset..(offset + 2).min(5)), offset + 2 < 5)
    });
    let mut pages = pages::<Value>(server, "/tasks", size(100));
    assert_eq!(all(&mut pages).await.unwrap(), rows(0..5));
}

#[tokio::test]
async fn the_end_is_has_more_false_or_an_empty_page() {
    // It says that there is more, and there is not.
    let server = Server::new(|number, _| page(&rows(0..3 * usize::from(number == 1)), true));
    let mut listed = pages::<Value>(server.clone(), "/tasks", size(3));
    assert_eq!(all(&mut listed).await.unwrap().len(), 3);
    assert_eq!(server.arrived().len(), 2);

    // It does not say.
    let server = Server::new(|number, request| {
        let (_, offset) = asked(request);
        let body = json!({"data": rows(offset..offset + 3 * usize::from(number < 3))});
        answer(200, Scripted::whole(body.to_string()))
    });
    let mut listed = pages::<Value>(server.clone(), "/tasks", size(3));
    assert_eq!(all(&mut listed).await.unwrap(), rows(0..6));
    assert_eq!(server.arrived().len(), 3);
}

#[tokio::test]
async fn the_path_may_have_a_query_and_the_base_may_be_another() {
    let server = listing(|_| rows(0..1));
    let base = BaseUrl::parse("http://127.0.0.1:8080/v1").unwrap();
    let mut pages = pages::<Value>(server.clone(), "/tasks?status=failed", size(20)).base_url(base);
    all(&mut pages).await.unwrap();
    assert_eq!(
        server.arrived()[0].uri,
        "http://127.0.0.1:8080/v1/tasks?status=failed&limit=20&offset=0"
    );
}

#[tokio::test]
async fn items_created_meanwhile_come_once_and_make_no_loop() {
    // Newest first: each request finds two more at the front.
    for prefetch in [false, true] {
        let server = listing(|number| rows((0..20 + 2 * number).rev()));
        let mut pages = pages::<Value>(server.clone(), "/tasks", size(5)).prefetch(prefetch);
        assert_eq!(
            all(&mut pages).await.unwrap(),
            rows((0..22).rev()),
            "those that were there"
        );
    }
    // Oldest first: they are found at the end.
    let server = listing(|number| rows(0..20 + number.min(4)));
    assert_eq!(
        all(&mut pages::<Value>(server, "/tasks", size(5)))
            .await
            .unwrap(),
        rows(0..24)
    );
}

#[tokio::test]
async fn a_listing_that_does_not_move_on_is_an_error() {
    // As many are created as a page holds; a server that knows no offset; items without ids.
    let servers: [(Server, usize); 3] = [
        (listing(|number| rows((0..10 + 5 * number).rev())), 5),
        (Server::new(|_, _| page(&rows(0..5), true)), 5),
        (Server::new(|_, _| page(&[json!("a"), json!("b")], true)), 2),
    ];
    for (server, _) in servers {
        let mut pages = pages::<Value>(server.clone(), "/tasks", size(5));
        let error = all(&mut pages).await.unwrap_err();
        assert!(matches!(error, Error::PagesRepeat(_)), "{error}");
        assert!(pages.next().await.is_none());
        assert_eq!(server.arrived().len(), 4);
    }
}

#[tokio::test]
async fn equal_items_without_ids_are_all_handed_out() {
    let server = listing(|_| vec![json!("a"), json!("a"), json!("a"), json!("b"), json!("a")]);
    let mut pages = pages::<String>(server, "/words", size(2));
    assert_eq!(all(&mut pages).await.unwrap(), ["a", "a", "a", "b", "a"]);
}

#[tokio::test]
async fn after_an_error_the_offset_says_where_to_start_again() {
    for prefetch in [false, true] {
        let server = Server::new(move |number, request| {
            let (limit, offset) = asked(request);
            match number {
                3 => answer(503, Scripted::whole("")),
                _ => page(&rows(offset..(offset + limit).min(10)), offset + limit < 10),
            }
        });
        let mut first = pages::<Value>(server.clone(), "/tasks", size(2)).prefetch(prefetch);
        let mut seen = Vec::new();
        let error = loop {
            match first.next().await.unwrap() {
                Ok(item) => seen.push(item),
                Err(error) => break error,
            }
        };
        assert_eq!(error.api().unwrap().status(), 503);
        assert_eq!(
            (seen.len(), first.offset()),
            (4, 4),
            "what came before is handed out first"
        );
        assert!(first.next().await.is_none());
        let mut second = pages::<Value>(server, "/tasks", size(3)).from_offset(first.offset());
        seen.extend(all(&mut second).await.unwrap());
        assert_eq!(seen, rows(0..10));
        assert_eq!(second.offset(), 10);
    }
}

#[tokio::test]
async fn an_item_that_is_none_is_an_error_at_its_place() {
    let server = listing(|_| vec![json!("a"), json!(7), json!("b")]);
    let mut words = pages::<String>(server.clone(), "/words", size(9));
    assert_eq!(words.next().await.unwrap().unwrap(), "a");
    let error = words.next().await.unwrap().unwrap_err();
    assert_eq!(
        error.to_string(),
        r#"200, but an item is not what was expected: "7""#
    );
    assert_eq!(words.offset(), 1);
    assert!(words.next().await.is_none());
    let mut rest = pages::<String>(server, "/words", size(9)).from_offset(words.offset() + 1);
    assert_eq!(all(&mut rest).await.unwrap(), ["b"]);
}

#[tokio::test]
async fn a_bad_path_is_an_error_and_nothing_is_sent() {
    let server = listing(|_| rows(0..1));
    let mut pages = pages::<Value>(server.clone(), "/tasks/../keys", size(9));
    assert!(matches!(
        pages.next().await,
        Some(Err(Error::Service { .. }))
    ));
    assert!(pages.next().await.is_none() && server.arrived().is_empty());
}

#[tokio::test(start_paused = true)]
async fn one_page_is_fetched_ahead_and_never_two() {
    let server = listing(|_| rows(0..9));
    let mut ahead = pages::<Value>(server.clone(), "/tasks", size(3)).prefetch(true);
    for (handed_out, asked_for) in [(1, 2), (2, 2), (3, 2), (4, 3), (6, 3), (9, 3)] {
        while ahead.offset() < handed_out {
            ahead.next().await.unwrap().unwrap();
        }
        assert_eq!(server.arrived().len(), asked_for, "after {handed_out}");
    }
    let server = listing(|_| rows(0..9));
    let mut lazy = pages::<Value>(server.clone(), "/tasks", size(3));
    for _ in 0..3 {
        lazy.next().await.unwrap().unwrap();
    }
    assert_eq!(server.arrived().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn fetching_ahead_saves_the_time_of_an_answer() {
    let fake = FakePloton::new().latency(Duration::from_secs(1));
    let key = ApiKey::parse("pk_test_4f9d0c2b7a6e1583").unwrap();
    let ploton = Ploton::new(PlotonStack::new(key, Plan::Production).layer(fake));
    for n in 0..6 {
        let task = NewTask::new(n.to_string()).unwrap();
        ploton.create_task(&task).await.unwrap();
    }
    for (prefetch, seconds) in [(false, 3 + 3), (true, 1 + 3)] {
        let start = tokio::time::Instant::now();
        let mut tasks = ploton.tasks().page_size(size(2)).prefetch(prefetch);
        let mut count = 0;
        while let Some(task) = tasks.next().await {
            task.unwrap();
            count += 1;
            // Half a second of work on each, during which nobody polls the stream.
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        assert_eq!(count, 6);
        let took = tokio::time::Instant::now() - start;
        assert!(
            took.as_secs_f64() - f64::from(seconds) < 0.1,
            "prefetch {prefetch}: {took:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn each_page_goes_through_the_stack() {
    let fake = FakePloton::new().seed(7);
    let key = || ApiKey::parse("pk_test_4f9d0c2b7a6e1583").unwrap();
    let limit = PlotonRateLimit::new(Plan::Production);
    let stack = PlotonStack::new(key(), Plan::Production).rate_limit(limit.clone());
    let ploton = Ploton::new(stack.layer(fake.clone()));
    for n in 0..5 {
        let task = NewTask::new(n.to_string()).unwrap();
        ploton.create_task(&task).await.unwrap();
    }
    let before = fake.attempts().len();
    for fault in [
        Fault::Status(StatusCode::SERVICE_UNAVAILABLE),
        Fault::TruncatedBody,
        Fault::RateLimited {
            retry_after: Some(Duration::from_secs(2)),
        },
        Fault::CutAfter,
    ] {
        fake.fail_next(fault);
    }
    let listed = all(&mut ploton.tasks().page_size(size(2))).await.unwrap();
    let ids: Vec<_> = listed
        .iter()
        .map(|task| task.id.as_str().to_owned())
        .collect();
    let created: Vec<_> = fake.tasks().into_iter().map(|task| task.id).collect();
    assert_eq!(ids, created);
    assert_eq!(
        fake.attempts().len() - before,
        3 + 4,
        "three pages, four failures"
    );
    assert_eq!(
        listed[0].created_at.map(|at| at.subsec_nanosecond()),
        Some(0)
    );
}

/// A task that waits for its turn at Ploton has not ended: its slot was given to another.
#[tokio::test]
async fn a_task_of_an_unknown_status_keeps_its_slot_and_takes_none() {
    let server = listing(|_| {
        let statuses = ["queued", "expired", "running", "complete"];
        let rows = (1..).zip(statuses);
        rows.map(|(n, status)| json!({"id": format!("task_{n}"), "status": status}))
            .collect()
    });
    let limit = PlotonTaskLimit::new(Plan::Prototyping).handle();
    let ploton = Ploton::new(server).task_limit(limit.clone());
    limit.running("task_1");
    limit.running("task_5"); // not listed
    assert_eq!(ploton.running_tasks().await.unwrap().len(), 1);
    assert_eq!(limit.snapshot().running, 2, "tasks 1 and 3");
    for id in ["task_1", "task_3"] {
        limit.finished(id);
    }
    assert_eq!(limit.snapshot().running, 0);
}

#[tokio::test]
async fn it_is_a_stream_that_need_not_be_pinned() {
    let mut pages = pages::<Value>(listing(|_| rows(0..1)), "/tasks", size(1));
    fn is_stream<T: Stream + Unpin + Send>(_: &T) {}
    is_stream(&pages);
    let item = poll_fn(|cx| Pin::new(&mut pages).poll_next(cx)).await;
    assert_eq!(item.unwrap().unwrap(), rows(0..1)[0]);
}
