//! Who is Master. Pure.
//!
//! The recipe of etcd's own election (`client/v3/concurrency/election.go`): candidates queue by the create-revision of
//! their keys, the lowest live one leads, and each later leader has a larger create-revision, which is its epoch and
//! guards every decision that it writes.

use std::collections::BTreeMap;

use super::view::{Candidate, Master};
use crate::ids::{Epoch, Revision};

/// Where this node stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It leads, if a linearizable read still finds its key.
    Leads(Epoch),
    /// It waits behind another one.
    Follows(Master),
    /// Its key is gone: its lease ended.
    Gone,
}

/// The candidate that leads.
pub fn leader(candidates: &BTreeMap<Revision, Candidate>) -> Option<Master> {
    let (created, candidate) = candidates.first_key_value()?;
    Some(Master { node: candidate.node.clone(), epoch: epoch_of(*created) })
}

/// Where the candidate with election key `own` stands.
pub fn standing(candidates: &BTreeMap<Revision, Candidate>, own: &str) -> Standing {
    match candidates.first_key_value() {
        Some((created, first)) if first.key == own => Standing::Leads(epoch_of(*created)),
        Some((created, first)) if candidates.values().any(|candidate| candidate.key == own) => {
            Standing::Follows(Master { node: first.node.clone(), epoch: epoch_of(*created) })
        }
        _ => Standing::Gone,
    }
}

fn epoch_of(created: Revision) -> Epoch {
    Epoch(u64::try_from(created.0).expect("revisions are positive"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::NodeId;

    fn candidates(of: &[(i64, &str)]) -> BTreeMap<Revision, Candidate> {
        let candidate =
            |name: &str| Candidate { key: format!("key-{name}"), node: NodeId::parse(name).expect("valid") };
        of.iter().map(|(created, name)| (Revision(*created), candidate(name))).collect()
    }

    #[test]
    fn the_lowest_create_revision_leads() {
        let queue = candidates(&[(12, "b"), (7, "a"), (30, "c")]);
        assert_eq!(standing(&queue, "key-a"), Standing::Leads(Epoch(7)));
        let expected = Master { node: NodeId::parse("a").expect("valid"), epoch: Epoch(7) };
        assert_eq!(standing(&queue, "key-c"), Standing::Follows(expected.clone()));
        assert_eq!(leader(&queue), Some(expected));
    }

    #[test]
    fn a_candidate_without_a_key_stands_nowhere() {
        assert_eq!(standing(&candidates(&[(7, "a")]), "key-x"), Standing::Gone);
        assert_eq!(standing(&BTreeMap::new(), "key-x"), Standing::Gone);
    }
}
