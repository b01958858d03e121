//! The ports of a node, bound before anything else starts: a taken port is told at once.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket, lookup_host};

use super::LaunchError;
use crate::config::Config;

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1_024;

pub(super) struct Listeners {
    pub(super) http: TcpListener,
    /// Slaves have none.
    pub(super) grpc: Option<TcpListener>,
    /// Other nodes are refused until this node has joined.
    pub(super) internal: Reserved,
}

/// A port that is ours, on which nobody listens yet.
pub(super) struct Reserved {
    socket: TcpSocket,
    at: Place,
}

/// The ports as they are: 0 in the configuration lets the system choose.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ports {
    pub(super) http: u16,
    pub(super) grpc: Option<u16>,
    pub(super) internal: u16,
}

/// What a listener is for, and where it is, for errors.
struct Place {
    what: &'static str,
    key: &'static str,
    address: String,
}

impl Listeners {
    pub(super) async fn bind(config: &Config) -> Result<Listeners, LaunchError> {
        let reserve = async |what, key, port: u16| {
            let address = match config.bind_address.contains(':') {
                true => format!("[{}]:{port}", config.bind_address),
                false => format!("{}:{port}", config.bind_address),
            };
            let at = Place { what, key, address };
            match socket(&at.address).await {
                Ok(socket) => Ok(Reserved { socket, at }),
                Err(source) => Err(at.error(source)),
            }
        };
        let http = reserve("REST", "http_port", config.http_port).await?.listen()?;
        let grpc = match config.node_type.is_gateway() {
            true => Some(reserve("gRPC", "default_port", config.default_port).await?.listen()?),
            false => None,
        };
        let internal = reserve("node to node gRPC", "internal_port", config.internal_port).await?;
        Ok(Listeners { http, grpc, internal })
    }

    pub(super) fn ports(&self) -> Ports {
        let port = |address: io::Result<SocketAddr>| address.map_or(0, |address| address.port());
        Ports {
            http: port(self.http.local_addr()),
            grpc: self.grpc.as_ref().map(|grpc| port(grpc.local_addr())),
            internal: port(self.internal.socket.local_addr()),
        }
    }
}

impl Reserved {
    pub(super) fn listen(self) -> Result<TcpListener, LaunchError> {
        self.socket.listen(BACKLOG).map_err(|source| self.at.error(source))
    }
}

impl Place {
    fn error(self, source: io::Error) -> LaunchError {
        LaunchError::Listen { what: self.what, address: self.address, key: self.key, source }
    }
}

async fn socket(address: &str) -> io::Result<TcpSocket> {
    let address = lookup_host(address).await?.next().ok_or(io::ErrorKind::AddrNotAvailable)?;
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // As every listener: connections of the process before do not keep the port.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}
