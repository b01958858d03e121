//! Accepts connections: never more than a number at once, and never in a spin when the system has no room.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::{Stream, stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::transport::server::Connected;
use tracing::warn;

use super::network::{Listener, Stream as Bytes};

/// A listener that has no file left tries again after this.
const PAUSE: Duration = Duration::from_millis(100);

/// A listener with room for so many connections.
pub struct Acceptor {
    listener: Box<dyn Listener>,
    room: Arc<Semaphore>,
    /// For the log.
    what: &'static str,
}

/// Who is on the other side of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

/// An accepted connection; its room is free again when it is dropped.
pub struct Connection {
    stream: Box<dyn Bytes>,
    peer: Peer,
    _permit: OwnedSemaphorePermit,
}

impl Acceptor {
    /// Lets in `connections_max` at once; further ones wait in the system's queue.
    pub fn new(what: &'static str, listener: Box<dyn Listener>, connections_max: usize) -> Acceptor {
        Acceptor { listener, room: Arc::new(Semaphore::new(connections_max)), what }
    }

    /// The next connection. Cancel-safe.
    pub async fn accept(&self) -> Connection {
        let permit = self.room.clone().acquire_owned().await.expect("the semaphore is never closed");
        loop {
            match self.listener.accept().await {
                Ok((stream, peer)) => return Connection { stream, peer: Peer(peer), _permit: permit },
                // A connection that broke before it was accepted is nothing; everything else may last.
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    warn!(%error, listener = self.what, "cannot accept connections");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// The connections as tonic takes them.
    pub fn into_stream(self) -> impl Stream<Item = io::Result<Connection>> + Send {
        stream::unfold(self, async |acceptor| {
            let connection = acceptor.accept().await;
            Some((Ok(connection), acceptor))
        })
    }
}

impl Connection {
    /// Who connected.
    pub fn peer(&self) -> Peer {
        self.peer
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset)
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use futures::poll;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// Steps: room for one; the second waits until the first has gone.
    #[tokio::test]
    async fn a_full_acceptor_lets_nobody_in() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let acceptor = Acceptor::new("test", Box::new(listener), 1);
        let _clients = (TcpStream::connect(address).await, TcpStream::connect(address).await);
        let first = acceptor.accept().await;
        let mut second = Box::pin(acceptor.accept());
        assert!(poll!(&mut second).is_pending(), "there is no room");
        drop(first);
        second.await;
    }
}
