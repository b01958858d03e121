//! `KubeCluster`: a Kubernetes that this harness runs itself, or one that it was given.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures::future::try_join_all;
use nix::mount::{MntFlags, umount2};

use crate::command::run_command;
use crate::control_plane;
use crate::kubectl::{Kubectl, condition};
use crate::network::{self, Network};
use crate::node::{self, Node};
use crate::phases::{Phases, say};
use crate::pki::Pki;
use crate::process::Daemons;
use crate::settings::Settings;
use crate::wait::until;
use crate::{addons, cgroups, images, machine, report};

/// Marks a cluster that `kube-up` left for a human.
const KEPT: &str = "kept-for-a-human";

/// A cluster that tests can use.
pub struct KubeCluster {
    settings: Settings,
    kubectl: Kubectl,
    local: Option<Local>,
    /// False for a cluster that somebody else started.
    is_ours: bool,
}

/// What more there is to a cluster of this harness on this machine.
struct Local {
    network: Network,
    nodes: Vec<Node>,
    /// Held while a run uses the cluster; the kernel lets go of it when the process ends, however it ends.
    _lock: File,
}

impl KubeCluster {
    /// The cluster of `KUBECONFIG`, if one is given; else a new one with `nodes` nodes.
    ///
    /// # Errors
    /// When this machine cannot carry a cluster, another run uses it, or a part does not come up.
    pub async fn obtain(settings: &Settings, nodes: usize, phases: &mut Phases) -> Result<Self> {
        match &settings.kubeconfig {
            Some(kubeconfig) => Self::attach(settings, kubeconfig, phases).await,
            None => Self::up(settings, nodes, phases).await,
        }
    }

    /// Starts a cluster, after removing what a killed run left behind.
    ///
    /// # Errors
    /// As [`KubeCluster::obtain`].
    pub async fn up(settings: &Settings, nodes: usize, phases: &mut Phases) -> Result<Self> {
        machine::check(settings)?;
        ensure!((1..=9).contains(&nodes), "a cluster has 1 to 9 nodes, not {nodes}");
        let lock = lock(settings)?;
        refuse_kept(settings)?;
        phases.run("remove what an earlier run left", remove(settings)).await?;
        let local = Local {
            network: Network::of(nodes),
            nodes: (1..=nodes).map(|number| Node::new(number, &settings.state())).collect(),
            _lock: lock,
        };
        let kubectl = Kubectl::new(settings, admin_kubeconfig(settings));
        let cluster = Self { settings: settings.clone(), kubectl, local: Some(local), is_ours: true };
        match cluster.bring_up(phases).await {
            Ok(()) => Ok(cluster),
            Err(error) => {
                report::save_and_tell(&cluster, &error).await;
                cluster.down().await?;
                Err(error)
            }
        }
    }

    async fn bring_up(&self, phases: &mut Phases) -> Result<()> {
        let (settings, kubectl) = (&self.settings, &self.kubectl);
        let local = self.local.as_ref().context("not a cluster of this machine")?;
        phases.run("network", local.network.lay()).await?;
        let archives = phases.run("assemble images", async { assemble(settings) }).await?;
        let daemons = Daemons::new(&settings.state(), settings.daemon_path());
        let pki = Pki::create(&settings.state().join("pki"))?;
        control_plane::issue_certificates(&pki)?;
        phases.run("etcd and API server", control_plane::start(settings, &daemons, &pki)).await?;
        phases.run("runtimes, images, kubelets", local.start(settings, &daemons, &pki, &archives)).await?;
        phases.run("add-ons applied", addons::apply(kubectl, &local.nodes)).await?;
        phases.run("nodes ready", nodes_ready(kubectl, local.nodes.len())).await?;
        phases.run("names and volumes", addons::ready(kubectl)).await
    }

    /// Uses a cluster that somebody else runs (or that `kube-up` left): loads the images, changes nothing else.
    async fn attach(settings: &Settings, kubeconfig: &Path, phases: &mut Phases) -> Result<Self> {
        let kubectl = Kubectl::new(settings, kubeconfig.to_path_buf());
        kubectl.run(&["version"]).await.context("the cluster of KUBECONFIG does not answer")?;
        let local =
            if kubeconfig == admin_kubeconfig(settings) { Some(Local::running(settings)?) } else { None };
        let archives =
            phases.run("assemble images", async { images::write_product_images(settings) }).await?;
        let archives = images::paths(&archives);
        match (&local, &settings.image_loader) {
            (Some(local), _) => phases.run("load images", local.load(&archives)).await?,
            (None, Some(loader)) => phases.run("load images", load(loader, &archives)).await?,
            (None, None) => {
                say("no VECTORSPHERE_IMAGE_LOADER given: the cluster must know the images already");
            }
        }
        Ok(Self { settings: settings.clone(), kubectl, local, is_ours: false })
    }

    /// `kubectl` and `helm` on this cluster.
    #[must_use]
    pub fn kubectl(&self) -> &Kubectl {
        &self.kubectl
    }

    /// Where things are.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The network, where the cluster is one of this harness.
    #[must_use]
    pub fn network(&self) -> Option<&Network> {
        self.local.as_ref().map(|local| &local.network)
    }

    /// The nodes, where the cluster is one of this harness.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        self.local.as_ref().map_or(&[], |local| &local.nodes)
    }

    /// Takes a cluster of our own down; leaves any other as it is.
    ///
    /// # Errors
    /// When something of it cannot be removed.
    pub async fn down(self) -> Result<()> {
        if self.is_ours { remove(&self.settings).await } else { Ok(()) }
    }

    /// Leaves the cluster running for a human and returns its kubeconfig.
    ///
    /// # Errors
    /// When the mark cannot be written.
    pub fn keep(self) -> Result<PathBuf> {
        if self.is_ours {
            fs::write(self.settings.state().join(KEPT), b"")?;
        }
        Ok(self.kubectl.kubeconfig().to_path_buf())
    }
}

impl Local {
    /// The cluster that `kube-up` left here.
    fn running(settings: &Settings) -> Result<Self> {
        let state = settings.state();
        let nodes: Vec<Node> =
            (1..).map(|number| Node::new(number, &state)).take_while(|node| node.socket().exists()).collect();
        Ok(Self { network: Network::of(nodes.len()), nodes, _lock: lock(settings)? })
    }

    async fn start(
        &self,
        settings: &Settings,
        daemons: &Daemons,
        pki: &Pki,
        archives: &[PathBuf],
    ) -> Result<()> {
        node::make_fixed_paths(&settings.state())?;
        try_join_all(self.nodes.iter().map(|node| node.start(settings, daemons, pki, archives)))
            .await
            .map(drop)
    }

    async fn load(&self, archives: &[PathBuf]) -> Result<()> {
        let imports = self.nodes.iter().flat_map(|node| archives.iter().map(|archive| node.import(archive)));
        try_join_all(imports).await.map(drop)
    }
}

fn admin_kubeconfig(settings: &Settings) -> PathBuf {
    settings.state().join("pki/admin.kubeconfig")
}

/// Takes down the cluster on this machine, complete or not, whoever started it.
///
/// # Errors
/// When a test uses it right now, or something cannot be removed.
pub async fn take_down(settings: &Settings) -> Result<()> {
    let _lock = lock(settings)?;
    remove(settings).await
}

/// One line on what runs here; `None` when nothing does.
///
/// # Errors
/// When the cluster is there and does not answer.
pub async fn status(settings: &Settings) -> Result<Option<String>> {
    let kubeconfig = settings.kubeconfig.clone().unwrap_or_else(|| admin_kubeconfig(settings));
    if !kubeconfig.exists() {
        return Ok(None);
    }
    let kubectl = Kubectl::new(settings, kubeconfig);
    kubectl.run(&["get", "nodes,pods", "--all-namespaces", "--output=wide"]).await.map(Some)
}

fn lock(settings: &Settings) -> Result<File> {
    fs::create_dir_all(settings.cache())?;
    let path = settings.cache().join("kube.lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            bail!("another run uses the cluster on this machine: wait until it ends")
        }
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot lock {}", path.display()))
        }
    }
}

fn refuse_kept(settings: &Settings) -> Result<()> {
    let state = settings.state();
    let apiserver_runs = || {
        let daemons = Daemons::new(&state, String::new()).recorded().unwrap_or_default();
        daemons.iter().any(|daemon| daemon.name == "apiserver" && daemon.is_running())
    };
    if state.join(KEPT).exists() && apiserver_runs() {
        bail!(
            "a cluster from `make kube-up` is running: use it with KUBECONFIG={}, or end it with `make kube-down`",
            admin_kubeconfig(settings).display()
        );
    }
    Ok(())
}

/// Removes every trace of a cluster: processes, network, cgroups, mounts, files.
async fn remove(settings: &Settings) -> Result<()> {
    let state = settings.state();
    for node in cgroups::leftover(network::NODE_PREFIX)? {
        node::kill(&node).await?;
    }
    // Nothing of the state is kept, so nobody needs time to save any.
    Daemons::new(&state, settings.daemon_path()).stop(Duration::ZERO, |_| true).await?;
    network::remove().await?;
    detach_mounts(&state)?;
    node::remove_fixed_paths(&state)?;
    if state.exists() {
        fs::remove_dir_all(&state).with_context(|| format!("cannot remove {}", state.display()))?;
    }
    Ok(())
}

/// Mounts of nodes live in namespaces of their own and end with them; one that is seen here was left by accident, and
/// removing the state must not reach through it.
fn detach_mounts(state: &Path) -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(1)).map(Path::new);
    let mut below: Vec<&Path> = points.filter(|point| point.starts_with(state)).collect();
    below.sort_by_key(|point| std::cmp::Reverse(point.as_os_str().len()));
    for point in below {
        umount2(point, MntFlags::MNT_DETACH)
            .with_context(|| format!("cannot unmount {}", point.display()))?;
    }
    Ok(())
}

/// Images for a cluster of our own. The product's are left out while its binaries are not built: a cluster without
/// them is still a cluster.
fn assemble(settings: &Settings) -> Result<Vec<PathBuf>> {
    let mut archives = images::write_cluster_images(settings)?;
    match images::write_product_images(settings) {
        Ok(product) => archives.extend(product),
        Err(error) => say(&format!("without VectorSphere's own images: {error:#}")),
    }
    Ok(images::paths(&archives))
}

async fn load(loader: &str, archives: &[PathBuf]) -> Result<()> {
    let words: Vec<&str> = loader.split_whitespace().collect();
    let (program, arguments) = words.split_first().context("VECTORSPHERE_IMAGE_LOADER is empty")?;
    for archive in archives {
        let mut command = tokio::process::Command::new(program);
        command.args(arguments).arg(archive);
        run_command(command, "").await?;
    }
    Ok(())
}

async fn nodes_ready(kubectl: &Kubectl, expected: usize) -> Result<()> {
    until(&format!("{expected} nodes are Ready"), Duration::from_secs(90), async || {
        let list = kubectl.get(&["nodes"]).await?;
        let nodes = list["items"].as_array().context("no list of nodes")?;
        let is_ready =
            |node: &&serde_json::Value| condition(node, "Ready").is_some_and(|(status, _)| status == "True");
        let ready = nodes.iter().filter(is_ready).count();
        ensure!(ready == expected, "{ready} of {} registered nodes are Ready", nodes.len());
        Ok(())
    })
    .await
}
