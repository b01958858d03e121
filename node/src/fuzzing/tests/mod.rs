//! Each function of [`fuzzing`](super) under the files of `fuzz/seeds`, files that our own writers make from a seed, and
//! thousands of changes of both.
//!
//! In `fuzz/seeds/<target>` a file named `valid-…` was written by some version and must be accepted for ever; any other
//! one is a past failure, which must not come back.

mod change;
mod samples;

use std::fs;
use std::path::{Path, PathBuf};

use rand::SeedableRng as _;
use rand::rngs::SmallRng;

use self::change::change;
use super::*;

/// Changed inputs of each target.
const CHANGES: u64 = 5_000;
/// Samples that are made from a seed; as many are committed.
const SAMPLES: u64 = 6;

/// One function, and what it is fed with.
struct Target {
    name: &'static str,
    check: fn(&[u8]) -> bool,
    sample: fn(&mut SmallRng) -> Vec<u8>,
}

const TARGETS: [Target; 6] = [
    Target { name: "log_segment", check: log_segment, sample: samples::log_segment },
    Target { name: "manifest", check: manifest, sample: samples::manifest },
    Target { name: "replica_meta", check: replica_meta, sample: samples::replica_meta },
    Target { name: "session_token", check: session_token, sample: samples::session_token },
    Target { name: "shard_record", check: shard_record, sample: samples::shard_record },
    Target { name: "filter", check: filter, sample: samples::filter },
];

impl Target {
    fn folder(&self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds").join(self.name)
    }

    /// The committed files by name.
    fn committed(&self) -> Vec<(String, Vec<u8>)> {
        let entries = fs::read_dir(self.folder()).expect("committed");
        let mut files: Vec<_> = entries
            .map(|entry| entry.expect("readable"))
            .map(|entry| {
                (entry.file_name().into_string().expect("UTF-8"), fs::read(entry.path()).expect("readable"))
            })
            .collect();
        files.sort();
        files
    }

    fn samples(&self, seed: u64) -> impl Iterator<Item = Vec<u8>> {
        let mut random = SmallRng::seed_from_u64(seed);
        (0..SAMPLES).map(move |_| (self.sample)(&mut random))
    }

    fn bear_changes(&self, seed: u64) {
        let mut inputs: Vec<Vec<u8>> = self.samples(seed).collect();
        for sample in &inputs {
            assert!((self.check)(sample), "{} refuses what its writer wrote", self.name);
        }
        inputs.extend(self.committed().into_iter().map(|(_, bytes)| bytes));
        let mut random = SmallRng::seed_from_u64(seed);
        for number in 0..CHANGES {
            let bytes = &inputs[number as usize % inputs.len()];
            let other = &inputs[(number as usize / inputs.len()) % inputs.len()];
            let changed = change(bytes, other, &mut random);
            let outcome = std::panic::catch_unwind(|| (self.check)(&changed));
            if let Err(panic) = outcome {
                let path = std::env::temp_dir().join(format!("{}-{seed}-{number}", self.name));
                fs::write(&path, &changed).expect("written");
                // It belongs to the seeds from now on.
                eprintln!("the input is kept as {}", path.display());
                std::panic::resume_unwind(panic);
            }
        }
    }
}

#[test]
fn seeds_are_read_as_they_ever_were() {
    for target in &TARGETS {
        let files = target.committed();
        assert!(files.len() >= SAMPLES as usize, "{}", target.name);
        for (name, bytes) in files {
            let accepted = (target.check)(&bytes);
            assert!(accepted || !name.starts_with("valid-"), "{} {name} is refused", target.name);
        }
    }
}

#[test]
fn changed_log_segments_keep_their_promises() {
    TARGETS[0].bear_changes(1);
}

#[test]
fn changed_manifests_keep_their_promises() {
    TARGETS[1].bear_changes(1);
}

#[test]
fn changed_replica_metas_keep_their_promises() {
    TARGETS[2].bear_changes(1);
}

#[test]
fn changed_session_tokens_keep_their_promises() {
    TARGETS[3].bear_changes(1);
}

#[test]
fn changed_shard_records_keep_their_promises() {
    TARGETS[4].bear_changes(1);
}

#[test]
fn changed_filters_keep_their_promises() {
    TARGETS[5].bear_changes(1);
}

/// A length that a file claims is no reason to allocate it.
#[test]
fn a_log_that_is_opened_takes_no_more_memory_than_its_files_explain() {
    let Target { sample, .. } = TARGETS[0];
    let mut random = SmallRng::seed_from_u64(3);
    let samples: Vec<Vec<u8>> = (0..SAMPLES).map(|_| sample(&mut random)).collect();
    for number in 0..1_000 {
        let bytes = &samples[number % samples.len()];
        let mut changed = change(bytes, bytes, &mut random);
        log_segment::repair(&mut changed);
        let known = log_segment::Known::of(&changed);
        let taken = allocation_counter::measure(|| drop(log_segment::open(&changed, known)));
        // Of a record of 54 bytes there are some copies and an entry of a hundred bytes in each list.
        let explained = (64 << 10) + 32 * changed.len() as u64;
        assert!(taken.bytes_max <= explained, "{} bytes for {}", taken.bytes_max, changed.len());
    }
}

/// A new target gets its seeds here; those that are there stay as they are, for they are what earlier versions wrote.
#[test]
fn every_target_has_seeds() {
    for target in &TARGETS {
        let folder = target.folder();
        if folder.join("valid-0").exists() {
            continue;
        }
        fs::create_dir_all(&folder).expect("created");
        for (number, sample) in target.samples(2026).enumerate() {
            fs::write(folder.join(format!("valid-{number}")), sample).expect("written");
        }
        panic!("{} were written: look at them and commit them", folder.display());
    }
}
