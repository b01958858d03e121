//! The ports of a node, bound before anything else starts: a taken port is told at once.

use std::io;

use super::LaunchError;
use crate::config::Config;
use crate::runtime::network::{Listener, Network, Port};

pub(super) struct Listeners {
    pub(super) http: Box<dyn Listener>,
    /// Slaves have none.
    pub(super) grpc: Option<Box<dyn Listener>>,
    /// Other nodes are refused until this node has joined.
    pub(super) internal: Reserved,
    pub(super) ports: Ports,
}

/// A port that is ours, on which nobody listens yet.
pub(super) struct Reserved {
    port: Box<dyn Port>,
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
    pub(super) async fn bind(config: &Config, network: &dyn Network) -> Result<Listeners, LaunchError> {
        let reserve = async |what, key, port: u16| {
            let address = match config.bind_address.contains(':') {
                true => format!("[{}]:{port}", config.bind_address),
                false => format!("{}:{port}", config.bind_address),
            };
            let at = Place { what, key, address };
            match network.take_port(&at.address).await {
                Ok(port) => Ok(Reserved { port, at }),
                Err(source) => Err(at.error(source)),
            }
        };
        let http = reserve("REST", "http_port", config.http_port).await?;
        let grpc = match config.node_type.is_gateway() {
            true => Some(reserve("gRPC", "default_port", config.default_port).await?),
            false => None,
        };
        let internal = reserve("node to node gRPC", "internal_port", config.internal_port).await?;
        let ports = Ports {
            http: http.number(),
            grpc: grpc.as_ref().map(Reserved::number),
            internal: internal.number(),
        };
        let grpc = grpc.map(Reserved::listen).transpose()?;
        Ok(Listeners { http: http.listen()?, grpc, internal, ports })
    }
}

impl Reserved {
    pub(super) fn listen(self) -> Result<Box<dyn Listener>, LaunchError> {
        self.port.listen().map_err(|source| self.at.error(source))
    }

    fn number(&self) -> u16 {
        self.port.address().map_or(0, |address| address.port())
    }
}

impl Place {
    fn error(self, source: io::Error) -> LaunchError {
        LaunchError::Listen { what: self.what, address: self.address, key: self.key, source }
    }
}
