//! A service on a loopback port.

use std::{io, net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use hyper::{
    body::{Body, Incoming},
    server::conn::http1::Builder,
    service::Service,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, task::AbortHandle, task::JoinSet, time::sleep};
use tower::BoxError;

/// Serves until it is dropped.
pub(crate) struct Server {
    addr: SocketAddr,
    accepting: AbortHandle,
}

impl Server {
    pub(crate) fn start<S, B>(listener: TcpListener, service: S) -> io::Result<Self>
    where
        S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
        S::Future: Send,
        S::Error: Into<BoxError>,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let addr = listener.local_addr()?;
        let accepting = tokio::spawn(async move {
            let mut connections = JoinSet::new(); // dropped with this task, and every connection with it
            loop {
                while connections.try_join_next().is_some() {}
                let Ok((stream, _)) = listener.accept().await else {
                    // Out of sockets: wait for some to close.
                    sleep(Duration::from_millis(10)).await;
                    continue;
                };
                let mut http = Builder::new();
                http.timer(TokioTimer::new());
                // An error of the service cuts the connection, which is what it is for.
                connections.spawn(http.serve_connection(TokioIo::new(stream), service.clone()));
            }
        });
        let accepting = accepting.abort_handle();
        Ok(Self { addr, accepting })
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}
