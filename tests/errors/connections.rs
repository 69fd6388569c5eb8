//! Connections that ended before the request left, or whose task did.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::*;

/// The end of a connection and a request for it come at the same moment: a pool's usual race.
#[tokio::test]
async fn a_connection_that_closed_before_the_request_left_was_not_sent() {
    let url = serve(async |socket| drop(socket)).await;
    let address = url.strip_prefix("http://").unwrap().to_owned();
    let service = service_fn(move |request| {
        let address = address.clone();
        async move {
            let socket = TcpStream::connect(address).await.unwrap();
            socket.readable().await.unwrap();
            let io = TokioIo::new(socket);
            let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await?;
            let answer = sender.send_request(request);
            tokio::join!(connection, answer).1
        }
    });
    assert_eq!(taken_for(service, create(&url, "one")).await, NOT_SENT);
}

/// A connection of hyper's own, without a pool above it: it says so when it is asked whether it is ready, and when it is not.
#[tokio::test]
async fn a_closed_connection_without_a_pool_was_not_sent() {
    let url = serve(async |socket| drop(socket)).await;
    let address = url.strip_prefix("http://").unwrap().to_owned();
    for asked in [true, false] {
        let socket = TcpStream::connect(&address).await.unwrap();
        let io = TokioIo::new(socket);
        let (sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        let _ = connection.await;
        let sender = Arc::new(tokio::sync::Mutex::new(sender));
        let service = service_fn(move |request| {
            let sender = sender.clone();
            async move {
                let mut sender = sender.lock().await;
                if asked {
                    sender.ready().await?;
                }
                sender.send_request(request).await
            }
        });
        assert_eq!(taken_for(service, create(&url, "one")).await, NOT_SENT);
    }
}

/// The runtime dropped the connection's task, as a panic in it would.
#[tokio::test]
async fn a_connection_whose_task_is_gone_is_ambiguous() {
    let url = hangs().await;
    let address = url.strip_prefix("http://").unwrap().to_owned();
    let service = service_fn(move |request| {
        let address = address.clone();
        async move {
            let io = TokioIo::new(TcpStream::connect(address).await.unwrap());
            let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await?;
            let mut answer = Box::pin(sender.send_request(request));
            tokio::select! {
                answer = &mut answer => return answer,
                _ = connection => {}
                () = tokio::time::sleep(Duration::from_millis(100)) => {}
            }
            answer.await
        }
    });
    assert_eq!(taken_for(service, create(&url, "one")).await, AMBIGUOUS);
}

/// The connection was there, and could not be written to when the protocol began.
#[tokio::test]
async fn a_failed_handshake_was_not_sent() {
    let url = hangs().await;
    let address = url.strip_prefix("http://").unwrap().to_owned();
    let connector = service_fn(move |_: http::Uri| {
        let address = address.clone();
        Box::pin(async move {
            let mut socket = TcpStream::connect(address).await?;
            socket.shutdown().await?;
            io::Result::Ok(TokioIo::new(socket))
        })
    });
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new())
        .http2_only(true)
        .build(connector);
    assert_eq!(taken_for(client, create(&url, "one")).await, NOT_SENT);
}

/// A socket that takes what is written, and then fails with `ConnectionRefused`: so Linux ends a connection that timed out
/// after a firewall refused its packets by ICMP.
#[derive(Default)]
struct RefusedLater {
    written: bool,
}

impl AsyncRead for RefusedLater {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.written {
            return Poll::Ready(Err(io::ErrorKind::ConnectionRefused.into()));
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl AsyncWrite for RefusedLater {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.written = true;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn a_connection_that_is_refused_after_the_request_left_is_ambiguous() {
    let service = service_fn(async |request| {
        let io = TokioIo::new(RefusedLater::default());
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await?;
        let answer = sender.send_request(request);
        tokio::join!(connection, answer).1
    });
    let request = create("http://127.0.0.1", "one");
    assert_eq!(taken_for(service, request).await, AMBIGUOUS);
}
