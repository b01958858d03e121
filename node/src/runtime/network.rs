//! The seam between a node and the network: it takes ports, and it makes channels to other nodes.
//!
//! [`Tcp`] is the real one. Tests of whole nodes bring one that breaks on purpose.

use std::io;
use std::net::SocketAddr;

use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, lookup_host};
use tonic::transport::{Channel, Endpoint};

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1_024;

/// What a node needs of a network. Shared as `Arc<dyn Network>`.
pub trait Network: Send + Sync + 'static {
    /// Takes the port of an address (`host:port`), on which nobody listens yet; port 0 lets the system choose.
    fn take_port<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Port>>>;

    /// A channel that connects when it is first used, and again after a break.
    fn channel(&self, endpoint: &Endpoint) -> Channel;
}

/// A port that is ours: others are refused there until somebody listens.
pub trait Port: Send {
    /// Where it is.
    fn address(&self) -> io::Result<SocketAddr>;

    /// Lets others connect.
    fn listen(self: Box<Self>) -> io::Result<Box<dyn Listener>>;
}

/// A port that others can connect to.
pub trait Listener: Send + Sync {
    /// The next connection, and who connected. Cancel-safe.
    fn accept(&self) -> BoxFuture<'_, io::Result<(Box<dyn Stream>, SocketAddr)>>;
}

/// The bytes of a connection, both ways.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// The network of the machine.
#[derive(Clone, Copy, Debug)]
pub struct Tcp;

impl Network for Tcp {
    fn take_port<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Port>>> {
        Box::pin(async move {
            let address = lookup_host(address).await?.next().ok_or(io::ErrorKind::AddrNotAvailable)?;
            let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
            // As every listener: connections of the process before do not keep the port.
            socket.set_reuseaddr(true)?;
            socket.bind(address)?;
            Ok(Box::new(socket) as Box<dyn Port>)
        })
    }

    fn channel(&self, endpoint: &Endpoint) -> Channel {
        endpoint.connect_lazy()
    }
}

impl Port for TcpSocket {
    fn address(&self) -> io::Result<SocketAddr> {
        self.local_addr()
    }

    fn listen(self: Box<Self>) -> io::Result<Box<dyn Listener>> {
        Ok(Box::new(TcpSocket::listen(*self, BACKLOG)?))
    }
}

impl Listener for TcpListener {
    fn accept(&self) -> BoxFuture<'_, io::Result<(Box<dyn Stream>, SocketAddr)>> {
        Box::pin(async {
            let (stream, peer) = TcpListener::accept(self).await?;
            // Answers are small; waiting to fill a packet would only delay them.
            let _ = stream.set_nodelay(true);
            Ok((Box::new(stream) as Box<dyn Stream>, peer))
        })
    }
}
