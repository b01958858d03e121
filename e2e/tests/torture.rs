//! Real processes, disks and networks, and faults of each family: a short run of `make torture`.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::sync::Mutex;
use vectorsphere_e2e::settings::Settings;
use vectorsphere_e2e::torture::{self, Fault, Plan};

/// Two runs at once are too much for a small machine.
static MACHINE: Mutex<()> = Mutex::const_new(());

/// Steps: one fault after the other strikes a loaded cluster; after each, everything that was acknowledged is there, all
/// answers fit, and all copies are equal.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_and_no_answer_is_wrong_whatever_strikes() -> Result<()> {
    let _machine = MACHINE.lock().await;
    let plan = Plan { duration: Duration::ZERO, seed: 1, faults: Fault::SOME.to_vec(), with_thief: false };
    let summary = torture::run(&Settings::from_environment()?, plan).await?;
    println!("{summary}");
    ensure!(summary.acknowledged() > 1_000, "the run did too little to prove anything");
    Ok(())
}

/// Steps: somebody deletes a document that clients have inserted, and does not say so. The run must miss it: else it would miss
/// nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_notices_what_is_lost() -> Result<()> {
    let _machine = MACHINE.lock().await;
    let plan = Plan { duration: Duration::ZERO, seed: 1, faults: vec![Fault::KillGateway], with_thief: true };
    let error =
        torture::run(&Settings::from_environment()?, plan).await.err().context("it noticed nothing")?;
    ensure!(format!("{error:#}").contains("lost: [\"s"), "{error:#}");
    Ok(())
}
