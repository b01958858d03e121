//! What goes wrong. Nothing of it may lose what was acknowledged: disks lose only what was not synced.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::mpsc;
use tracing::info;
use turmoil::Sim;

use crate::hosts::{ETCD, Machine, Order, SLAVES};
use crate::links::{Links, Way};
use crate::model_etcd::{ModelEtcd, Trouble};
use crate::settings::Settings;

/// Something that can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum FaultKind {
    /// A node is killed; what it wrote is in the caches of its machine.
    Kill,
    /// A machine loses power: nobody is told, and what was not synced may be gone.
    PowerLoss,
    /// All machines with shards do.
    PowerLossOfShards,
    /// A node is stopped in order and started again.
    Restart,
    /// A machine is cut off from all others.
    Isolate,
    /// Nothing gets from one machine to another; the other way is open.
    OneWayCut,
    /// Two machines do not reach each other.
    Cut,
    /// Packets between two machines wait.
    Hold,
    /// A node does not reach etcd.
    EtcdCut,
    /// etcd is killed.
    EtcdKill,
    /// It changes its leader.
    EtcdLeader,
    /// Its requests and answers are late, lost or repeated.
    EtcdTrouble,
    /// A lease ends too early.
    LeaseEnded,
    /// It forgets its past.
    Compaction,
}

/// What is undone later.
enum Effect {
    Down(Vec<&'static str>),
    Ways(Vec<Way>),
    Trouble,
}

/// Makes things go wrong.
pub(crate) struct Faults {
    settings: Arc<Settings>,
    machines: Vec<Machine>,
    orders: mpsc::UnboundedSender<Order>,
    links: Links,
    random: SmallRng,
    /// What lasts, and until when.
    active: Vec<(Duration, Effect)>,
    next: Duration,
    compacted: Arc<AtomicI64>,
    pub(crate) count: BTreeMap<FaultKind, u32>,
}

impl FaultKind {
    /// All of them.
    pub(crate) const ALL: &[FaultKind] = &[
        FaultKind::Kill,
        FaultKind::PowerLoss,
        FaultKind::PowerLossOfShards,
        FaultKind::Restart,
        FaultKind::Isolate,
        FaultKind::OneWayCut,
        FaultKind::Cut,
        FaultKind::Hold,
        FaultKind::EtcdCut,
        FaultKind::EtcdKill,
        FaultKind::EtcdLeader,
        FaultKind::EtcdTrouble,
        FaultKind::LeaseEnded,
        FaultKind::Compaction,
    ];
}

impl Faults {
    /// Nothing has gone wrong before `now`.
    pub(crate) fn new(
        settings: Arc<Settings>,
        machines: Vec<Machine>,
        orders: mpsc::UnboundedSender<Order>,
        links: Links,
        now: Duration,
    ) -> Faults {
        let random = SmallRng::seed_from_u64(settings.seed ^ 0xfa);
        if settings.disks_lie {
            machines.iter().for_each(|machine| machine.disk.forget_syncs(u64::MAX));
        }
        let next = now + settings.pause;
        Faults {
            settings,
            machines,
            orders,
            links,
            random,
            active: Vec::new(),
            next,
            compacted: Arc::default(),
            count: BTreeMap::new(),
        }
    }

    /// Ends what has lasted long enough, and begins what is due.
    pub(crate) fn step(&mut self, sim: &mut Sim<'_>, now: Duration) {
        self.end(sim, |until| until <= now);
        if self.next <= now {
            self.next = now + self.settings.pause.mul_f64(self.random.random_range(0.1..1.9));
            if let Some(kind) = self.settings.faults.choose(&mut self.random).copied() {
                self.begin(sim, kind, now);
            }
        }
    }

    /// From now on everything is well.
    pub(crate) fn end_all(&mut self, sim: &mut Sim<'_>) {
        self.end(sim, |_| true);
    }

    fn begin(&mut self, sim: &mut Sim<'_>, kind: FaultKind, now: Duration) {
        let node = self.machines[self.random.random_range(0..self.machines.len())].name;
        let other = *self.others(node).choose(&mut self.random).expect("there are others");
        info!(?kind, node, other, at = ?now, "fault");
        let effects = match kind {
            FaultKind::Kill => vec![self.kill(sim, node)],
            FaultKind::PowerLoss => self.power_off(sim, &[node]),
            FaultKind::PowerLossOfShards => self.power_off(sim, &SLAVES),
            FaultKind::Restart => {
                self.machine(node).restart.notify_one();
                Vec::new()
            }
            FaultKind::Isolate => vec![Effect::Ways(self.around(node))],
            FaultKind::OneWayCut => vec![Effect::Ways(vec![Way::Cut(node, other)])],
            FaultKind::Cut => vec![Effect::Ways(vec![Way::Cut(node, other), Way::Cut(other, node)])],
            FaultKind::Hold => vec![Effect::Ways(vec![Way::Held(node, other)])],
            FaultKind::EtcdCut => vec![Effect::Ways(vec![Way::Cut(node, ETCD), Way::Cut(ETCD, node)])],
            FaultKind::EtcdKill => vec![self.kill(sim, ETCD)],
            FaultKind::EtcdLeader => {
                let gap = Duration::from_millis(self.random.random_range(0..3_000));
                self.order(move |etcd| etcd.change_leader(gap));
                Vec::new()
            }
            FaultKind::EtcdTrouble => {
                let mut share = || self.random.random_range(0..80);
                let trouble = Trouble {
                    lost_requests: share(),
                    lost_answers: share(),
                    late_requests: share(),
                    refused_requests: share(),
                    doubled_answers: share(),
                    delay: Duration::from_millis(self.random.random_range(0..400)),
                    leases_end_late_by: Duration::from_millis(self.random.random_range(0..4_000)),
                };
                self.order(move |etcd| etcd.set_trouble(trouble));
                vec![Effect::Trouble]
            }
            FaultKind::LeaseEnded => {
                self.order(|etcd| {
                    let _ = etcd.end_some_lease();
                });
                Vec::new()
            }
            FaultKind::Compaction => {
                let compacted = self.compacted.clone();
                self.order(move |etcd| {
                    let revision = etcd.revision();
                    if compacted.swap(revision, Ordering::Relaxed) < revision {
                        etcd.compact(revision);
                    }
                });
                Vec::new()
            }
        };
        *self.count.entry(kind).or_default() += 1;
        let lasts = match self.random.random_range(0..4) {
            0 => self.random.random_range(10..500),
            1 | 2 => self.random.random_range(500..4_000),
            _ => self.random.random_range(4_000..14_000),
        };
        let until = now + Duration::from_millis(lasts);
        self.active.extend(effects.into_iter().map(|effect| (until, effect)));
        self.set_links(sim);
    }

    fn end(&mut self, sim: &mut Sim<'_>, is_over: impl Fn(Duration) -> bool) {
        let (over, active) =
            std::mem::take(&mut self.active).into_iter().partition(|(until, _)| is_over(*until));
        self.active = active;
        let over: Vec<(Duration, Effect)> = over;
        if over.is_empty() {
            return;
        }
        self.set_links(sim);
        for (_, effect) in over {
            match effect {
                Effect::Down(hosts) => hosts.into_iter().for_each(|host| sim.bounce(host)),
                Effect::Ways(_) => {}
                Effect::Trouble => self.order(|etcd| etcd.set_trouble(Trouble::default())),
            }
        }
    }

    fn kill(&self, sim: &mut Sim<'_>, host: &'static str) -> Effect {
        if self.is_down(host) {
            return Effect::Down(Vec::new());
        }
        sim.crash(host);
        Effect::Down(vec![host])
    }

    fn power_off(&mut self, sim: &mut Sim<'_>, nodes: &[&'static str]) -> Vec<Effect> {
        let nodes: Vec<&'static str> = nodes.iter().copied().filter(|node| !self.is_down(node)).collect();
        // The others hear nothing, not even the end of their connections.
        let cut = Effect::Ways(nodes.iter().flat_map(|node| self.around(node)).collect());
        let effects = self.active.iter().map(|(_, effect)| effect).chain([&cut]);
        self.links.set(sim, effects.flat_map(ways));
        for node in &nodes {
            sim.crash(*node);
            let disk = &self.machine(node).disk;
            disk.crash();
            let boot = Path::new("boot_id");
            if disk.files().iter().any(|file| file == boot) {
                disk.overwrite(boot, b"an earlier start of the machine".to_vec());
            }
        }
        vec![cut, Effect::Down(nodes)]
    }

    fn set_links(&mut self, sim: &mut Sim<'_>) {
        self.links.set(sim, self.active.iter().flat_map(|(_, effect)| ways(effect)));
    }

    /// Cuts between a host and all others.
    fn around(&self, node: &'static str) -> Vec<Way> {
        let others = self.others(node);
        others.into_iter().flat_map(|other| [Way::Cut(node, other), Way::Cut(other, node)]).collect()
    }

    /// The other hosts; clients too.
    fn others(&self, node: &str) -> Vec<&'static str> {
        self.links.hosts().iter().copied().filter(|host| *host != node).collect()
    }

    fn is_down(&self, host: &str) -> bool {
        self.active.iter().any(|(_, effect)| matches!(effect, Effect::Down(down) if down.contains(&host)))
    }

    fn machine(&self, name: &str) -> &Machine {
        self.machines.iter().find(|machine| machine.name == name).expect("a node")
    }

    fn order(&self, order: impl FnOnce(&ModelEtcd) + Send + 'static) {
        assert!(self.orders.send(Box::new(order)).is_ok(), "etcd hears until the end");
    }
}

fn ways(effect: &Effect) -> impl Iterator<Item = Way> + '_ {
    let ways: &[Way] = if let Effect::Ways(ways) = effect { ways } else { &[] };
    ways.iter().copied()
}
