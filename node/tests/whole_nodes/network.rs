//! The network of turmoil as nodes, clients and the model of etcd use it.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt as _, Stream as Connections, stream};
use hyper::Uri;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;
use tonic::transport::{Channel, Endpoint};
use turmoil::net::{TcpListener, TcpStream};
use vectorsphere::runtime::network::{Listener, Network, Port, Stream};

/// A dead connection is found by its pings: turmoil sends nothing twice, so a connection that lost a packet is dead.
const KEEP_ALIVE: Duration = Duration::from_secs(1);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// The ways on which nothing gets through, from one host to another. Clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Cuts(Arc<Mutex<BTreeSet<(&'static str, &'static str)>>>);

/// The simulated network as one host sees it.
#[derive(Clone)]
pub(crate) struct Wires {
    here: &'static str,
    cuts: Cuts,
}

impl Cuts {
    /// From now on it is these.
    pub(crate) fn set(&self, cuts: BTreeSet<(&'static str, &'static str)>) {
        *self.0.lock().expect("no panic under the lock") = cuts;
    }

    fn parts(&self, one: &str, other: &str) -> bool {
        let cuts = self.0.lock().expect("no panic under the lock");
        cuts.iter().any(|(from, to)| (*from, *to) == (one, other) || (*from, *to) == (other, one))
    }
}

/// A connection that somebody made to this host.
pub(crate) struct Accepted(TcpStream);

impl Wires {
    /// The network as a host sees it.
    pub(crate) fn of(here: &'static str, cuts: &Cuts) -> Wires {
        Wires { here, cuts: cuts.clone() }
    }

    /// A channel to a port of a host.
    pub(crate) fn channel_to(&self, host: &str, port: u16) -> Channel {
        let endpoint = Endpoint::from_shared(format!("http://{host}:{port}")).expect("a host and a port");
        self.channel(
            &endpoint
                .connect_timeout(CONNECT_TIMEOUT)
                .http2_keep_alive_interval(KEEP_ALIVE)
                .keep_alive_timeout(KEEP_ALIVE)
                .keep_alive_while_idle(true),
        )
    }

    /// Connections to a port of this host, as tonic takes them.
    pub(crate) async fn accept(port: u16) -> impl Connections<Item = io::Result<Accepted>> {
        let listener = TcpListener::bind(("0.0.0.0", port)).await.expect("the port is free");
        stream::unfold(listener, async |listener| {
            let accepted = listener.accept().await;
            Some((accepted.map(|(stream, _)| Accepted(stream)), listener))
        })
    }

    /// turmoil refuses a connection whose first packet was lost; in truth nobody hears anything.
    async fn connect(self, host: String, port: u16) -> io::Result<TokioIo<TcpStream>> {
        let connected = TcpStream::connect((host.as_str(), port)).await;
        if connected.is_err() && self.cuts.parts(self.here, &host) {
            std::future::pending::<()>().await;
        }
        connected.map(TokioIo::new)
    }
}

impl Network for Wires {
    fn take_port<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Port>>> {
        let address: SocketAddr = address.parse().expect("nodes bind numbers here");
        std::future::ready(Ok(Box::new(Taken(address)) as Box<dyn Port>)).boxed()
    }

    fn channel(&self, endpoint: &Endpoint) -> Channel {
        let wires = self.clone();
        endpoint.connect_with_connector_lazy(tower::service_fn(move |to: Uri| {
            let host = to.host().expect("a host").to_owned();
            wires.clone().connect(host, to.port_u16().expect("a port"))
        }))
    }
}

struct Taken(SocketAddr);

impl Port for Taken {
    fn address(&self) -> io::Result<SocketAddr> {
        Ok(self.0)
    }

    fn listen(self: Box<Self>) -> io::Result<Box<dyn Listener>> {
        let bound = TcpListener::bind(self.0).now_or_never().expect("it has nothing to wait for");
        Ok(Box::new(Bound(bound?)))
    }
}

struct Bound(TcpListener);

impl Listener for Bound {
    fn accept(&self) -> BoxFuture<'_, io::Result<(Box<dyn Stream>, SocketAddr)>> {
        async {
            let (stream, peer) = self.0.accept().await?;
            Ok((Box::new(stream) as Box<dyn Stream>, peer))
        }
        .boxed()
    }
}

impl Connected for Accepted {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Accepted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
