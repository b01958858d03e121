//! The Master goes away, politely and not, while clients search.

use std::time::Duration;

use anyhow::{Result, ensure};
use vectorsphere_e2e::deployment::{Deployment, Leader};
use vectorsphere_e2e::phases::say;
use vectorsphere_e2e::searcher::search_during;

use crate::packages::{Packages, TABLE};

/// Five seconds of lease, the campaign, the operator's look, and a busy machine.
const NEW_MASTER: Duration = Duration::from_secs(60);
const HEALED: Duration = Duration::from_secs(120);

/// Deletes the Master's pod: another Master with a higher epoch, and not one failed search.
pub(crate) async fn delete_master_pod(deployment: &Deployment<'_>, packages: &Packages) -> Result<()> {
    let before = deployment.leader().await?;
    let deed = async {
        let delete = ["--namespace", deployment.namespace(), "delete", "pod", &before.pod];
        deployment.kubectl().run(&delete).await?;
        healed(deployment, &before).await
    };
    let (after, tally) = search_during(packages.url(), TABLE, &packages.debian, deed).await?;
    ensure!(after.pod != before.pod, "the deleted pod {} is Master again", before.pod);
    say(&format!("           {before:?} -> {after:?}, {} searches, none failed", tally.searches));
    tally.without_failure()
}

/// Kills the Master's process: another epoch, and no search that failed twice.
pub(crate) async fn kill_master(deployment: &Deployment<'_>, packages: &Packages) -> Result<()> {
    let before = deployment.leader().await?;
    let deed = async {
        deployment.sigkill(&before.pod).await?;
        healed(deployment, &before).await
    };
    let (after, tally) = search_during(packages.url(), TABLE, &packages.debian, deed).await?;
    let retried = tally.failed_once.len();
    say(&format!("           {before:?} -> {after:?}, {} searches, {retried} asked again", tally.searches));
    tally.without_failure_after_retry()
}

async fn healed(deployment: &Deployment<'_>, before: &Leader) -> Result<Leader> {
    let after = deployment.leader_after(before, NEW_MASTER).await?;
    deployment.pods_ready("master", 3, HEALED).await?;
    deployment.condition("Ready", "True", HEALED).await?;
    Ok(after)
}
