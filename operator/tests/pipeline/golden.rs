//! Every manifest of the shipped examples, as committed: a change of the operator shows what it does to clusters.

use std::env;
use std::fs;
use std::path::PathBuf;

use crate::examples::{desired, shipped};

/// Set to anything, the tests write the files instead of comparing.
const UPDATE: &str = "UPDATE_GOLDEN";

#[test]
fn the_manifests_of_the_examples_are_the_committed_ones() {
    for (name, object) in shipped() {
        let documents: Vec<_> = desired(&object)
            .0
            .iter()
            .map(|manifest| serde_yaml::to_string(&manifest.body).expect("plain data"))
            .collect();
        let manifests = documents.join("---\n");
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{name}.yaml"));
        if env::var_os(UPDATE).is_some() {
            fs::write(&path, manifests).expect("the checkout is writable");
            continue;
        }
        let committed = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == manifests,
            "{} is not what is built, from line {} on; see what `{UPDATE}=1 cargo test -p vectorsphere-operator --test pipeline` changes",
            path.display(),
            1 + committed.lines().zip(manifests.lines()).take_while(|(left, right)| left == right).count()
        );
    }
}
