//! `vectorsphere-operator`: runs the operator, or prints what it installs.

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Parser, Subcommand};
use kube::Client;
use kube_lease_manager::LeaseManagerBuilder;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};
use tracing_subscriber::EnvFilter;
use vectorsphere_operator::backoff::Backoff;
use vectorsphere_operator::events::Events;
use vectorsphere_operator::metadata_client::MetadataClient;
use vectorsphere_operator::metrics::OperatorMetrics;
use vectorsphere_operator::reconcile::Context;
use vectorsphere_operator::validate::Defaults;
use vectorsphere_operator::zones::Zones;
use vectorsphere_operator::{admin, controller};

/// A leader that died is replaced after this.
const LEASE_SECONDS: u64 = 15;
/// The lease is renewed when this much of it is left: time for the API server to come back before another leads.
const LEASE_SPARE_SECONDS: u64 = 10;
/// Reconciles under way get this long to end; less than the 30 s that Kubernetes gives.
const STOP_WITHIN: Duration = Duration::from_secs(20);

/// Keeps VectorSphere clusters running on Kubernetes.
#[derive(Parser)]
#[command(name = "vectorsphere-operator", version)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: RunFlags,
}

#[derive(Subcommand)]
enum Command {
    /// Run the operator (what happens without a subcommand)
    Run,
    /// Print the custom resource definition
    Crd,
}

#[derive(Args)]
struct RunFlags {
    /// Watch this namespace only [default: all]
    #[arg(long, env = "WATCH_NAMESPACE", global = true)]
    watch_namespace: Option<String>,
    /// Namespace of the lease by which operators elect a leader
    #[arg(long, env = "POD_NAMESPACE", default_value = "default", global = true)]
    lease_namespace: String,
    /// Name of that lease
    #[arg(long, env = "LEASE_NAME", default_value = "vectorsphere-operator", global = true)]
    lease_name: String,
    /// Name of this operator in the election and in events
    #[arg(long, env = "POD_NAME", global = true)]
    identity: Option<String>,
    /// Where probes and metrics are served
    #[arg(long, env = "LISTEN_ADDRESS", default_value = "0.0.0.0:8080", global = true)]
    listen: SocketAddr,
    /// Image of the nodes, without tag
    #[arg(long, env = "NODE_IMAGE", default_value = "vectorsphere.io/vectorsphere", global = true)]
    node_image: String,
    /// Image of a managed etcd
    #[arg(long, env = "ETCD_IMAGE", default_value = "vectorsphere.io/etcd:3.6.14", global = true)]
    etcd_image: String,
    /// Log filter
    #[arg(long, env = "LOG_LEVEL", default_value = "info", global = true)]
    log_level: String,
}

#[tokio::main]
async fn main() -> Result<()> {
    // First of all: with two providers linked and none installed, rustls panics at the first handshake.
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.install_default().expect("no provider was installed before");
    let cli = Cli::parse();
    match cli.command {
        Some(Command::Crd) => print_definitions(),
        None | Some(Command::Run) => run(cli.run).await,
    }
}

fn print_definitions() -> Result<()> {
    let mut out = std::io::stdout().lock();
    for (_, definition) in vectorsphere_crds::definitions() {
        out.write_all(vectorsphere_crds::to_yaml(&definition).as_bytes())?;
    }
    Ok(())
}

async fn run(flags: RunFlags) -> Result<()> {
    let filter: EnvFilter = flags.log_level.parse().context("--log-level is not understood")?;
    tracing_subscriber::fmt().json().flatten_event(true).with_env_filter(filter).init();
    let client = Client::try_default().await.context("no way to the API server is configured")?;
    controller::check_installed(&client, flags.watch_namespace.as_deref()).await?;

    let stop = CancellationToken::new();
    let metrics = OperatorMetrics::default();
    let listener = TcpListener::bind(flags.listen)
        .await
        .with_context(|| format!("cannot listen at {}", flags.listen))?;
    let serving = admin::serve(listener, metrics.clone(), stop.clone());
    let context = Arc::new(Context {
        client: client.clone(),
        metadata: MetadataClient::default(),
        defaults: Defaults {
            image_repository: flags.node_image.clone(),
            etcd_image: flags.etcd_image.clone(),
        },
        events: Events::new(client.clone(), flags.identity.clone()),
        metrics: metrics.clone(),
        zones: Zones::default(),
        backoff: Backoff::default(),
    });
    let leading = lead(client, &flags, context, stop.clone());
    tokio::pin!(leading);
    tokio::select! {
        served = serving => served.context("the admin server failed")?,
        led = &mut leading => led?,
        () = told_to_stop() => {
            info!("told to stop");
            stop.cancel();
            timeout(STOP_WITHIN, leading).await.context("reconciles did not end in time")??;
        }
    }
    Ok(())
}

/// Waits for the lease, reconciles while it is held, ends the process when it is lost: another operator may lead by then.
/// When told to stop, ends the reconciles under way and gives the lease back.
async fn lead(
    client: Client,
    flags: &RunFlags,
    context: Arc<Context>,
    stop: CancellationToken,
) -> Result<()> {
    let mut builder = LeaseManagerBuilder::new(client, &flags.lease_name)
        .with_namespace(&flags.lease_namespace)
        .with_duration(LEASE_SECONDS)
        .with_grace(LEASE_SPARE_SECONDS);
    if let Some(identity) = &flags.identity {
        builder = builder.with_identity(identity);
    }
    let manager = builder.build().await.context("cannot use the lease for election")?;
    let (mut leading, lease) = manager.watch().await;
    info!("waiting for the lease");
    let elected = tokio::select! {
        elected = leading.wait_for(|leads| *leads) => elected.map(|_| true).context("the election ended")?,
        () = stop.cancelled() => false,
    };
    if elected {
        info!("leading");
        context.metrics.leading.set(1);
        tokio::select! {
            () = controller::run(context, flags.watch_namespace.as_deref(), stop.clone()) => {
                if !stop.is_cancelled() {
                    bail!("the controller ended by itself");
                }
            }
            _ = leading.wait_for(|leads| !*leads) => bail!("lost the lease"),
        }
    }
    drop(leading);
    // Joining releases the lease, so that a successor need not wait for its end.
    lease.await.context("the election panicked")?.map(|_| ()).context("cannot release the lease")
}

/// SIGTERM or SIGINT.
async fn told_to_stop() {
    let mut terminate = match signal(SignalKind::terminate()) {
        Ok(terminate) => terminate,
        Err(error) => {
            error!(%error, "cannot listen for SIGTERM");
            return std::future::pending().await;
        }
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}
