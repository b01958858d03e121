//! Random clusters: nodes come and go, are drained and get damaged, while steps are carried out late, in any order, or not
//! at all. No step does harm; and when the trouble ends, the cluster comes to rest as it should be.

use std::collections::BTreeMap;

use proptest::prelude::*;
use rand::RngExt;
use rand::seq::SliceRandom;

use super::trouble::MINUTE;
use super::world::{Node, Shape, World, describe};
use crate::coordinator::plan::{DrainProgress, drain_progress};

/// Rounds in which a cluster of this size must have come to rest.
const ROUNDS_MAX: usize = 200;
/// Rounds of a minute that are longer than any wait.
const ROUNDS_OF_REST: usize = 15;

impl World {
    /// Looks, carries out, lets the nodes act, until nothing changes any more.
    fn settle(&mut self) {
        let mut still = 0;
        for _ in 0..ROUNDS_MAX {
            let (view, before) = (self.view(), self.revision);
            let mut actions = self.plan(&view);
            actions.shuffle(&mut self.random);
            actions.iter().for_each(|action| self.carry_out(action, &view));
            self.nodes_act(0.7);
            self.now += MINUTE;
            still = if actions.is_empty() && before == self.revision { still + 1 } else { 0 };
            if still > ROUNDS_OF_REST {
                return;
            }
        }
        panic!("there is always something to do: {:?}", self.plan(&self.view()));
    }

    /// All copies are there, in sync, evenly spread, and none is where it should not be.
    fn check_rest(&self) {
        let view = self.view();
        let is_host = |node: &Node| node.session.is_some() && node.drain.is_none();
        let hosts = self.nodes.iter().filter(|(_, node)| is_host(node));
        let mut held: BTreeMap<&str, usize> = hosts.map(|(id, _)| (id.as_str(), 0)).collect();
        for (record, _) in self.shards.values() {
            let wanted = self.shape.replicas as usize;
            let found = (self.is_led(record), self.whole(record), record.replicas.len());
            assert_eq!(found, (true, wanted, wanted), "{}", describe(record));
            let mut zones: BTreeMap<&str, usize> = BTreeMap::new();
            for replica in &record.replicas {
                *held.get_mut(replica.node_id.as_str()).expect("drained nodes are empty") += 1;
                *zones.entry(&self.node_of(replica).zone).or_default() += 1;
            }
            let fullest = zones.values().max().expect("a zone");
            for (id, node) in self.nodes.iter().filter(|(_, node)| is_host(node)) {
                let is_free = record.replicas.iter().all(|replica| replica.node_id != id.as_str());
                let there = zones.get(node.zone.as_str()).copied().unwrap_or(0);
                assert!(!is_free || there + 1 >= *fullest, "{id}: {}", describe(record));
            }
        }
        for id in self.nodes.iter().filter(|(_, node)| node.drain.is_some()).map(|(id, _)| id) {
            assert_eq!(drain_progress(&view, id), DrainProgress::default());
        }
        if self.shape.zones == 0 {
            let (min, max) = (held.values().min().expect("nodes"), held.values().max().expect("nodes"));
            assert!(max - min <= 1, "{held:?}");
        }
    }
}

fn shape() -> impl Strategy<Value = Shape> {
    let sizes = (1u32..4, 1usize..5, 0usize..4, 1u32..9);
    sizes.prop_flat_map(|(replicas, more, zones, shards)| {
        let nodes = replicas as usize + more;
        (1..=replicas).prop_map(move |min_isr| Shape { nodes, zones, shards, replicas, min_isr })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_step_does_harm_and_the_cluster_comes_to_rest(seed: u64, shape in shape(), trouble in 0usize..150) {
        let mut world = World::new(seed, shape);
        for _ in 0..trouble {
            let view = world.view();
            let mut actions = world.plan(&view);
            actions.shuffle(&mut world.random);
            actions.truncate(world.random.random_range(0..5));
            world.trouble();
            world.nodes_act(0.3);
            actions.iter().for_each(|action| world.carry_out(action, &view));
        }
        world.end_trouble();
        world.settle();
        world.check_rest();
    }
}
