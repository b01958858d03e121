//! A bit of a file that changes while nobody looks.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

use super::disk::says;
use super::{Effect, outside_of_the_set, pick};
use crate::torture::lab::{Lab, MASTERS, SLAVES};
use crate::wait::until;

const SOON: Duration = Duration::from_secs(60);

/// Which of a copy's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Log,
    Meta,
    Manifest,
    Segment,
}

/// A file of a copy.
#[derive(Clone, Debug)]
struct CopyFile {
    table_id: String,
    shard: u32,
    replica: String,
    path: PathBuf,
}

/// Flips one bit in a file of a copy while its node is down; the copy must notice and say that it is damaged.
pub(super) async fn bit(lab: &mut Lab, random: &mut ChaCha8Rng, kind: Kind) -> Result<Effect> {
    // Of new tables nothing was written into segments yet; clients are about it.
    let holders = until(&format!("a copy has a {kind:?}"), SOON, async || {
        let mut holders = Vec::new();
        for slave in SLAVES {
            if !files(&lab.data(slave), kind)?.is_empty() {
                holders.push(slave);
            }
        }
        ensure!(!holders.is_empty(), "none has");
        Ok(holders)
    })
    .await?;
    let victim = *pick(random, &holders);
    let tables: Value = lab.client(MASTERS[0])?.get("/api/v1/tables").await?;
    lab.node(victim).kill().await?;
    let told = flip_one(lab, random, victim, kind, &tables).await;
    let said = lab.node(victim).said()?;
    lab.start_nodes()?;
    let (file, what) = match told {
        Ok(told) => told,
        Err(error) => return Ok(Effect::Unconfirmed(format!("{victim} was killed only: {error:#}"))),
    };
    let words = format!("\"replica\":\"{}\"", file.replica);
    let marked = says(lab, victim, said, "marked as damaged").await;
    let named = lab
        .node(victim)
        .says_since(said)?
        .lines()
        .any(|line| line.contains("marked as damaged") && line.contains(&words));
    Ok(match (marked, named) {
        (Ok(()), true) => Effect::Confirmed(format!("{what}; the copy said that it is damaged")),
        (Ok(()), false) => Effect::Unconfirmed(format!("{what}; another copy said that it is damaged")),
        (Err(error), _) => Effect::Unconfirmed(format!("{what}; {error:#}")),
    })
}

async fn flip_one(
    lab: &Lab,
    random: &mut ChaCha8Rng,
    victim: &str,
    kind: Kind,
    tables: &Value,
) -> Result<(CopyFile, String)> {
    let files = files(&lab.data(victim), kind)?;
    ensure!(!files.is_empty(), "it has no {kind:?}");
    let file = pick(random, &files).clone();
    let all = tables["tables"].as_array().context("no tables")?;
    let table = all.iter().find(|table| table["table_id"] == file.table_id.as_str());
    let table = table.and_then(|table| table["table_name"].as_str()).context("a copy of no table")?;
    outside_of_the_set(lab, victim, |(name, shard)| name == table && shard == file.shard).await?;
    let at = flip(&file.path, random, kind)?;
    Ok((
        file.clone(),
        format!("{victim}, {table}/{}: bit {} of byte {} of {}", file.shard, at.1, at.0, name(&file.path)),
    ))
}

/// Flips a bit; returns the place of its byte, and which bit of it.
fn flip(path: &Path, random: &mut ChaCha8Rng, kind: Kind) -> Result<(u64, u8)> {
    let file = File::options().read(true).write(true).open(path)?;
    let length = file.metadata()?.len();
    // The end of a log may be torn by any crash, and is cut; what lies before it is known to be durable.
    let end = if kind == Kind::Log { length / 4 } else { length };
    ensure!(end > 0, "{} is too short", path.display());
    let (at, bit) = (random.random_range(0..end), random.random_range(0..8_u8));
    let mut byte = [0];
    file.read_exact_at(&mut byte, at)?;
    let flipped = byte[0] ^ 1 << bit;
    file.write_all_at(&[flipped], at)?;
    file.sync_all()?;
    file.read_exact_at(&mut byte, at)?;
    ensure!(byte[0] == flipped, "the bit did not flip");
    Ok((at, bit))
}

/// The files of this kind below a data directory.
fn files(data: &Path, kind: Kind) -> Result<Vec<CopyFile>> {
    let mut found = Vec::new();
    for table in entries(&data.join("shards"))? {
        for shard in entries(&table)? {
            for replica in entries(&shard)? {
                let Some(path) = file_of(&replica, kind)? else { continue };
                let (table_id, number) = (name(&table), name(&shard).parse().context("not a shard")?);
                found.push(CopyFile { table_id, shard: number, replica: name(&replica), path });
            }
        }
    }
    Ok(found)
}

/// The file of this kind in a copy's directory: of logs and segments the first, since the last one may be unfinished; of
/// manifests the one that counts.
fn file_of(replica: &Path, kind: Kind) -> Result<Option<PathBuf>> {
    let named = |folder: &Path, fits: &dyn Fn(&str) -> bool| -> Result<Vec<PathBuf>> {
        Ok(entries(folder)?.into_iter().filter(|path| fits(&name(path))).collect())
    };
    if kind == Kind::Meta {
        return Ok(named(replica, &|name| name == "replica.meta")?.pop());
    }
    let Some(generation) = named(replica, &|name| name.starts_with('g'))?.pop() else { return Ok(None) };
    Ok(match kind {
        Kind::Log => named(&generation.join("wal"), &|name| name.ends_with(".log"))?.into_iter().next(),
        Kind::Manifest => named(&generation, &|name| name.starts_with("manifest-"))?.pop(),
        Kind::Segment => {
            named(&generation.join("segments"), &|name| name.ends_with(".rows"))?.into_iter().next()
        }
        Kind::Meta => unreachable!("answered above"),
    })
}

/// What a folder holds, by name; nothing when there is none.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let found = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        found => found?,
    };
    let mut paths = found.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

fn name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn exactly_one_bit_of_the_right_file_changes() {
        let folder = tempfile::tempdir().unwrap();
        let replica = folder.path().join("shards/t/00000003/abc");
        fs::create_dir_all(replica.join("g1/wal")).unwrap();
        for (path, byte) in
            [("replica.meta", 1), ("g1/wal/0.log", 2), ("g1/wal/1.log", 3), ("g1/manifest-1", 4)]
        {
            fs::write(replica.join(path), [byte; 40]).unwrap();
        }
        let mut random = ChaCha8Rng::seed_from_u64(1);
        for (kind, path, byte) in [(Kind::Meta, "replica.meta", 1_u8), (Kind::Log, "g1/wal/0.log", 2)] {
            let found = files(folder.path(), kind).unwrap();
            let [file] = &found[..] else { panic!("{found:?}") };
            assert_eq!((file.shard, file.replica.as_str()), (3, "abc"));
            flip(&file.path, &mut random, kind).unwrap();
            let bits: u32 =
                fs::read(replica.join(path)).unwrap().iter().map(|now| (now ^ byte).count_ones()).sum();
            assert_eq!(bits, 1, "{kind:?}");
        }
        assert!(files(folder.path(), Kind::Segment).unwrap().is_empty());
    }
}
