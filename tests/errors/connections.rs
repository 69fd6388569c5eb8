//! Connections that ended before the request left, or whose task did.

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
