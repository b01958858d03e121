//! The ports of a node, bound before anything else starts: a taken port is told at once.

use tokio::net::TcpListener;

use super::LaunchError;
use crate::config::Config;

pub(super) struct Listeners {
    pub(super) http: TcpListener,
    /// Slaves have none.
    pub(super) grpc: Option<TcpListener>,
    pub(super) internal: TcpListener,
}

/// The ports as they are: 0 in the configuration lets the system choose.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ports {
    pub(super) http: u16,
    pub(super) grpc: Option<u16>,
    pub(super) internal: u16,
}

impl Listeners {
    pub(super) async fn bind(config: &Config) -> Result<Listeners, LaunchError> {
        let bind = async |what, key, port: u16| {
            let address = match config.bind_address.contains(':') {
                true => format!("[{}]:{port}", config.bind_address),
                false => format!("{}:{port}", config.bind_address),
            };
            let bound = TcpListener::bind(&address).await;
            bound.map_err(|source| LaunchError::Listen { what, address, key, source })
        };
        let http = bind("REST", "http_port", config.http_port).await?;
        let grpc = match config.node_type.is_gateway() {
            true => Some(bind("gRPC", "default_port", config.default_port).await?),
            false => None,
        };
        let internal = bind("node to node gRPC", "internal_port", config.internal_port).await?;
        Ok(Listeners { http, grpc, internal })
    }

    pub(super) fn ports(&self) -> Ports {
        let port = |listener: &TcpListener| listener.local_addr().map_or(0, |address| address.port());
        Ports { http: port(&self.http), grpc: self.grpc.as_ref().map(port), internal: port(&self.internal) }
    }
}
