//! One scenario on one cluster: brings it up, runs the scenario, saves a report when it fails, and always cleans up.

use std::any::Any;
use std::panic::AssertUnwindSafe;

use anyhow::{Result, anyhow};
use futures::FutureExt;

use crate::cluster::KubeCluster;
use crate::phases::{Phases, say};
use crate::report;
use crate::settings::Settings;

/// Runs `scenario` on a cluster with `nodes` nodes (or on that of `KUBECONFIG`) and prints the times of its phases.
///
/// # Errors
/// What the scenario returns (a panic becomes an error), or what keeps the cluster from coming up or going away.
pub async fn run(
    nodes: usize,
    scenario: impl AsyncFnOnce(&KubeCluster, &mut Phases) -> Result<()>,
) -> Result<()> {
    let settings = Settings::from_environment()?;
    let mut phases = Phases::default();
    let cluster = KubeCluster::obtain(&settings, nodes, &mut phases).await?;
    let outcome = AssertUnwindSafe(scenario(&cluster, &mut phases)).catch_unwind().await;
    let outcome = outcome.unwrap_or_else(|panic| Err(anyhow!("panicked: {}", words(panic.as_ref()))));
    if let Err(error) = &outcome {
        report::save_and_tell(&cluster, error).await;
    }
    let down = if outcome.is_err() && settings.keep {
        let kept = cluster.keep();
        kept.map(|kubeconfig| say(&format!("the cluster is left running: {}", kubeconfig.display())))
    } else {
        phases.run("cluster removed", cluster.down()).await
    };
    say(&format!("\n{}", phases.summary()));
    outcome.and(down)
}

fn words(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a word")
}
