//! Assembles OCI images from files of this machine: a program, the shared libraries it needs, and little else.
//!
//! Equal input gives an equal digest: entries are sorted, owned by root and carry no time.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{EntryType, Header};

/// User that images run as; it owns nothing in them.
pub const USER: u32 = 65532;
const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// What lies at a path of an image.
enum Entry {
    Folder { mode: u32 },
    File { mode: u32, content: Vec<u8> },
    Link { target: String },
}

/// An image under construction. Paths are absolute; folders above an entry appear by themselves.
pub struct Image {
    name: String,
    entrypoint: Vec<String>,
    environment: Vec<String>,
    /// Layers from the bottom: what changes seldom first, so that runtimes share it.
    layers: [BTreeMap<PathBuf, Entry>; 2],
}

/// An image archive (OCI layout in a tar file) as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Archive {
    /// Name and tag.
    pub name: String,
    /// Where the archive lies.
    pub path: PathBuf,
    /// `sha256:…` of the image's manifest.
    pub digest: String,
}

impl Image {
    /// An image that runs `entrypoint` as an unprivileged user. It holds `/tmp`, `/etc/passwd` and the machine's
    /// root certificates, where it has some.
    ///
    /// # Errors
    /// When the certificates cannot be read.
    pub fn new(name: &str, entrypoint: &[&str]) -> Result<Self> {
        let mut image = Self {
            name: name.to_string(),
            entrypoint: entrypoint.iter().map(ToString::to_string).collect(),
            environment: vec!["PATH=/usr/local/bin:/usr/bin:/bin".to_string()],
            layers: [BTreeMap::new(), BTreeMap::new()],
        };
        let users =
            format!("root:x:0:0:root:/:/sbin/nologin\nnonroot:x:{USER}:{USER}:nonroot:/:/sbin/nologin\n");
        let groups = format!("root:x:0:\nnonroot:x:{USER}:\n");
        image.put(0, "/tmp", Entry::Folder { mode: 0o1777 });
        image.put(0, "/etc/passwd", Entry::File { mode: 0o644, content: users.into_bytes() });
        image.put(0, "/etc/group", Entry::File { mode: 0o644, content: groups.into_bytes() });
        // Names are looked up in /etc/hosts first, then in DNS; without this file some libraries ask neither.
        let lookup = b"hosts: files dns\n".to_vec();
        image.put(0, "/etc/nsswitch.conf", Entry::File { mode: 0o644, content: lookup });
        if Path::new(CERTIFICATES).is_file() {
            image.put(0, CERTIFICATES, Entry::File { mode: 0o644, content: fs::read(CERTIFICATES)? });
        }
        Ok(image)
    }

    /// Adds a program of this machine at `path`, and the shared libraries that it needs.
    ///
    /// # Errors
    /// When the program or one of its libraries is missing.
    pub fn program(mut self, path: &str, host_path: &Path) -> Result<Self> {
        let content = fs::read(host_path).with_context(|| format!("cannot read {}", host_path.display()))?;
        for library in shared_libraries(host_path)? {
            let content = fs::read(&library).with_context(|| format!("cannot read {}", library.display()))?;
            self.put(0, &library, Entry::File { mode: 0o755, content });
        }
        self.put(1, path, Entry::File { mode: 0o755, content });
        Ok(self)
    }

    /// Adds a symbolic link.
    #[must_use]
    pub fn link(mut self, path: &str, target: &str) -> Self {
        self.put(1, path, Entry::Link { target: target.to_string() });
        self
    }

    /// Sets a variable for the program.
    #[must_use]
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push(format!("{name}={value}"));
        self
    }

    fn put(&mut self, layer: usize, path: impl AsRef<Path>, entry: Entry) {
        let path = path.as_ref();
        for folder in path.ancestors().skip(1).filter(|folder| folder.parent().is_some()) {
            self.layers[layer].entry(folder.to_path_buf()).or_insert(Entry::Folder { mode: 0o755 });
        }
        self.layers[layer].insert(path.to_path_buf(), entry);
    }

    /// Writes the image to `<folder>/<last part of the name>.tar`.
    ///
    /// # Errors
    /// When the archive cannot be written.
    pub fn write(&self, folder: &Path) -> Result<Archive> {
        let layers = self.layers.iter().map(layer).collect::<Result<Vec<_>>>()?;
        let config = serde_json::to_vec(&self.config(&layers))?;
        let manifest = serde_json::to_vec(&json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
            "layers": layers.iter().map(|layer| descriptor(LAYER, layer)).collect::<Vec<_>>(),
        }))?;
        let index = serde_json::to_vec(&self.index(&manifest))?;
        let mut files = BTreeMap::from([
            ("oci-layout".to_string(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
            ("index.json".to_string(), index),
        ]);
        let digest = digest(&manifest);
        for blob in layers.into_iter().chain([config, manifest]) {
            files.insert(format!("blobs/sha256/{}", hex(&blob)), blob);
        }
        let path = folder.join(self.file_name());
        write_archive(&path, &files).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Archive { name: self.name.clone(), path, digest })
    }

    fn file_name(&self) -> String {
        let last = self.name.rsplit('/').next().unwrap_or(&self.name);
        format!("{}.tar", last.replace(':', "-"))
    }

    fn config(&self, layers: &[Vec<u8>]) -> Value {
        json!({
            "architecture": architecture(),
            "os": "linux",
            "config": {
                "User": format!("{USER}:{USER}"),
                "Entrypoint": self.entrypoint,
                "Env": self.environment,
                "WorkingDir": "/",
            },
            "rootfs": {"type": "layers", "diff_ids": layers.iter().map(|layer| digest(layer)).collect::<Vec<_>>()},
            "history": layers.iter().map(|_| json!({"created_by": "vectorsphere-e2e image"})).collect::<Vec<_>>(),
        })
    }

    fn index(&self, manifest: &[u8]) -> Value {
        let tag = self.name.rsplit_once(':').map_or("latest", |(_, tag)| tag);
        let mut entry = descriptor(MANIFEST, manifest);
        entry["platform"] = json!({"architecture": architecture(), "os": "linux"});
        entry["annotations"] =
            json!({"io.containerd.image.name": self.name, "org.opencontainers.image.ref.name": tag});
        json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [entry]})
    }
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// Files that the loader would map for `program`, each under the name by which it is looked up.
fn shared_libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(program).env("LC_ALL", "C").output().context("cannot run `ldd`")?;
    let (listed, complaint) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if !output.status.success() {
        // `ldd` fails for a static program, which needs nothing.
        ensure!(
            format!("{listed}{complaint}").contains("not a dynamic executable"),
            "ldd: {}",
            complaint.trim()
        );
        return Ok(Vec::new());
    }
    parse_libraries(&listed).with_context(|| format!("libraries of {}", program.display()))
}

/// Lines are `name => path (address)`, `path (address)` for the loader, `name => not found`, `statically linked`, or
/// the kernel's own library, which is no file.
fn parse_libraries(listed: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for line in listed.lines().map(str::trim) {
        let target = line.split_once("=>").map_or(line, |(_, target)| target.trim());
        if target == "not found" {
            bail!("a library is missing: {line}");
        }
        if target.starts_with('/') {
            found.push(PathBuf::from(target.split(" (").next().unwrap_or(target)));
        }
    }
    Ok(found)
}

fn layer(entries: &BTreeMap<PathBuf, Entry>) -> Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, entry) in entries {
        let path = path.strip_prefix("/").with_context(|| format!("{} is not absolute", path.display()))?;
        match entry {
            Entry::Folder { mode } => {
                archive.append_data(&mut header(EntryType::Directory, *mode, 0), path, &[][..])?;
            }
            Entry::File { mode, content } => {
                archive.append_data(
                    &mut header(EntryType::Regular, *mode, content.len()),
                    path,
                    &content[..],
                )?;
            }
            Entry::Link { target } => {
                archive.append_link(&mut header(EntryType::Symlink, 0o777, 0), path, target)?;
            }
        }
    }
    Ok(archive.into_inner()?)
}

fn write_archive(path: &Path, files: &BTreeMap<String, Vec<u8>>) -> Result<()> {
    fs::create_dir_all(path.parent().context("no folder")?)?;
    let partial = path.with_extension("partial");
    let mut archive = tar::Builder::new(BufWriter::new(File::create(&partial)?));
    for (name, content) in files {
        archive.append_data(&mut header(EntryType::Regular, 0o644, content.len()), name, &content[..])?;
    }
    archive.into_inner()?.flush()?;
    fs::rename(&partial, path)?;
    Ok(())
}

fn header(kind: EntryType, mode: u32, size: usize) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size as u64);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

fn descriptor(media_type: &str, blob: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": digest(blob), "size": blob.len()})
}

fn digest(blob: &[u8]) -> String {
    format!("sha256:{}", hex(blob))
}

fn hex(blob: &[u8]) -> String {
    Sha256::digest(blob).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn shell_image(name: &str) -> Image {
        Image::new(name, &["/bin/sh"]).unwrap().program("/bin/sh", Path::new("/bin/sh")).unwrap()
    }

    fn files_of(archive: &[u8]) -> BTreeMap<String, (Header, Vec<u8>)> {
        let mut archive = tar::Archive::new(archive);
        let mut files = BTreeMap::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            files.insert(entry.path().unwrap().display().to_string(), (entry.header().clone(), content));
        }
        files
    }

    #[test]
    fn equal_input_gives_an_equal_archive() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let first = shell_image("example.org/shell:1").write(one.path()).unwrap();
        let second = shell_image("example.org/shell:1").write(two.path()).unwrap();
        assert_eq!(first.digest, second.digest);
        assert_eq!(fs::read(&first.path).unwrap(), fs::read(&second.path).unwrap());
        let other = shell_image("example.org/shell:1").link("/bin/ash", "sh").write(one.path()).unwrap();
        assert_ne!(first.digest, other.digest);
    }

    #[test]
    fn every_reference_of_the_layout_resolves_to_its_digest() {
        let folder = tempfile::tempdir().unwrap();
        let image = shell_image("example.org/shell:1").environment("KERNELS", "some");
        let archive = image.write(folder.path()).unwrap();
        let files = files_of(&fs::read(&archive.path).unwrap());
        let blob = |descriptor: &Value| {
            let name = descriptor["digest"].as_str().unwrap().replace("sha256:", "blobs/sha256/");
            let content = &files[&name].1;
            assert_eq!(descriptor["digest"], digest(content));
            assert_eq!(descriptor["size"], content.len());
            content.clone()
        };
        let index: Value = serde_json::from_slice(&files["index.json"].1).unwrap();
        let entry = &index["manifests"][0];
        assert_eq!(entry["digest"], archive.digest);
        assert_eq!(entry["annotations"]["io.containerd.image.name"], "example.org/shell:1");
        let manifest: Value = serde_json::from_slice(&blob(entry)).unwrap();
        let config: Value = serde_json::from_slice(&blob(&manifest["config"])).unwrap();
        assert_eq!(config["config"]["User"], "65532:65532");
        assert_eq!(config["config"]["Env"], json!(["PATH=/usr/local/bin:/usr/bin:/bin", "KERNELS=some"]));
        let layers = manifest["layers"].as_array().unwrap();
        let ids: Vec<String> = layers.iter().map(|layer| digest(&blob(layer))).collect();
        assert_eq!(config["rootfs"]["diff_ids"], json!(ids));
    }

    #[test]
    fn layers_hold_the_program_its_loader_and_no_trace_of_this_machine() {
        let image = shell_image("example.org/shell:1");
        let base = files_of(&layer(&image.layers[0]).unwrap());
        let program = files_of(&layer(&image.layers[1]).unwrap());
        assert!(base.keys().any(|name| name.contains("ld-linux")), "no loader among {:?}", base.keys());
        assert_eq!(program["bin/sh"].1, fs::read("/bin/sh").unwrap());
        assert_eq!(base["tmp"].0.mode().unwrap(), 0o1777);
        for (header, _) in base.values().chain(program.values()) {
            assert_eq!((header.mtime().unwrap(), header.uid().unwrap(), header.gid().unwrap()), (0, 0, 0));
        }
    }

    #[test]
    fn a_missing_library_is_an_error() {
        let listed = "\tlinux-vdso.so.1 (0x1)\n\tlibz.so.1 => /lib/libz.so.1 (0x2)\n\t/lib64/ld-linux-x86-64.so.2 (0x3)\n";
        let found = parse_libraries(listed).unwrap();
        assert_eq!(found, [Path::new("/lib/libz.so.1"), Path::new("/lib64/ld-linux-x86-64.so.2")]);
        let error = parse_libraries("\tlibgone.so.2 => not found\n").unwrap_err().to_string();
        assert!(error.contains("libgone.so.2"), "{error}");
    }
}
