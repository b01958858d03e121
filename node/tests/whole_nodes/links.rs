//! Which hosts reach each other: what several faults make of it together.

use std::collections::{BTreeMap, BTreeSet};

use turmoil::Sim;

use crate::network::Cuts;

/// What a fault does to the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Packets from one host to another are lost.
    Cut(&'static str, &'static str),
    /// Packets between two hosts wait, in both directions.
    Held(&'static str, &'static str),
}

/// The state of all links.
pub(crate) struct Links {
    hosts: Vec<&'static str>,
    links: BTreeMap<(&'static str, &'static str), Link>,
    cuts: Cuts,
}

/// Between two hosts, of which the first is the smaller one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Link {
    is_held: bool,
    is_cut_to_second: bool,
    is_cut_to_first: bool,
}

impl Links {
    /// All is well between these hosts.
    pub(crate) fn new(mut hosts: Vec<&'static str>, cuts: Cuts) -> Links {
        hosts.sort_unstable();
        let pairs = hosts.iter().enumerate().flat_map(|(index, first)| {
            hosts[index + 1..].iter().map(move |second| ((*first, *second), Link::default()))
        });
        let links = pairs.collect();
        Links { hosts, links, cuts }
    }

    pub(crate) fn hosts(&self) -> &[&'static str] {
        &self.hosts
    }

    /// Makes the network what these faults together make of it; a cut is stronger than a hold.
    pub(crate) fn set(&mut self, sim: &Sim<'_>, ways: impl Iterator<Item = Way>) {
        let mut wanted: BTreeMap<_, Link> = self.links.keys().map(|pair| (*pair, Link::default())).collect();
        let mut cuts = BTreeSet::new();
        for way in ways {
            match way {
                Way::Cut(from, to) if from < to => {
                    wanted.entry((from, to)).or_default().is_cut_to_second = true;
                }
                Way::Cut(from, to) => wanted.entry((to, from)).or_default().is_cut_to_first = true,
                Way::Held(one, other) => {
                    wanted.entry((one.min(other), one.max(other))).or_default().is_held = true;
                }
            }
            if let Way::Cut(from, to) = way {
                cuts.insert((from, to));
            }
        }
        self.cuts.set(cuts);
        for ((first, second), link) in &mut self.links {
            let mut wanted = wanted[&(*first, *second)];
            wanted.is_held &= !wanted.is_cut_to_first && !wanted.is_cut_to_second;
            link.change(sim, (first, second), wanted);
        }
    }
}

impl Link {
    fn change(&mut self, sim: &Sim<'_>, (first, second): (&str, &str), wanted: Link) {
        if *self == wanted {
            return;
        }
        if self.is_held {
            sim.release(first, second);
        } else {
            sim.repair(first, second);
        }
        if wanted.is_held {
            sim.hold(first, second);
        }
        if wanted.is_cut_to_second {
            sim.partition_oneway(first, second);
        }
        if wanted.is_cut_to_first {
            sim.partition_oneway(second, first);
        }
        *self = wanted;
    }
}
