//! Streams that fail half-way, against a server that looks at what it got of each attempt.

use super::*;

/// When a server answers.
#[derive(Clone, Copy)]
enum Answer {
    /// 503 after so many bytes, then the body is read on to its end.
    EarlyAndReadsOn(usize),
    /// 503 after so many bytes; nothing more is read.
    Early(usize),
    /// After the whole body.
    Late(StatusCode),
}

/// What a server got of one attempt.
#[derive(Default)]
struct Received {
    bytes: Vec<u8>,
    trailers: Option<HeaderMap>,
    whole: bool,
}

impl Received {
    /// Reads on until the body ends or `bytes` are there.
    async fn read(&mut self, body: &mut Incoming, bytes: usize) {
        while self.bytes.len() < bytes {
            match body.frame().await {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.bytes.extend_from_slice(&data),
                    Err(frame) => self.trailers = frame.into_trailers().ok(),
                },
                Some(Err(_)) => return,
                None => {
                    self.whole = true;
                    return;
                }
            }
        }
    }
}

/// A server that answers one attempt after the other as it is told, and 200 in the end.
struct Server {
    url: String,
    begun: Arc<Notify>,
    attempts: UnboundedReceiver<Received>,
}

impl Server {
    async fn start(answers: impl IntoIterator<Item = Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let answers: VecDeque<_> = answers.into_iter().collect();
        let answers = Arc::new(Mutex::new(answers));
        let (record, attempts) = unbounded_channel();
        let begun = Arc::new(Notify::new());
        let notify = begun.clone();
        let service = hyper_service_fn(move |request: Request<Incoming>| {
            let answer = answers.lock().unwrap().pop_front();
            let answer = answer.unwrap_or(Answer::Late(StatusCode::OK));
            let (record, begun) = (record.clone(), notify.clone());
            async move { Ok::<_, Infallible>(serve(request, answer, record, &begun).await) }
        });
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let service = service.clone();
                tokio::spawn(async move {
                    let builder = Builder::new(TokioExecutor::new());
                    let _ = builder
                        .serve_connection(TokioIo::new(socket), service)
                        .await;
                });
            }
        });
        Self {
            url,
            begun,
            attempts,
        }
    }

    fn put<B>(&self, body: B) -> Request<B> {
        Request::put(&self.url).body(body).unwrap()
    }

    /// What came of the next attempt that ended.
    async fn received(&mut self) -> Received {
        let next = timeout(Duration::from_secs(10), self.attempts.recv()).await;
        next.expect("an attempt that ends").unwrap()
    }
}

async fn serve(
    request: Request<Incoming>,
    answer: Answer,
    record: UnboundedSender<Received>,
    begun: &Notify,
) -> Response<Full<Bytes>> {
    let mut body = request.into_body();
    let mut received = Received::default();
    received.read(&mut body, 1).await;
    begun.notify_one();
    let status = match answer {
        Answer::Early(bytes) => {
            received.read(&mut body, bytes).await;
            let _ = record.send(received);
            StatusCode::SERVICE_UNAVAILABLE
        }
        Answer::EarlyAndReadsOn(bytes) => {
            received.read(&mut body, bytes).await;
            tokio::spawn(async move {
                received.read(&mut body, usize::MAX).await;
                let _ = record.send(received);
            });
            StatusCode::SERVICE_UNAVAILABLE
        }
        Answer::Late(status) => {
            received.read(&mut body, usize::MAX).await;
            let _ = record.send(received);
            status
        }
    };
    let mut response = Response::new(Full::from("{}"));
    *response.status_mut() = status;
    response
}

type Retrying = ReplayService<RetryService<Client<HttpConnector, ReplayBody<Fed>>>>;

fn retrying(http2: bool) -> Retrying {
    let retry = PlotonRetry::new().base_delay(Duration::from_millis(1));
    PlotonReplay::new().layer(retry.layer(client(http2)))
}

/// What no two chunks have in common.
fn bytes(len: usize) -> Vec<u8> {
    let numbers = (0_u32..).flat_map(u32::to_be_bytes);
    numbers.take(len).collect()
}

#[tokio::test]
async fn a_stream_that_is_answered_half_way_is_sent_again_from_its_beginning() {
    for http2 in [false, true] {
        let mut server = Server::start([Answer::Early(2_000)]).await;
        let whole = bytes(6_000);
        let (feed, body) = fed();
        let call = tokio::spawn(retrying(http2).oneshot(server.put(body)));
        feed_data(&feed, &whole[..1_000]);
        feed_data(&feed, &whole[1_000..2_000]);
        let first = server.received().await;
        assert_eq!(first.bytes, whole[..2_000]);

        for chunk in whole[2_000..].chunks(700) {
            feed_data(&feed, chunk);
        }
        drop(feed);
        assert_eq!(call.await.unwrap().unwrap().status(), StatusCode::OK);
        let second = server.received().await;
        assert!(second.whole && second.bytes == whole);
    }
}

/// The first attempt's connection still has its body: it was answered, and is not over.
#[tokio::test]
async fn a_retry_takes_the_stream_over_from_an_attempt_whose_server_reads_on() {
    for http2 in [false, true] {
        let mut server = Server::start([Answer::EarlyAndReadsOn(1_000); 2]).await;
        // Longer than what is kept, as an attempt that read on after its answer would find.
        let whole = bytes(100_000);
        let (feed, body) = fed();
        let call = tokio::spawn(retrying(http2).oneshot(server.put(body)));
        feed_data(&feed, &whole[..1_000]);
        for _ in 0..2 {
            let before = server.received().await;
            assert!(!before.whole && before.bytes == whole[..1_000]);
        }
        feed_data(&feed, &whole[1_000..]);
        drop(feed);
        assert_eq!(call.await.unwrap().unwrap().status(), StatusCode::OK);
        let last = server.received().await;
        assert!(last.whole && last.bytes == whole);
    }
}

#[tokio::test]
async fn each_of_four_attempts_is_whole_trailers_included() {
    for http2 in [false, true] {
        let mut server = Server::start([Answer::Late(StatusCode::BAD_GATEWAY); 3]).await;
        let whole = bytes(5_000);
        let (feed, body) = fed();
        for chunk in whole.chunks(999) {
            feed_data(&feed, chunk);
        }
        let trailers: HeaderMap = iter::once((
            http::HeaderName::from_static("digest"),
            http::HeaderValue::from_static("abc"),
        ))
        .collect();
        feed.send(Ok(Frame::trailers(trailers.clone()))).unwrap();
        let mut request = server.put(body);
        // HTTP/1.1 sends only the trailers that were announced.
        let announced = "digest".parse().unwrap();
        request.headers_mut().insert("trailer", announced);
        let response = retrying(http2).oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        for _ in 0..4 {
            let attempt = server.received().await;
            assert!(attempt.whole && attempt.bytes == whole);
            assert_eq!(attempt.trailers.as_ref(), Some(&trailers));
        }
    }
}

#[tokio::test]
async fn a_retry_inside_of_a_retry_sends_the_body_again_too() {
    for http2 in [false, true] {
        let mut server = Server::start([Answer::Late(StatusCode::BAD_GATEWAY); 3]).await;
        let retry = PlotonRetry::new().base_delay(Duration::from_millis(1));
        let service = ServiceBuilder::new()
            .layer(PlotonReplay::new())
            .layer(retry.clone().attempts(2))
            .layer(retry.attempts(2))
            .service(client::<ReplayBody<Fed>>(http2));
        let (feed, body) = fed();
        feed_data(&feed, b"abc");
        drop(feed);
        let response = service.oneshot(server.put(body)).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        for _ in 0..4 {
            let attempt = server.received().await;
            assert!(attempt.whole && attempt.bytes == b"abc");
        }
    }
}

/// A body that is shorter than it says.
struct Short(Fed);

impl Body for Short {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        Pin::new(&mut self.0).poll_frame(cx)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(2_000)
    }
}

/// All of it is kept by then, and must not count as the whole.
#[tokio::test]
async fn a_body_that_was_cut_short_is_whole_in_no_attempt() {
    for http2 in [false, true] {
        let mut server = Server::start([]).await;
        let service = ServiceBuilder::new()
            .layer(PlotonReplay::new())
            .layer(PlotonRetry::new().base_delay(Duration::from_millis(1)))
            .service(client::<ReplayBody<Short>>(http2));
        let (feed, body) = fed();
        let call = tokio::spawn(service.oneshot(server.put(Short(body))));
        feed_data(&feed, &bytes(1_000));
        server.begun.notified().await;
        drop(feed);
        call.await.unwrap().unwrap_err();
        assert!(!server.received().await.whole);
        while let Ok(again) = server.attempts.try_recv() {
            assert!(!again.whole);
        }
    }
}

#[tokio::test]
async fn a_body_over_the_cap_streams_through_once_and_its_answer_is_handed_back() {
    for http2 in [false, true] {
        let mut server = Server::start([Answer::Late(StatusCode::SERVICE_UNAVAILABLE)]).await;
        let whole = bytes(200_000);
        let (feed, body) = fed();
        for chunk in whole.chunks(10_000) {
            feed_data(&feed, chunk);
        }
        drop(feed);
        let response = retrying(http2).oneshot(server.put(body)).await.unwrap();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        let story = response.extensions().get::<Attempts>().unwrap();
        assert_eq!(story.made(), 1);
        let only = server.received().await;
        assert!(only.whole && only.bytes == whole);
    }
}

#[tokio::test]
async fn a_body_that_fails_is_not_sent_again_and_never_whole() {
    for http2 in [false, true] {
        let mut server = Server::start([]).await;
        let (feed, body) = fed();
        let call = tokio::spawn(retrying(http2).oneshot(server.put(body)));
        feed_data(&feed, b"abc");
        server.begun.notified().await;
        let gone = io::Error::new(io::ErrorKind::NotFound, "the file is gone");
        feed.send(Err(gone)).unwrap();
        let error = call.await.unwrap().unwrap_err();
        let only = server.received().await;
        assert!(!only.whole);
        assert!(server.attempts.is_empty());
        // Over HTTP/2 hyper says no more than that the stream was reset.
        if !http2 {
            let error: &(dyn Error + 'static) = &*error;
            let mut causes = iter::successors(Some(error), |&cause| cause.source());
            assert!(causes.any(|cause| cause.is::<ReplayError>()), "{error:?}");
            let mut causes = iter::successors(Some(error), |&cause| cause.source());
            assert!(causes.any(|cause| cause.is::<io::Error>()), "{error:?}");
        }
    }
}
