//! Where the shards of a new table go. Pure.

use std::collections::BTreeSet;

use crate::ids::NodeId;

/// A node that can hold shards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Its name.
    pub node: NodeId,
    /// Its zone; may be empty.
    pub zone: String,
    /// Replicas that it holds already, of all tables.
    pub replicas: u32,
}

/// The nodes of each shard of a new table: for every shard `replicas` different nodes, in different zones while there are
/// any, always the one that holds least, of equals the first by name. `None` when there are fewer nodes than replicas.
///
/// Nothing that exists moves, so placement is stable; the number of replicas on any two nodes of equal start differs by
/// at most one.
pub fn place(shards: u32, replicas: u32, hosts: &[Host]) -> Option<Vec<Vec<NodeId>>> {
    if hosts.len() < replicas as usize || replicas == 0 {
        return None;
    }
    let mut hosts = hosts.to_vec();
    hosts.sort_by(|a, b| a.node.cmp(&b.node));
    Some((0..shards).map(|_| place_one(replicas, &mut hosts)).collect())
}

fn place_one(replicas: u32, hosts: &mut [Host]) -> Vec<NodeId> {
    let (mut nodes, mut zones) = (Vec::new(), BTreeSet::new());
    for _ in 0..replicas {
        let chosen = hosts
            .iter_mut()
            .filter(|host| !nodes.contains(&host.node))
            .min_by_key(|host| (zones.contains(&host.zone), host.replicas))
            .expect("there are at least as many nodes as replicas");
        chosen.replicas += 1;
        zones.insert(chosen.zone.clone());
        nodes.push(chosen.node.clone());
    }
    nodes
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn host(name: &str, zone: &str, replicas: u32) -> Host {
        Host { node: NodeId::parse(name).expect("valid"), zone: zone.to_owned(), replicas }
    }

    fn names(placed: &[Vec<NodeId>]) -> Vec<Vec<&str>> {
        placed.iter().map(|nodes| nodes.iter().map(NodeId::as_str).collect()).collect()
    }

    #[test]
    fn a_new_node_gets_the_shards_of_new_tables() {
        let hosts = [host("a", "", 4), host("b", "", 4), host("c", "", 0)];
        assert_eq!(names(&place(4, 1, &hosts).expect("enough nodes")), [["c"], ["c"], ["c"], ["c"]]);
    }

    #[test]
    fn copies_go_to_different_zones_first() {
        let hosts = [host("a", "1", 0), host("b", "1", 0), host("c", "2", 9)];
        assert_eq!(names(&place(1, 2, &hosts).expect("enough nodes")), [["a", "c"]]);
    }

    #[test]
    fn too_few_nodes_are_no_placement() {
        assert_eq!(place(1, 2, &[host("a", "", 0)]), None);
        assert_eq!(place(1, 1, &[]), None);
    }

    proptest! {
        #[test]
        fn replicas_spread_evenly_over_different_nodes(shards in 1u32..200, replicas in 1u32..4, nodes in 3usize..12) {
            let hosts: Vec<_> = (0..nodes).map(|i| host(&format!("n{i}"), "", 0)).collect();
            let placed = place(shards, replicas, &hosts).expect("enough nodes");
            let mut counts: BTreeMap<&NodeId, u32> = hosts.iter().map(|host| (&host.node, 0)).collect();
            for nodes in &placed {
                prop_assert_eq!(nodes.iter().collect::<BTreeSet<_>>().len(), replicas as usize);
                nodes.iter().for_each(|node| *counts.get_mut(node).expect("a host") += 1);
            }
            let (min, max) = (counts.values().min().expect("nodes"), counts.values().max().expect("nodes"));
            prop_assert!(max - min <= 1, "{:?}", counts);
            let mut reversed = hosts.clone();
            reversed.reverse();
            prop_assert_eq!(place(shards, replicas, &reversed), Some(placed.clone()));
        }
    }
}
