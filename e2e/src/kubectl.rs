//! `kubectl` and `helm` on one cluster.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;
use tokio::process::Command;

use crate::command::run_command;
use crate::settings::Settings;

/// Both programs, bound to the cluster of a kubeconfig.
#[derive(Clone, Debug)]
pub struct Kubectl {
    kubectl: PathBuf,
    helm: PathBuf,
    kubeconfig: PathBuf,
}

impl Kubectl {
    /// The programs for the cluster of `kubeconfig`.
    #[must_use]
    pub fn new(settings: &Settings, kubeconfig: PathBuf) -> Self {
        Self { kubectl: settings.tool("kubectl"), helm: settings.tool("helm"), kubeconfig }
    }

    /// The file that names the cluster.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Where `kubectl` is.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.kubectl
    }

    /// Runs `kubectl` and returns what it printed.
    ///
    /// # Errors
    /// When it fails; the message quotes it.
    pub async fn run(&self, arguments: &[&str]) -> Result<String> {
        run_command(self.command(arguments), "").await
    }

    /// Applies a manifest, which may hold several documents.
    ///
    /// # Errors
    /// When the API server refuses one.
    pub async fn apply(&self, manifest: &str) -> Result<()> {
        let arguments = ["apply", "--server-side", "--field-manager=vectorsphere-e2e", "--filename=-"];
        run_command(self.command(&arguments), manifest).await.map(drop)
    }

    /// `kubectl get … --output=json`.
    ///
    /// # Errors
    /// When the object is not there.
    pub async fn get(&self, arguments: &[&str]) -> Result<Value> {
        let mut all = vec!["get", "--output=json"];
        all.extend(arguments);
        serde_json::from_str(&self.run(&all).await?).context("kubectl wrote no JSON")
    }

    /// Runs `helm` and returns what it printed.
    ///
    /// # Errors
    /// When it fails; the message quotes it.
    pub async fn helm(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.helm);
        command.arg("--kubeconfig").arg(&self.kubeconfig).args(arguments);
        run_command(command, "").await
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.kubectl);
        command.arg("--kubeconfig").arg(&self.kubeconfig).args(arguments);
        command
    }
}

/// Names in a list of objects.
#[must_use]
pub fn names(list: &Value) -> Vec<String> {
    let items = list["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    items.iter().filter_map(|item| Some(item["metadata"]["name"].as_str()?.to_string())).collect()
}

/// The condition of an object's status with the given type, as `(status, reason and message)`.
#[must_use]
pub fn condition(object: &Value, kind: &str) -> Option<(String, String)> {
    let conditions = object["status"]["conditions"].as_array()?;
    let found = conditions.iter().find(|condition| condition["type"] == kind)?;
    let text = |field: &str| found[field].as_str().unwrap_or_default();
    Some((text("status").to_string(), format!("{}: {}", text("reason"), text("message"))))
}
