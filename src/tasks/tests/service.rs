//! The layer as a service sees it.

use std::{io, time::Duration};

use http::{Request, Response, StatusCode};
use tokio::time::{Instant, advance, timeout};
use tokio_test::{assert_pending, assert_ready_err, assert_ready_ok, task};
use tower::BoxError;
use tower_test::mock;

use crate::{
    Deadline, IdempotencyKey, Plan, PlotonTaskLimit, TaskLimitHandle, TaskSlot,
    origin::Origin,
    tasks::{NoTaskSlot, ResponseFuture, TaskLimitService},
};

type Mock = mock::Mock<Request<()>, Response<()>>;
type Call = task::Spawn<ResponseFuture<Mock, ()>>;

struct Service {
    service: mock::Spawn<TaskLimitService<Mock>>,
    server: mock::Handle<Request<()>, Response<()>>,
    handle: TaskLimitHandle,
}

impl Service {
    fn new(limit: PlotonTaskLimit) -> Self {
        let handle = limit.handle();
        let (service, server) = mock::spawn_layer(limit);
        Self {
            service,
            server,
            handle,
        }
    }

    /// Of one slot.
    fn of_one() -> Self {
        Self::new(PlotonTaskLimit::with_capacity(std::num::NonZeroU32::MIN))
    }

    fn call(&mut self, request: Request<()>) -> Call {
        assert_ready_ok!(self.service.poll_ready());
        task::spawn(self.service.call(request))
    }

    fn create(&mut self) -> Call {
        self.call(create())
    }

    /// Answers the request that is there.
    async fn answer(&mut self, status: u16) {
        let (_, answer) = self.server.next_request().await.unwrap();
        answer.send_response(response(status));
    }

    fn running(&self) -> usize {
        self.handle.snapshot().running
    }
}

pub(super) fn response(status: u16) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

pub(super) fn create() -> Request<()> {
    Request::post("https://api.ploton.ai/v1/tasks")
        .body(())
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_created_tasks_answer_has_a_handle_to_its_slot_and_dropping_it_frees_nothing() {
    let mut service = Service::of_one();
    let mut call = service.create();
    assert_pending!(call.poll());
    service.answer(201).await;
    let response = assert_ready_ok!(call.poll());
    let slot: TaskSlot = response.extensions().get().cloned().unwrap();
    drop((response, call));
    assert_eq!(service.running(), 1);
    slot.bind("task_1");
    drop(slot.clone());
    assert_eq!(service.running(), 1);
    slot.release();
    assert_eq!(service.running(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_request_waits_until_a_task_has_ended_first_come_first_served() {
    let mut service = Service::of_one();
    let mut first = service.create();
    assert_pending!(first.poll());
    service.answer(201).await;
    let response = assert_ready_ok!(first.poll());
    let slot: TaskSlot = response.extensions().get().cloned().unwrap();
    slot.bind("task_1");

    let mut waiting = [service.create(), service.create()];
    for call in &mut waiting {
        assert_pending!(call.poll());
    }
    assert_pending!(service.server.poll_request());
    assert_eq!(service.handle.snapshot().waiting, 2);
    service.handle.finished("task_1");
    assert!(waiting[0].is_woken());
    assert_pending!(waiting[1].poll());
    assert_pending!(waiting[0].poll());
    service.answer(422).await;
    assert_ready_ok!(waiting[0].poll());
    assert!(waiting[1].is_woken());
    assert_pending!(waiting[1].poll());
    service.answer(201).await;
    assert_ready_ok!(waiting[1].poll());
    assert_eq!(service.running(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_answer_says_what_becomes_of_the_slot() {
    let kept = [200, 201, 202, 303, 408, 409, 500, 501, 503];
    let freed = [400, 401, 403, 404, 422, 429];
    let all = kept
        .map(|s| (s, 1))
        .into_iter()
        .chain(freed.map(|s| (s, 0)));
    for (status, running) in all {
        let mut service = Service::of_one();
        let mut call = service.create();
        assert_pending!(call.poll());
        service.answer(status).await;
        let response = assert_ready_ok!(call.poll());
        assert_eq!(service.running(), running, "{status}");
        let slot = response.extensions().get::<TaskSlot>();
        assert_eq!(slot.is_some(), running == 1, "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_keeps_the_slot_unless_nothing_was_sent() {
    let errors: [(BoxError, usize); 3] = [
        (io::Error::from(io::ErrorKind::ConnectionReset).into(), 1),
        (Box::new(crate::origin::PlainHttpRefused::new()), 0),
        (
            Box::new(NoTaskSlot {
                waited: Duration::ZERO,
                running: 1,
            }),
            0,
        ),
    ];
    for (error, running) in errors {
        let mut service = Service::of_one();
        let mut call = service.create();
        assert_pending!(call.poll());
        let (_, answer) = service.server.next_request().await.unwrap();
        answer.send_error(error);
        assert_ready_err!(call.poll());
        assert_eq!(service.running(), running);
    }
}

#[tokio::test(start_paused = true)]
async fn only_a_post_to_tasks_at_its_origin_takes_a_slot() {
    let taken = [
        ("POST", "https://api.ploton.ai/v1/tasks", 1),
        ("POST", "https://api.ploton.ai/v1/tasks/?dry=1", 1),
        ("POST", "/tasks", 1),
        ("GET", "https://api.ploton.ai/v1/tasks", 0),
        ("POST", "https://api.ploton.ai/v1/tasks/task_1/cancel", 0),
        ("POST", "https://api.ploton.ai/v1/subtasks", 0),
        ("POST", "https://other.example/v1/tasks", 0),
    ];
    for (method, uri, running) in taken {
        let mut service = Service::of_one();
        let request = Request::builder().method(method).uri(uri).body(()).unwrap();
        let mut call = service.call(request);
        assert_pending!(call.poll());
        assert_eq!(service.running(), running, "{method} {uri}");
        service.answer(201).await;
        assert_ready_ok!(call.poll());
    }
    let other = Origin::parse("https://other.example").unwrap();
    let mut service = Service::new(PlotonTaskLimit::new(Plan::Prototyping).origin(other));
    let request = Request::post("https://other.example/v1/tasks");
    let mut call = service.call(request.body(()).unwrap());
    assert_pending!(call.poll());
    assert_eq!(service.running(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_made_again_with_its_key_has_the_slot_that_it_had() {
    let mut service = Service::of_one();
    let key = IdempotencyKey::parse("invoice-42").unwrap();
    let with_key = || {
        let mut request = create();
        request.extensions_mut().insert(key.clone());
        request
    };
    let mut call = service.call(with_key());
    assert_pending!(call.poll());
    service.answer(500).await;
    assert_ready_ok!(call.poll());
    assert_eq!(service.handle.snapshot().unsettled, 1);

    let mut other = service.create();
    assert_pending!(other.poll());
    let mut again = service.call(with_key());
    assert_pending!(again.poll());
    service.answer(201).await;
    assert_ready_ok!(again.poll());
    let now = service.handle.snapshot();
    assert_eq!((now.running, now.unsettled, now.waiting), (1, 1, 1));
    service.handle.bind(&key, "task_1");
    assert_eq!(service.handle.snapshot().unsettled, 0);
    service.handle.finished("task_1");
    assert!(other.is_woken());
}

#[tokio::test(start_paused = true)]
async fn a_key_that_the_caller_did_not_give_is_known_to_the_layers_inside() {
    let mut service = Service::of_one();
    let mut call = service.create();
    assert_pending!(call.poll());
    let (request, _) = service.server.next_request().await.unwrap();
    assert!(request.extensions().get::<IdempotencyKey>().is_some());
}

#[tokio::test(start_paused = true)]
async fn the_inner_service_is_called_only_after_it_was_ready_for_this_call() {
    let mut service = Service::of_one();
    service.handle.running("task_1");
    let mut call = service.create();
    assert_pending!(call.poll());
    service.server.allow(0);
    service.handle.finished("task_1");
    assert_pending!(call.poll());
    assert_eq!(service.running(), 1, "it has its slot");
    service.server.allow(1);
    assert!(call.is_woken());
    assert_pending!(call.poll());
    service.answer(201).await;
    assert_ready_ok!(call.poll());
}

#[tokio::test(start_paused = true)]
async fn a_future_that_is_dropped_at_any_point_leaves_nothing_behind() {
    let mut service = Service::of_one();
    drop(service.create());
    // It was sent when it was called, and nobody judges what became of it.
    assert_eq!(service.handle.snapshot().unsettled, 1);
    service
        .handle
        .listed([], Instant::now() + Duration::from_secs(2));
    assert_eq!(service.running(), 0);

    service.handle.running("task_1");
    let mut waits = service.create();
    let mut next = service.create();
    drop(service.create()); // never polled
    assert_pending!(waits.poll());
    assert_pending!(next.poll());
    assert_eq!(service.handle.snapshot().waiting, 2);
    service.handle.finished("task_1");
    assert!(waits.is_woken());
    drop(waits); // its turn came, and it was not polled
    assert!(next.is_woken());
    service.server.allow(0);
    assert_pending!(next.poll());
    assert_eq!(service.running(), 1);
    drop(next); // it had a slot, and was not sent
    let now = service.handle.snapshot();
    assert_eq!((now.running, now.waiting), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_service_that_fails_before_it_is_called_takes_no_slot() {
    let mut service = Service::of_one();
    service.handle.running("task_1");
    let mut call = service.create();
    assert_pending!(call.poll());
    service.handle.finished("task_1");
    service.server.send_error("gone");
    assert_ready_err!(call.poll());
    assert_eq!(service.running(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_wait_is_bounded_by_the_layer_and_by_the_requests_deadline() {
    let limit = PlotonTaskLimit::new(Plan::Prototyping).max_wait(Duration::from_secs(5));
    limit.handle().set_capacity(std::num::NonZeroU32::MIN);
    let mut service = Service::new(limit);
    service.handle.running("task_1");
    let mut call = service.create();
    let mut request = create();
    let deadline = Deadline(Instant::now() + Duration::from_secs(2));
    request.extensions_mut().insert(deadline);
    let mut hasty = service.call(request);
    assert_pending!(call.poll());
    assert_pending!(hasty.poll());
    advance(Duration::from_secs(2)).await;
    let error = assert_ready_err!(hasty.poll());
    let error = error.downcast_ref::<NoTaskSlot>().unwrap();
    assert_eq!((error.waited().as_secs(), error.running()), (2, 1));
    advance(Duration::from_secs(3)).await;
    let error = assert_ready_err!(call.poll());
    assert_eq!(
        error.to_string(),
        "no task slot came free in 5.0 s, 1 task runs"
    );
    assert_eq!(service.handle.snapshot().waiting, 0);
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_gets_the_slot_that_ends_by_its_time_limit() {
    let limit = PlotonTaskLimit::new(Plan::Prototyping).time_limit(Duration::from_secs(60));
    limit.handle().set_capacity(std::num::NonZeroU32::MIN);
    let mut service = Service::new(limit);
    let mut lost = service.create();
    assert_pending!(lost.poll());
    let mut call = service.create();
    assert_pending!(call.poll());
    advance(Duration::from_secs(600)).await;
    drop(lost);
    let start = Instant::now();
    let polled = tokio::spawn(async move { call.await.map(drop) });
    let (_, _) = service.server.next_request().await.unwrap();
    let next = timeout(Duration::from_secs(3_600), service.server.next_request()).await;
    let (_, answer) = next.expect("it waits for ever").unwrap();
    assert_eq!(Instant::now() - start, Duration::from_secs(60));
    answer.send_response(response(201));
    polled.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_capacity_changes_at_run_time_for_those_who_wait_too() {
    let mut service = Service::of_one();
    service.handle.running("task_1");
    let mut waiting = [service.create(), service.create(), service.create()];
    for call in &mut waiting {
        assert_pending!(call.poll());
    }
    service.handle.set_capacity(3.try_into().unwrap());
    for call in &mut waiting {
        assert_pending!(call.poll());
    }
    let now = service.handle.snapshot();
    assert_eq!((now.capacity, now.running, now.waiting), (3, 3, 1));
    service.handle.set_capacity(1.try_into().unwrap());
    service.handle.finished("task_1");
    assert_pending!(waiting[2].poll());
    assert_eq!(service.handle.snapshot().waiting, 1);
    service.handle.set_plan(Plan::Production);
    assert_pending!(waiting[2].poll());
    let now = service.handle.snapshot();
    assert_eq!((now.capacity, now.running, now.waiting), (100, 3, 0));
}
