//! Accepts REST connections, within limits, until told to stop.

use axum::body::Body;
use axum::extract::ConnectInfo;
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tower::ServiceExt;
use tracing::debug;

use super::super::ApiGateway;
use super::super::limits::{CONNECTIONS_MAX, HEAD_BYTES_MAX, NEXT_HEAD_TIMEOUT, STREAMS_MAX};
use crate::runtime::TaskGroup;
use crate::runtime::acceptor::{Acceptor, Connection, Peer};
use crate::runtime::network::Listener;

/// Serves until the group is cancelled; then accepts nothing more, lets requests end, and returns. The connections are
/// tasks of the group.
pub async fn serve(gateway: ApiGateway, listener: Box<dyn Listener>, tasks: TaskGroup) {
    let routes = super::routes_of(gateway);
    let acceptor = Acceptor::new("http", listener, CONNECTIONS_MAX);
    let cancel = tasks.cancellation().clone();
    while let Some(connection) = cancel.run_until_cancelled(acceptor.accept()).await {
        let (routes, cancel) = (routes.clone(), cancel.clone());
        tasks.spawn_brief("http connection", converse(routes, connection, cancel.cancelled_owned()));
    }
}

/// One connection, until its client ends it or `stop`; a request under way is answered first.
async fn converse(routes: axum::Router, connection: Connection, stop: impl Future<Output = ()>) {
    let Peer(peer) = connection.peer();
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
    let connection = builder.serve_connection(TokioIo::new(connection), service);
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
