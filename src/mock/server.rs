//! The fake Ploton on a loopback port.

use std::{
    convert::Infallible,
    future::{self, Future},
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use {
    bytes::Bytes,
    http_body::{Body, Frame, SizeHint},
    hyper::service::service_fn,
    hyper_util::{
        rt::{TokioExecutor, TokioIo},
        server::conn::auto::Builder,
    },
    tokio::{
        net::{TcpListener, TcpStream},
        sync::Notify,
        task::{AbortHandle, JoinSet, unconstrained},
    },
};

use super::{FakeBody, FakePloton};

/// A fake Ploton that listens on a port, for HTTP/1.1 and for HTTP/2 in the clear. Dropping it closes the port and all
/// connections.
#[derive(Debug)]
pub struct FakeServer {
    addr: SocketAddr,
    connections: Arc<AtomicU64>,
    accepting: AbortHandle,
}

impl FakeServer {
    pub(super) async fn listen(fake: FakePloton, addr: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(addr).await?;
        let addr = listener.local_addr()?;
        let connections = Arc::new(AtomicU64::new(0));
        let accepting = tokio::spawn(accept(listener, fake, connections.clone())).abort_handle();
        Ok(Self {
            addr,
            connections,
            accepting,
        })
    }

    /// The address it listens on.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Its URL, such as `http://127.0.0.1:40001`, without the `/v1`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// The connections accepted so far.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }
}

impl Drop for FakeServer {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, fake: FakePloton, accepted: Arc<AtomicU64>) {
    let mut connections = JoinSet::new(); // dropped with this task, and every connection with it
    loop {
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => {
                accepted.fetch_add(1, Ordering::Relaxed);
                connections.spawn(serve(stream, fake.clone()));
            }
            // Out of sockets: wait for some to close.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

/// Serves one connection until the client closes it or a fault cuts it.
async fn serve(stream: TcpStream, fake: FakePloton) {
    let _ = stream.set_nodelay(true);
    let cut = Arc::new(Notify::new());
    let service = service_fn(|request| {
        let (fake, cut) = (fake.clone(), cut.clone());
        async move {
            match fake.serve(request).await {
                Ok(response) => Ok::<_, Infallible>(response.map(|body| ConnectionBody {
                    body: Some(body),
                    cut,
                })),
                Err(_) => {
                    cut.notify_one();
                    future::pending().await
                }
            }
        }
    });
    let builder = Builder::new(TokioExecutor::new());
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        biased;
        _ = connection.as_mut() => {}
        () = cut.notified() => {
            // What was written before the cut still goes out, even where this task has used up its turn.
            unconstrained(future::poll_fn(|cx| {
                let _ = connection.as_mut().poll(cx);
                Poll::Ready(())
            }))
            .await;
        }
    }
}

/// A body whose error cuts the connection. hyper itself would drop the bytes before it unsent, and over HTTP/2 it would
/// reset the stream alone; so the error stays here, and the connection is dropped from outside.
#[derive(Debug)]
struct ConnectionBody {
    /// `None` after its error.
    body: Option<FakeBody>,
    cut: Arc<Notify>,
}

impl Body for ConnectionBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(body) = &mut self.body else {
            return Poll::Pending;
        };
        match ready!(Pin::new(body).poll_frame(cx)) {
            Some(Ok(frame)) => Poll::Ready(Some(Ok(frame))),
            Some(Err(_)) => {
                self.body = None;
                self.cut.notify_one();
                Poll::Pending
            }
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_some_and(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body
            .as_ref()
            .map_or_else(SizeHint::new, Body::size_hint)
    }
}
