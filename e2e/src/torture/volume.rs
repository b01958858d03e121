//! The disk of a node: a file system of its own on a loop device, so that its power can be cut, it can be full, wiped, and
//! slow, and nothing else on the machine is.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::command::run;

const BYTES: u64 = 192 << 20;
/// Written and synced when the volume is made; more is appended to it, and not synced, before the power is cut.
const PROBE: &str = "probe";
const SYNCED: &[u8] = b"synced";
const BALLAST: &str = "ballast";

/// The programs of a run that are not ours to find: compiled from C, since one lives inside the nodes and both speak to
/// the kernel in its own terms.
#[derive(Clone, Debug)]
pub struct Tools {
    cut_power: PathBuf,
    /// To be preloaded into nodes.
    pub bad_sync: PathBuf,
}

/// What becomes of syncs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syncs {
    /// The kernel's word.
    Usual,
    /// Each takes so much longer.
    Slow(Duration),
    /// Each fails (EIO).
    Fail,
}

/// A mounted volume.
#[derive(Debug)]
pub struct Volume {
    image: PathBuf,
    folder: PathBuf,
    tools: Tools,
    control: PathBuf,
}

impl Tools {
    /// Compiles them into `folder`.
    ///
    /// # Errors
    /// When there is no C compiler.
    pub async fn build(folder: &Path) -> Result<Tools> {
        let build = async |name: &str, source: &str, options: &[&str]| -> Result<PathBuf> {
            let (from, to) = (folder.join(format!("{name}.c")), folder.join(name));
            fs::write(&from, source)?;
            let paths =
                ["-O2", "-Wall", "-Werror", "-o", &to.display().to_string(), &from.display().to_string()]
                    .map(str::to_owned);
            let arguments: Vec<String> =
                paths.into_iter().chain(options.iter().map(|o| (*o).to_owned())).collect();
            run("cc", &arguments).await.context("needs a C compiler: run `scripts/install-deps build`")?;
            Ok(to)
        };
        Ok(Tools {
            cut_power: build("cut_power", include_str!("cut_power.c"), &[]).await?,
            bad_sync: build("bad_sync", include_str!("bad_sync.c"), &["-shared", "-fPIC"]).await?,
        })
    }
}

impl Volume {
    /// Makes a volume and mounts it below `folder`.
    ///
    /// # Errors
    /// When the machine has no loop devices, or cannot make an ext4.
    pub async fn make(name: &str, folder: &Path, tools: Tools) -> Result<Volume> {
        let volume = Volume {
            image: folder.join(format!("{name}.image")),
            folder: folder.join(name),
            control: folder.join(format!("{name}.control")),
            tools,
        };
        File::create(&volume.control)?.write_all(&[0; 4096])?;
        fs::create_dir_all(&volume.folder)?;
        volume.format().await?;
        volume.mount().await?;
        Ok(volume)
    }

    /// Where its content is.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What a process needs in its environment so that its syncs can be made slow, or fail.
    #[must_use]
    pub fn environment(&self) -> Vec<(String, String)> {
        let preload = ("LD_PRELOAD".to_owned(), self.tools.bad_sync.display().to_string());
        vec![preload, ("BAD_SYNC_CONTROL".to_owned(), self.control.display().to_string())]
    }

    /// From now on syncs are as told; returns how many were slow, and how many failed, so far.
    ///
    /// # Errors
    /// When the control page cannot be used.
    pub fn set_syncs(&self, syncs: Syncs) -> Result<(u64, u64)> {
        let page = File::options().read(true).write(true).open(&self.control)?;
        let (delay_ms, fails): (u64, u64) = match syncs {
            Syncs::Usual => (0, 0),
            Syncs::Slow(delay) => (u64::try_from(delay.as_millis())?, 0),
            Syncs::Fail => (0, 1),
        };
        page.write_all_at(&[delay_ms.to_ne_bytes(), fails.to_ne_bytes()].concat(), 0)?;
        let count = |at| -> Result<u64> {
            let mut bytes = [0; 8];
            page.read_exact_at(&mut bytes, at)?;
            Ok(u64::from_ne_bytes(bytes))
        };
        Ok((count(16)?, count(24)?))
    }

    /// Cuts the power: what is not on the device by now never will be.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn cut_power(&self) -> Result<()> {
        // Not synced, so it must be gone when the power is back.
        File::options().append(true).open(self.folder.join(PROBE))?.write_all(&[0; 4096])?;
        run(&self.tools.cut_power, &[&self.folder]).await.map(drop)
    }

    /// Mounts the volume again after a cut; tells whether something that was not synced is gone.
    ///
    /// # Errors
    /// When it cannot be mounted, or what was synced is gone.
    pub async fn restore_power(&self) -> Result<bool> {
        self.unmount().await?;
        self.mount().await?;
        let probe = fs::read(self.folder.join(PROBE))?;
        ensure!(probe.starts_with(SYNCED), "the volume lost what was synced: the test proves nothing");
        self.check_alive()?;
        let is_gone = probe.len() == SYNCED.len();
        self.write_probe()?;
        Ok(is_gone)
    }

    /// Replaces the volume by an empty one.
    ///
    /// # Errors
    /// When it cannot be made.
    pub async fn wipe(&self) -> Result<()> {
        self.unmount().await?;
        self.format().await?;
        self.mount().await
    }

    /// Fills the volume to the last byte; returns how many were left.
    ///
    /// # Errors
    /// When something else goes wrong than that there is no more space.
    pub fn fill(&self) -> Result<u64> {
        let mut ballast = File::create(self.folder.join(BALLAST))?;
        let (block, mut filled) = (vec![0xa5; 1 << 20], 0);
        // Large blocks, then what is left between them.
        for size in [block.len(), 4096] {
            loop {
                match ballast.write(&block[..size]) {
                    Ok(written) => filled += written as u64,
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => return Err(error).context("cannot fill the volume"),
                }
            }
        }
        Ok(filled)
    }

    /// Takes away what [`Volume::fill`] put there.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn make_room(&self) -> Result<()> {
        fs::remove_file(self.folder.join(BALLAST)).context("cannot make room again")
    }

    async fn format(&self) -> Result<()> {
        File::create(&self.image)?.set_len(BYTES)?;
        // No work is left for later, which would go on beside the test, and no blocks are kept back for root.
        let options = ["-q", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0"];
        let image = self.image.display().to_string();
        run("mkfs.ext4", &[&options[..], &[&image]].concat()).await.map(drop)
    }

    async fn mount(&self) -> Result<()> {
        let (image, folder) = (self.image.display().to_string(), self.folder.display().to_string());
        run("mount", &["-o", "loop", &image, &folder])
            .await
            .context("cannot mount a volume: this needs root, ext4 and loop devices")?;
        if self.folder.join(PROBE).exists() { Ok(()) } else { self.write_probe() }
    }

    /// Takes it away.
    ///
    /// # Errors
    /// When somebody uses it.
    pub async fn unmount(&self) -> Result<()> {
        run("umount", &[&self.folder]).await.map(drop)
    }

    fn write_probe(&self) -> Result<()> {
        let mut probe = File::create(self.folder.join(PROBE))?;
        probe.write_all(SYNCED)?;
        probe.sync_all()?;
        File::open(&self.folder)?.sync_all().context("cannot sync the volume")
    }

    /// A file system that is still mounted elsewhere would come back as it was: shut down.
    fn check_alive(&self) -> Result<()> {
        let file = File::create(self.folder.join("alive"))?;
        file.sync_all().context("the volume is still without power: somebody else has it mounted")
    }
}
