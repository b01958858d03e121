//! A cgroup per node: the root below which a node's kubelet makes the groups of its pods, and the kernel's own list of
//! all processes that belong to the node.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

const MOUNT: &str = "/sys/fs/cgroup";

/// Makes the node's group in every hierarchy (version 1) or in the single one (version 2).
///
/// # Errors
/// When the kernel refuses.
pub fn create(name: &str) -> Result<()> {
    let root = Path::new(MOUNT);
    if root.join("cgroup.controllers").exists() {
        // What the root does not hand down, no kubelet can limit.
        let handed_down = "+cpu +cpuset +io +memory +pids";
        fs::write(root.join("cgroup.subtree_control"), handed_down)
            .context("cannot hand down cgroup controllers")?;
    }
    for hierarchy in hierarchies()? {
        let group = hierarchy.join(name);
        fs::create_dir_all(&group).with_context(|| format!("cannot make {}", group.display()))?;
        // Version 1 makes cpuset groups empty, and an empty group takes no process.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if hierarchy.ends_with("cpuset") {
                fs::write(group.join(file), fs::read(hierarchy.join(file))?)?;
            }
        }
    }
    Ok(())
}

/// Puts a node's daemon, and with it all that the daemon will start, into the node's group.
///
/// # Errors
/// When the process is gone or the kernel refuses.
pub fn adopt(name: &str, pid: i32) -> Result<()> {
    let root = Path::new(MOUNT);
    let hierarchy = if root.join("cgroup.procs").exists() { root.to_path_buf() } else { root.join("pids") };
    // A leaf of its own: version 2 lets a group hold either processes or groups.
    let group = hierarchy.join(name).join("daemons");
    fs::create_dir_all(&group)?;
    fs::write(group.join("cgroup.procs"), pid.to_string())
        .with_context(|| format!("cannot move {pid} to {name}"))
}

/// Processes that are in groups of the node now: its daemons, and whatever runs in its pods.
///
/// # Errors
/// When the hierarchies cannot be read.
pub fn processes(name: &str) -> Result<Vec<i32>> {
    let mut found = Vec::new();
    for hierarchy in hierarchies()? {
        for group in groups_below(&hierarchy.join(name)) {
            let listed = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
            found.extend(listed.lines().filter_map(|line| line.parse::<i32>().ok()));
        }
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// Names of groups with this prefix that are there now.
///
/// # Errors
/// When the hierarchies cannot be read.
pub fn leftover(prefix: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for hierarchy in hierarchies()? {
        let entries =
            fs::read_dir(&hierarchy)?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        found.extend(entries.filter(|name| name.starts_with(prefix)));
    }
    found.sort();
    found.dedup();
    Ok(found)
}

/// Removes the node's groups; they must hold no process any more.
///
/// # Errors
/// When a group is still in use.
pub fn remove(name: &str) -> Result<()> {
    for hierarchy in hierarchies()? {
        for group in groups_below(&hierarchy.join(name)) {
            match fs::remove_dir(&group) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("cannot remove {}", group.display()));
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// Folders at which a node's group must be.
fn hierarchies() -> Result<Vec<PathBuf>> {
    let root = Path::new(MOUNT);
    if root.join("cgroup.procs").exists() {
        return Ok(vec![root.to_path_buf()]);
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(root).with_context(|| format!("no cgroups at {MOUNT}"))? {
        let path = entry?.path();
        // Controllers that are mounted together appear under several names: links, of which one is enough.
        if path.join("cgroup.procs").exists() && !path.is_symlink() {
            found.push(path);
        }
    }
    Ok(found)
}

/// The group and all below it, the deepest first; nothing when it is not there.
fn groups_below(group: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    if let Ok(entries) = fs::read_dir(group) {
        for path in entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_dir()) {
            found.extend(groups_below(&path));
        }
        found.push(group.to_path_buf());
    }
    found
}
