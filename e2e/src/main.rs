//! `vectorsphere-e2e`: clusters and images for people.

use std::io::{Write, stdout};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, Subcommand};
use vectorsphere_e2e::bench_replication::{self, Part};
use vectorsphere_e2e::cluster::{self, KubeCluster};
use vectorsphere_e2e::demo;
use vectorsphere_e2e::image::Image;
use vectorsphere_e2e::images;
use vectorsphere_e2e::phases::{Phases, say};
use vectorsphere_e2e::settings::Settings;
use vectorsphere_e2e::torture;
use vectorsphere_e2e::{bench_one_node, bench_server};

/// Real Kubernetes clusters on this machine, and VectorSphere's images.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(flatten)]
    settings: Settings,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start a cluster and leave it running (with KUBECONFIG: load the images there)
    KubeUp {
        /// Nodes, each in a zone of its own
        #[arg(long, default_value_t = 3)]
        nodes: usize,
    },
    /// Remove the cluster of kube-up, and whatever a killed run left behind
    KubeDown,
    /// Show nodes and pods
    KubeStatus,
    /// Start three nodes in one process, load 10,000 documents and search them
    Demo {
        /// REST port of the first node
        #[arg(long, default_value_t = 8080)]
        port: u16,
        /// End after the searches
        #[arg(long)]
        exit: bool,
    },
    /// Let faults strike a loaded cluster of processes and check every answer (needs root)
    Torture {
        /// How long
        #[arg(long, default_value_t = 10)]
        minutes: u64,
        /// Draws the faults
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Only these, as the summary calls them (such as "kill primary")
        #[arg(long)]
        fault: Vec<torture::Fault>,
    },
    /// Measure load and search of one node beside the floors of wire and disk, and of a cluster of processes
    BenchServer {
        /// The sample and short measurements
        #[arg(long)]
        quick: bool,
        /// Only these
        #[arg(long, value_enum, default_values_t = [ServerPart::OneNode, ServerPart::Cluster])]
        part: Vec<ServerPart>,
    },
    /// Measure what copies cost: writes, gaps, catching up, idle shards
    BenchReplication {
        /// The sample and short measurements
        #[arg(long)]
        quick: bool,
        /// Only these
        #[arg(long, value_enum, default_values_t = [Part::Writes, Part::Gaps, Part::CatchUp, Part::Idle])]
        part: Vec<Part>,
    },
    /// Assemble VectorSphere's images
    Images,
    /// Assemble an image from one program of this machine
    Image {
        /// Name and tag
        name: String,
        /// The program
        program: PathBuf,
        /// Where the program lies in the image [default: /usr/local/bin/ and its name]
        #[arg(long)]
        path: Option<String>,
    },
}

/// What `bench-server` measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum ServerPart {
    /// One node and its floors
    OneNode,
    /// A Master and two slaves
    Cluster,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Cli { settings, command } = Cli::parse();
    match run(&settings, command).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn run(settings: &Settings, command: Command) -> Result<()> {
    match command {
        Command::KubeUp { nodes } => kube_up(settings, nodes).await,
        Command::KubeDown => kube_down(settings).await,
        Command::KubeStatus => {
            let status = cluster::status(settings).await?;
            print(
                &status
                    .unwrap_or_else(|| "no cluster runs on this machine; `make kube-up` starts one".into()),
            )
        }
        Command::Demo { port, exit } => {
            demo::run(&settings.workspace_binary("vectorsphere")?, port, exit).await
        }
        Command::Torture { minutes, seed, fault } => {
            let faults = if fault.is_empty() { torture::Fault::ALL.to_vec() } else { fault };
            let plan = torture::Plan {
                duration: Duration::from_secs(minutes * 60),
                seed,
                faults,
                with_thief: false,
            };
            let summary = torture::run(settings, plan).await?;
            print(&summary.to_string())
        }
        Command::BenchServer { quick, part } => {
            if part.contains(&ServerPart::OneNode) {
                bench_one_node::run(settings, quick, print).await?;
            }
            if part.contains(&ServerPart::Cluster) {
                print(&bench_server::run(settings, quick).await?)?;
            }
            Ok(())
        }
        Command::BenchReplication { quick, part } => {
            bench_replication::run(settings, &part, quick, print).await
        }
        Command::Images => {
            for archive in images::write_product_images(settings)? {
                print(&format!("{}  {}  {}", archive.name, archive.digest, archive.path.display()))?;
            }
            Ok(())
        }
        Command::Image { name, program, path } => {
            let file =
                program.file_name().map(|file| file.to_string_lossy().into_owned()).unwrap_or_default();
            let path = path.unwrap_or_else(|| format!("/usr/local/bin/{file}"));
            let archive = Image::new(&name, &[&path])?.program(&path, &program)?.write(&settings.images())?;
            print(&format!("{}  {}  {}", archive.name, archive.digest, archive.path.display()))
        }
    }
}

async fn kube_up(settings: &Settings, nodes: usize) -> Result<()> {
    let mut phases = Phases::default();
    let cluster = KubeCluster::obtain(settings, nodes, &mut phases).await?;
    let (kubectl, helm) = (settings.tool("kubectl"), settings.tool("helm"));
    let kubeconfig = cluster.keep()?;
    print(&format!(
        "\nThe cluster is up. To use it:\n\n  export KUBECONFIG={}\n  {} get nodes\n  {} install vectorsphere-operator charts/vectorsphere-operator \\\n    --namespace vectorsphere-system --create-namespace\n\n\
         `make kube-down` removes it.",
        kubeconfig.display(),
        kubectl.display(),
        helm.display(),
    ))
}

async fn kube_down(settings: &Settings) -> Result<()> {
    cluster::take_down(settings).await?;
    print("nothing of a cluster is left on this machine")
}

fn print(line: &str) -> Result<()> {
    writeln!(stdout(), "{line}")?;
    Ok(())
}
