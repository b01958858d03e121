//! A node: a network namespace and a mount namespace with a containerd, a kubelet and a kube-proxy of its own.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use futures::future::try_join_all;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use serde_json::json;

use crate::cgroups;
use crate::command::run;
use crate::control_plane::SERVER;
use crate::images::PAUSE;
use crate::network::{PODS, node_address, node_name, pod_range};
use crate::pki::Pki;
use crate::process::{Daemon, Daemons};
use crate::settings::Settings;
use crate::wait::until;

/// Address of the cluster's DNS Service.
pub const DNS: &str = "10.96.0.10";

/// Paths that a kubelet, a runtime or a network plugin holds for its own, wherever its configuration points. In the
/// node's mount namespace a folder of the node lies over each.
const FIXED_PATHS: [&str; 5] =
    ["/var/lib/kubelet", "/var/lib/cni", "/var/log/containers", "/run/containerd", "/run/netns"];

/// Which of them the machine did not have before.
const MADE_PATHS: &str = "made-paths";

/// One node; nodes count from 1.
#[derive(Clone, Debug)]
pub struct Node {
    number: usize,
    name: String,
    folder: PathBuf,
}

impl Node {
    /// The node `number` of the cluster whose state lies in `state`.
    #[must_use]
    pub fn new(number: usize, state: &Path) -> Self {
        Self { number, name: node_name(number), folder: state.join(format!("node-{number}")) }
    }

    /// Name of the node, in Kubernetes too.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Which one it is; nodes count from 1.
    #[must_use]
    pub fn number(&self) -> usize {
        self.number
    }

    /// Where the runtime listens.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.folder.join("containerd.sock")
    }

    /// Where the volumes of the node's pods lie.
    #[must_use]
    pub fn volumes(&self) -> PathBuf {
        self.folder.join("volumes")
    }

    /// Logs of the node's pods, as the kubelet keeps them.
    #[must_use]
    pub fn pod_logs(&self) -> PathBuf {
        self.folder.join("pod-logs")
    }

    /// Starts the runtime, loads `images` into it, then starts kubelet and kube-proxy. The node's network must be laid.
    ///
    /// # Errors
    /// When a daemon ends or the runtime does not answer within 30 s; the message quotes the log.
    pub async fn start(
        &self,
        settings: &Settings,
        daemons: &Daemons,
        pki: &Pki,
        images: &[PathBuf],
    ) -> Result<()> {
        self.write_configuration(pki)?;
        cgroups::create(&self.name)?;
        let containerd = settings.find_program("containerd").context("containerd is not installed")?;
        let runtime_flags = vec![format!("--config={}", self.path("containerd.toml"))];
        let runtime =
            self.spawn(daemons, Home::Fresh, vec![("containerd", containerd, runtime_flags)])?.remove(0);
        self.runtime_answers(daemons, &runtime).await?;
        try_join_all(images.iter().map(|image| self.import(image))).await?;
        let rest = vec![
            ("kubelet", settings.tool("kubelet"), self.kubelet_flags(pki)),
            ("kube-proxy", settings.tool("kube-proxy"), self.proxy_flags(pki)),
        ];
        self.spawn(daemons, Home::Of(runtime.pid), rest).map(drop)
    }

    /// Loads an image archive into the node's runtime.
    ///
    /// # Errors
    /// When the archive is damaged or the runtime gone.
    pub async fn import(&self, archive: &Path) -> Result<()> {
        self.ctr(&["images", "import", "--no-unpack", &archive.display().to_string()]).await.map(drop)
    }

    /// Process id, on the host, of the first process of a container.
    ///
    /// # Errors
    /// When the container does not run on this node.
    pub async fn container_pid(&self, container_id: &str) -> Result<i32> {
        let tasks = self.ctr(&["tasks", "list"]).await?;
        let mut rows = tasks.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let row = rows.find(|row| row.first() == Some(&container_id));
        let pid = row.and_then(|row| row.get(1)?.parse().ok());
        pid.with_context(|| format!("container {container_id} does not run on {}", self.name))
    }

    async fn ctr(&self, arguments: &[&str]) -> Result<String> {
        let socket = self.socket().display().to_string();
        let mut all = vec!["--address", &socket, "--namespace", "k8s.io"];
        all.extend(arguments);
        run("ctr", &all).await
    }

    async fn runtime_answers(&self, daemons: &Daemons, runtime: &Daemon) -> Result<()> {
        until(&format!("containerd of {} answers", self.name), Duration::from_secs(30), async || {
            daemons.check(runtime)?;
            self.ctr(&["version"]).await.map(drop)
        })
        .await
    }

    /// Starts daemons inside the node's namespaces and puts them into the node's cgroup.
    fn spawn(
        &self,
        daemons: &Daemons,
        home: Home,
        programs: Vec<(&str, PathBuf, Vec<String>)>,
    ) -> Result<Vec<Daemon>> {
        let start = || -> Result<Vec<Daemon>> {
            self.enter(home)?;
            let mut started = Vec::new();
            for (program, path, flags) in programs {
                let daemon = daemons.spawn(&format!("{program}-{}", self.number), &path, &flags)?;
                cgroups::adopt(&self.name, daemon.pid)?;
                started.push(daemon);
            }
            Ok(started)
        };
        // Namespaces belong to a thread: this one enters them, starts the daemons and ends.
        thread::scope(|scope| scope.spawn(start).join())
            .map_err(|_| anyhow!("{}: the start panicked", self.name))?
    }

    /// Moves the calling thread into the node's namespaces.
    fn enter(&self, home: Home) -> Result<()> {
        match home {
            Home::Fresh => {
                let network =
                    File::open(format!("/run/netns/{}", self.name)).context("the network is not laid")?;
                setns(network, CloneFlags::CLONE_NEWNET)?;
                unshare(CloneFlags::CLONE_NEWNS).context("cannot make a mount namespace")?;
                self.cover_fixed_paths()
            }
            Home::Of(pid) => {
                setns(File::open(format!("/proc/{pid}/ns/net"))?, CloneFlags::CLONE_NEWNET)?;
                unshare(CloneFlags::CLONE_FS)?;
                setns(File::open(format!("/proc/{pid}/ns/mnt"))?, CloneFlags::CLONE_NEWNS)?;
                Ok(())
            }
        }
    }

    fn cover_fixed_paths(&self) -> Result<()> {
        let nothing: Option<&str> = None;
        mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)
            .context("cannot make mounts private")?;
        for path in FIXED_PATHS {
            let own = self.folder.join("fixed").join(path.trim_start_matches('/').replace('/', "-"));
            fs::create_dir_all(&own)?;
            mount(Some(&own), path, nothing, MsFlags::MS_BIND, nothing)
                .with_context(|| format!("cannot cover {path}"))?;
            // Volumes mounted by the kubelet must appear in containers that started before.
            mount(nothing, path, nothing, MsFlags::MS_SHARED, nothing)?;
        }
        Ok(())
    }

    fn path(&self, file: &str) -> String {
        self.folder.join(file).display().to_string()
    }

    fn write_configuration(&self, pki: &Pki) -> Result<()> {
        for folder in ["cni", "volumes", "pod-logs"] {
            fs::create_dir_all(self.folder.join(folder))?;
        }
        let (name, address) = (&self.name, node_address(self.number));
        pki.issue(name, &format!("system:node:{name}"), "system:nodes", &[name.clone(), address])?;
        pki.kubeconfig(name, SERVER)?;
        fs::write(self.folder.join("containerd.toml"), self.runtime_configuration())?;
        fs::write(self.folder.join("cni/10-pods.conflist"), self.network_configuration().to_string())?;
        fs::write(self.folder.join("resolv.conf"), "nameserver 127.0.0.1\n")?;
        fs::write(
            self.folder.join("kubelet.yaml"),
            serde_yaml::to_string(&self.kubelet_configuration(pki))?,
        )?;
        Ok(())
    }

    fn runtime_configuration(&self) -> String {
        let path = |file: &str| self.path(file);
        format!(
            r#"version = 2
root = "{root}"
state = "{state}"
[grpc]
  address = "{socket}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  # Lowering the score of the out-of-memory killer needs a capability that containers and sandboxes lack.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{cni}"
"#,
            root = path("containerd"),
            state = path("containerd-state"),
            socket = path("containerd.sock"),
            cni = path("cni"),
        )
    }

    /// Each pod on a link of its own (`ptp`, not a bridge): all its packets pass the node's routing, so that answers
    /// within a node are translated back from a Service's address on every kernel.
    fn network_configuration(&self) -> serde_json::Value {
        json!({"cniVersion": "0.4.0", "name": "pods", "plugins": [
            {"type": "ptp", "ipMasq": false, "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": pod_range(self.number)}]],
                "routes": [{"dst": "0.0.0.0/0"}],
                "dataDir": self.path("addresses")}},
            {"type": "portmap", "capabilities": {"portMappings": true}}]})
    }

    fn kubelet_configuration(&self, pki: &Pki) -> serde_json::Value {
        json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {
                "anonymous": {"enabled": false},
                "webhook": {"enabled": true},
                "x509": {"clientCAFile": pki.path("ca.crt")}},
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": pki.path(&format!("{}.crt", self.name)),
            "tlsPrivateKeyFile": pki.path(&format!("{}.key", self.name)),
            "containerRuntimeEndpoint": format!("unix://{}", self.socket().display()),
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": format!("/{}", self.name),
            "cgroupsPerQOS": true,
            "enforceNodeAllocatable": ["pods"],
            "failCgroupV1": false,
            "failSwapOn": false,
            "clusterDNS": [DNS],
            "clusterDomain": "cluster.local",
            "resolvConf": self.path("resolv.conf"),
            "podLogsDir": self.path("pod-logs"),
            "nodeStatusUpdateFrequency": "5s",
            // All nodes share the machine's disk: one that is nearly full is the machine's matter, not a reason to
            // evict pods or to delete images that nobody can bring back.
            "evictionHard": {
                "memory.available": "200Mi", "nodefs.available": "1%", "imagefs.available": "1%",
                "nodefs.inodesFree": "1%"},
            "imageGCHighThresholdPercent": 100,
            "imageGCLowThresholdPercent": 99,
        })
    }

    fn kubelet_flags(&self, pki: &Pki) -> Vec<String> {
        vec![
            format!("--config={}", self.path("kubelet.yaml")),
            format!("--kubeconfig={}", pki.path(&format!("{}.kubeconfig", self.name)).display()),
            format!("--hostname-override={}", self.name),
            format!("--node-ip={}", node_address(self.number)),
            format!("--node-labels=topology.kubernetes.io/zone=zone-{}", self.number),
        ]
    }

    fn proxy_flags(&self, pki: &Pki) -> Vec<String> {
        vec![
            format!("--kubeconfig={}", pki.path("kube-proxy.kubeconfig").display()),
            "--proxy-mode=iptables".into(),
            format!("--cluster-cidr={PODS}"),
            format!("--hostname-override={}", self.name),
            // The limits of connection tracking belong to the machine, not to a namespace.
            "--conntrack-max-per-core=0".into(),
            "--conntrack-tcp-timeout-established=0".into(),
            "--conntrack-tcp-timeout-close-wait=0".into(),
        ]
    }
}

/// Ends all that belongs to a node, pods included, and removes its cgroups. The daemons' records stay.
///
/// # Errors
/// When a process survives the kill.
pub async fn kill(name: &str) -> Result<()> {
    until(&format!("no process of {name} is left"), Duration::from_secs(20), async || {
        let left = cgroups::processes(name)?;
        for pid in &left {
            // It may end by itself in between.
            let _ = signal::kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
        if left.is_empty() { Ok(()) } else { Err(anyhow!("{} left: {left:?}", left.len())) }
    })
    .await?;
    cgroups::remove(name)
}

/// Makes the folders that nodes cover, and notes which of them this machine did not have.
///
/// # Errors
/// When a folder cannot be made.
pub fn make_fixed_paths(state: &Path) -> Result<()> {
    let absent: Vec<&str> = FIXED_PATHS.into_iter().filter(|path| !Path::new(path).exists()).collect();
    fs::write(state.join(MADE_PATHS), absent.join("\n"))?;
    absent.iter().try_for_each(|path| fs::create_dir_all(path).with_context(|| format!("cannot make {path}")))
}

/// Removes the folders that [`make_fixed_paths`] made. One that somebody else uses by now is not empty, and stays.
///
/// # Errors
/// When the note cannot be read.
pub fn remove_fixed_paths(state: &Path) -> Result<()> {
    let note = state.join(MADE_PATHS);
    if note.exists() {
        for path in fs::read_to_string(note)?.lines() {
            let _ = fs::remove_dir(path);
        }
    }
    Ok(())
}

/// The mount namespace that a daemon starts in.
#[derive(Clone, Copy)]
enum Home {
    /// A new one.
    Fresh,
    /// That of a daemon of the same node.
    Of(i32),
}
