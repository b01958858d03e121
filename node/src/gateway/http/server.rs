//! Accepts REST connections, within limits, until told to stop.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::ConnectInfo;
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tower::ServiceExt;
use tracing::{debug, warn};

use super::super::ApiGateway;
use super::super::limits::{CONNECTIONS_MAX, HEAD_BYTES_MAX, NEXT_HEAD_TIMEOUT, STREAMS_MAX};
use crate::runtime::TaskGroup;

/// A listener that has no file left tries again after this.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until the group is cancelled; then accepts nothing more, lets requests end, and returns. The connections are
/// tasks of the group.
pub async fn serve(gateway: ApiGateway, listener: TcpListener, tasks: TaskGroup) {
    let routes = super::routes_of(gateway);
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let cancel = tasks.cancellation().clone();
    loop {
        let permit = tokio::select! {
            () = cancel.cancelled() => return,
            permit = room.clone().acquire_owned() => permit.expect("the semaphore is never closed"),
        };
        let (stream, peer) = tokio::select! {
            () = cancel.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    wait_out(&error).await;
                    continue;
                }
            },
        };
        let (routes, cancel) = (routes.clone(), cancel.clone());
        tasks.spawn("http connection", async move {
            let _permit = permit;
            converse(routes, stream, peer, cancel.cancelled_owned()).await;
        });
    }
}

/// A connection that broke before it was accepted is nothing; everything else may last.
async fn wait_out(error: &io::Error) {
    if !matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
        warn!(%error, "cannot accept REST connections");
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}

/// One connection, until its client ends it or `stop`; a request under way is answered first.
async fn converse(routes: axum::Router, stream: TcpStream, peer: SocketAddr, stop: impl Future<Output = ()>) {
    // Answers are small; waiting to fill a packet would only delay them.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        routes.clone().oneshot(request.map(Body::new))
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(NEXT_HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEAD_BYTES_MAX as u32)
        .keep_alive_interval(Some(NEXT_HEAD_TIMEOUT));
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection, stop);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = &mut stop => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, %peer, "a connection ended early");
    }
}
