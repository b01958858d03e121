//! Who a node is: its name, its host, its zone.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

use uuid::Uuid;
use vectorsphere_proto::meta;

use super::LaunchError;
use super::listeners::Ports;
use crate::config::Config;
use crate::ids::NodeId;
use crate::runtime::disk::Disk;

/// In the data directory: the start of a machine during which every process over it so far has ended, or has run.
const BOOT_ID: &str = "boot_id";

/// The configured name, or one that is made once and kept.
pub(super) fn node_id(config: &Config) -> Result<NodeId, LaunchError> {
    match &config.node_id {
        Some(id) => Ok(id.clone()),
        None => {
            let path = config.data_dir.join("node_id");
            kept_node_id(&path).map_err(|source| LaunchError::File { path, source })
        }
    }
}

/// Only a file that is not there is made: its name is the owner of this node's data.
fn kept_node_id(path: &Path) -> io::Result<NodeId> {
    match fs::read_to_string(path) {
        Ok(text) => NodeId::parse(text.trim()).map_err(|error| {
            io::Error::new(io::ErrorKind::InvalidData, format!("it holds no node id: {error}"))
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let id = format!("node-{}", &Uuid::new_v4().simple().to_string()[..12]);
            let fresh = path.with_extension("new");
            let mut file = File::create(&fresh)?;
            file.write_all(id.as_bytes())?;
            file.sync_all()?;
            fs::rename(&fresh, path)?;
            File::open(path.parent().expect("it is in the data directory"))?.sync_all()?;
            Ok(NodeId::parse(&id).expect("made of letters, digits and a dash"))
        }
        Err(error) => Err(error),
    }
}

/// True when no earlier process can be running over the data directory, whose lock this process holds: either there was
/// none, or it ran on this very machine since it was started, where the lock is proof.
pub(super) fn predecessor_ended(disk: &dyn Disk) -> Result<bool, LaunchError> {
    let path = Path::new(BOOT_ID);
    match disk.read(path) {
        Ok(before) => Ok(before == boot_id().map_err(failed)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            note_predecessors_ended(disk)?;
            Ok(true)
        }
        Err(error) => Err(failed(error)),
    }
}

/// Writes down that every process before this one has ended, wherever it ran: whoever comes after this one on this machine,
/// as long as that runs, need not wait. Not before it is true, for this process may end at any time.
pub(super) fn note_predecessors_ended(disk: &dyn Disk) -> Result<(), LaunchError> {
    boot_id().and_then(|boot| replace(disk, Path::new(BOOT_ID), &boot)).map_err(failed)
}

fn failed(source: io::Error) -> LaunchError {
    LaunchError::File { path: BOOT_ID.into(), source }
}

/// Changes with every start of the machine.
fn boot_id() -> io::Result<Vec<u8>> {
    fs::read("/proc/sys/kernel/random/boot_id")
}

/// Durable on return; a crash before leaves the earlier content.
fn replace(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let fresh = path.with_extension("new");
    match disk.remove(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = disk.create(&fresh)?;
    file.append(bytes)?;
    file.sync()?;
    disk.rename(&fresh, path)?;
    disk.sync_dir(Path::new(""))
}

/// What this process registers.
pub(super) fn node_record(config: &Config, id: &NodeId, ports: &Ports, disk: &dyn Disk) -> meta::NodeRecord {
    let host = advertised_host(config);
    let endpoint = |kind: &str, port: u16| meta::Endpoint {
        kind: kind.to_owned(),
        scheme: "http".to_owned(),
        host: host.clone(),
        port: u32::from(port),
    };
    let mut endpoints = vec![endpoint("http", ports.http), endpoint("internal", ports.internal)];
    endpoints.extend(ports.grpc.map(|port| endpoint("grpc", port)));
    meta::NodeRecord {
        node_id: id.to_string(),
        session: Uuid::new_v4().to_string(),
        node_type: config.node_type.as_str().to_owned(),
        endpoints,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        zone: zone(config),
        // 0 when it cannot be told.
        capacity_bytes: disk.space().map_or(0, |space| space.capacity_bytes),
        protocol_min: 1,
        protocol_max: 1,
    }
}

/// What other nodes call this node's host.
fn advertised_host(config: &Config) -> String {
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
fn zone(config: &Config) -> String {
    let from_file = config.zone_file.as_ref().and_then(|file| fs::read_to_string(file).ok());
    let from_file = from_file.map(|text| text.trim().to_owned()).filter(|zone| !zone.is_empty());
    from_file.unwrap_or_else(|| config.zone.clone())
}

/// The zone that a file says now.
pub(super) async fn zone_of(file: &Path) -> Option<String> {
    let text = tokio::fs::read_to_string(file).await.ok()?;
    Some(text.trim().to_owned()).filter(|zone| !zone.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::disk::MemoryDisk;

    /// Steps: a start that the power may go off in, another start, and one on a machine that was started since.
    #[test]
    fn a_process_before_has_ended_unless_the_machine_was_started_since() {
        for operation in 0..8 {
            let disk = MemoryDisk::new(operation);
            disk.power_off_after(operation);
            let _ = predecessor_ended(&disk);
            disk.crash();
            assert!(predecessor_ended(&disk).expect("well"), "it was this machine or nobody");
            disk.crash();
            assert!(predecessor_ended(&disk).expect("well"), "what was told to survive did");
        }
    }

    /// A volume moves to another machine while its process goes on, and the process there ends before it has waited: the
    /// next one has to wait as well.
    #[test]
    fn what_ran_on_another_machine_has_ended_only_when_somebody_has_waited_for_it() {
        let disk = MemoryDisk::new(1);
        let ended = || predecessor_ended(&disk).expect("readable");
        assert!(ended(), "there was none");
        assert!(ended(), "the lock is proof");
        disk.overwrite(Path::new(BOOT_ID), b"another machine".to_vec());
        assert!(!ended());
        assert!(!ended(), "the one that ended just now had not waited");
        note_predecessors_ended(&disk).expect("writable");
        assert!(ended());
    }

    #[test]
    fn a_name_is_made_once_and_never_replaced() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("node_id");
        let id = kept_node_id(&path).expect("made");
        assert_eq!(kept_node_id(&path).expect("kept"), id);
        fs::write(&path, [0xff]).expect("writable");
        assert!(kept_node_id(&path).is_err(), "not text");
        fs::write(&path, "not/a/name").expect("writable");
        assert!(kept_node_id(&path).expect_err("no name").to_string().contains("no node id"));
        assert_eq!(fs::read_to_string(&path).expect("readable"), "not/a/name");
    }
}
