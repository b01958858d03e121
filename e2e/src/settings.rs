//! Where things are: the cache, the built binaries, the data, and whose cluster is used.

use std::env::current_exe;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args, Parser};

/// What a run may be told, by flag or by environment.
#[derive(Args, Clone, Debug)]
pub struct Settings {
    /// Folder for tools, images, the cluster's state and failure reports [default: ~/.cache/vectorsphere]
    #[arg(long, env = "VECTORSPHERE_CACHE", value_name = "DIR", global = true)]
    cache: Option<PathBuf>,
    /// Use this cluster and start none
    #[arg(long, env = "KUBECONFIG", value_name = "FILE", global = true)]
    pub kubeconfig: Option<PathBuf>,
    /// Command that brings an image archive into the cluster of KUBECONFIG, e.g. `kind load image-archive`
    #[arg(long, env = "VECTORSPHERE_IMAGE_LOADER", value_name = "COMMAND", global = true)]
    pub image_loader: Option<String>,
    /// Leave the cluster of a failed test running
    #[arg(long, env = "VECTORSPHERE_KEEP", global = true, value_parser = clap::builder::FalseyValueParser::new())]
    pub keep: bool,
    /// Folder with the Debian package embeddings
    #[arg(long, env = "VECTORSPHERE_DATA", value_name = "DIR", global = true)]
    data: Option<PathBuf>,
    #[arg(long, env = "HOME", hide = true, global = true, default_value = "/root")]
    home: PathBuf,
    #[arg(long, env = "PATH", hide = true, global = true, default_value = "")]
    path: String,
}

#[derive(Parser)]
struct EnvironmentOnly {
    #[command(flatten)]
    settings: Settings,
}

impl Settings {
    /// Settings from the environment alone, for tests.
    ///
    /// # Errors
    /// When the environment names no home folder.
    pub fn from_environment() -> Result<Self> {
        Ok(EnvironmentOnly::try_parse_from(["vectorsphere-e2e"])?.settings)
    }

    /// The cache outside of the checkout.
    #[must_use]
    pub fn cache(&self) -> PathBuf {
        self.cache.clone().unwrap_or_else(|| self.home.join(".cache/vectorsphere"))
    }

    /// State of the cluster that the harness runs itself.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.cache().join("kube")
    }

    /// Where image archives are written.
    #[must_use]
    pub fn images(&self) -> PathBuf {
        self.cache().join("images")
    }

    /// A program that `scripts/build-tools` builds; the machine's own when `KUBECONFIG` names a foreign cluster and
    /// nothing was built.
    #[must_use]
    pub fn tool(&self, name: &str) -> PathBuf {
        let built = self.cache().join("tools/bin").join(name);
        if self.kubeconfig.is_some() && !built.exists() { PathBuf::from(name) } else { built }
    }

    /// The search path for daemons: they need programs of the administrator, which a user's path often lacks.
    #[must_use]
    pub fn daemon_path(&self) -> String {
        format!("{}:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin", self.path)
    }

    /// A program on the search path for daemons.
    #[must_use]
    pub fn find_program(&self, name: &str) -> Option<PathBuf> {
        self.daemon_path().split(':').map(|folder| Path::new(folder).join(name)).find(|path| path.is_file())
    }

    /// A binary of this workspace: it lies beside the running one, or one folder up from a test.
    ///
    /// # Errors
    /// When it was not built.
    pub fn workspace_binary(&self, name: &str) -> Result<PathBuf> {
        let own = current_exe().context("cannot tell where the running program lies")?;
        let built =
            own.ancestors().skip(1).take(2).map(|folder| folder.join(name)).find(|path| path.is_file());
        match built {
            Some(path) => Ok(path),
            None => bail!("`{name}` is not built yet: run `cargo build --workspace --bins`"),
        }
    }

    /// The checkout that this crate was built from.
    #[must_use]
    pub fn checkout(&self) -> &'static Path {
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies inside the workspace")
    }

    /// The folder with the whole Debian set, where there is one: as told, else `shared/data/debian` beside the checkout.
    #[must_use]
    pub fn data(&self) -> Option<PathBuf> {
        let beside = || Some(self.checkout().parent()?.join("shared/data/debian"));
        self.data.clone().or_else(|| beside().filter(|folder| folder.is_dir()))
    }
}
