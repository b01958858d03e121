//! Who a node is: its name, its host, its zone.

use std::fs;
use std::path::Path;

use uuid::Uuid;

use super::LaunchError;
use crate::config::Config;
use crate::ids::NodeId;

/// The configured name, or one that is made once and kept.
pub(super) fn node_id(config: &Config) -> Result<NodeId, LaunchError> {
    if let Some(id) = &config.node_id {
        return Ok(id.clone());
    }
    let path = config.data_dir.join("node_id");
    if let Ok(text) = fs::read_to_string(&path)
        && let Ok(id) = NodeId::parse(text.trim())
    {
        return Ok(id);
    }
    let id = format!("node-{}", &Uuid::new_v4().simple().to_string()[..12]);
    // Losing it to a crash costs a new name for a node without data.
    fs::write(&path, &id).map_err(|source| LaunchError::File { path, source })?;
    Ok(NodeId::parse(&id).expect("made of letters, digits and a dash"))
}

/// What other nodes call this node's host.
pub(super) fn advertised_host(config: &Config) -> String {
    if !config.advertise_address.is_empty() {
        return config.advertise_address.clone();
    }
    if config.etcd.endpoints.is_empty() {
        return "127.0.0.1".to_owned();
    }
    let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    name.unwrap_or_else(|| "127.0.0.1".to_owned())
}

/// The zone's file wins when it has content.
pub(super) fn zone(config: &Config) -> String {
    let from_file = config.zone_file.as_ref().and_then(|file| fs::read_to_string(file).ok());
    let from_file = from_file.map(|text| text.trim().to_owned()).filter(|zone| !zone.is_empty());
    from_file.unwrap_or_else(|| config.zone.clone())
}

/// The zone that a file says now.
pub(super) async fn zone_of(file: &Path) -> Option<String> {
    let text = tokio::fs::read_to_string(file).await.ok()?;
    Some(text.trim().to_owned()).filter(|zone| !zone.is_empty())
}

/// Size of the volume that holds the data; 0 when it cannot be told.
pub(super) fn capacity_bytes(folder: &Path) -> u64 {
    let volume = nix::sys::statvfs::statvfs(folder);
    volume.map_or(0, |volume| volume.blocks() * volume.fragment_size())
}
