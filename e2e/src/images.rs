//! The images that a cluster needs, each assembled from what was built or installed on this machine.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::image::{Archive, Image};
use crate::settings::Settings;

/// Holds the namespaces of a pod.
pub const PAUSE: &str = "vectorsphere.io/pause:e2e";
/// A shell with the usual small programs.
pub const BOX: &str = "vectorsphere.io/box:e2e";
/// The cluster's name server.
pub const COREDNS: &str = "vectorsphere.io/coredns:1.14.4";
/// Makes volumes out of folders of a node.
pub const LOCAL_PATH: &str = "vectorsphere.io/local-path-provisioner:0.0.30";
/// etcd as the operator runs it for a cluster.
pub const ETCD: &str = "vectorsphere.io/etcd:3.6.14";
/// The node, with the version of this workspace.
pub const NODE: &str = concat!("vectorsphere.io/vectorsphere:", env!("CARGO_PKG_VERSION"));
/// The operator, with the version of this workspace.
pub const OPERATOR: &str = concat!("vectorsphere.io/vectorsphere-operator:", env!("CARGO_PKG_VERSION"));

/// Programs that the shell image offers beside the shell itself.
const BOX_PROGRAMS: [&str; 15] = [
    "cat", "chmod", "echo", "hostname", "httpd", "ls", "mkdir", "nc", "nslookup", "rm", "sh", "sleep",
    "test", "timeout", "wget",
];

/// Assembles what the cluster itself runs: pause, shell, name server and volume provisioner.
///
/// # Errors
/// When a tool was not built.
pub fn write_cluster_images(settings: &Settings) -> Result<Vec<Archive>> {
    let folder = settings.images();
    let busybox = settings.find_program("busybox").context("busybox is not installed")?;
    let shell = BOX_PROGRAMS
        .iter()
        .try_fold(Image::new(BOX, &["/bin/sh"])?.program("/bin/busybox", &busybox)?, |image, program| {
            anyhow::Ok(image.link(&format!("/bin/{program}"), "busybox"))
        })?;
    Ok(vec![
        single(PAUSE, "/pause", &settings.tool("pause"))?.write(&folder)?,
        single(COREDNS, "/coredns", &settings.tool("coredns"))?.write(&folder)?,
        single(LOCAL_PATH, "/local-path-provisioner", &settings.tool("local-path-provisioner"))?
            .write(&folder)?,
        shell.write(&folder)?,
    ])
}

/// Assembles the images of VectorSphere: node, operator and the etcd that the operator runs.
///
/// # Errors
/// When one of the binaries was not built.
pub fn write_product_images(settings: &Settings) -> Result<Vec<Archive>> {
    let folder = settings.images();
    let node = settings.workspace_binary("vectorsphere")?;
    let operator = settings.workspace_binary("vectorsphere-operator")?;
    let etcd = Image::new(ETCD, &["/usr/local/bin/etcd"])?
        .program("/usr/local/bin/etcd", &settings.tool("etcd"))?
        .program("/usr/local/bin/etcdctl", &settings.tool("etcdctl"))?
        .program("/usr/local/bin/etcdutl", &settings.tool("etcdutl"))?;
    let mut node = single(NODE, "/usr/local/bin/vectorsphere", &node)?;
    if cfg!(target_arch = "x86_64") {
        // OpenBLAS takes kernels of long ago for a processor that it does not know (docs/decisions/012-faiss.md).
        node = node.environment("OPENBLAS_CORETYPE", "Haswell");
    }
    Ok(vec![
        node.write(&folder)?,
        single(OPERATOR, "/usr/local/bin/vectorsphere-operator", &operator)?.write(&folder)?,
        etcd.write(&folder)?,
    ])
}

/// Paths of archives, for the runtimes.
#[must_use]
pub fn paths(archives: &[Archive]) -> Vec<PathBuf> {
    archives.iter().map(|archive| archive.path.clone()).collect()
}

fn single(name: &str, path: &str, host_path: &Path) -> Result<Image> {
    Image::new(name, &[path])?.program(path, host_path)
}
