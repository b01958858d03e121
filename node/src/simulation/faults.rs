//! What goes wrong. Each seed has some of these; nothing is lost as long as disks do what the claim demands of them.
//!
//! The claim: an acknowledged write survives the loss of `min_isr - 1` disks at the same time. A disk is lost when it is
//! emptied, forgets what it had said to be durable, or holds something else than was written.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use super::fault_kind::FaultKind;
use super::network::{Place, Weather};
use super::node::{CopyId, Node, Turn};
use super::world::{Event, World};
use crate::cluster::view::{Replica, Shard};
use crate::runtime::disk::{Disk, DiskOperation, MemoryDisk};
use crate::storage::data_dir;

/// What is undone later.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    Network,
    Weather,
    Disk(usize),
    DeadDisk(usize),
    Power(usize),
    Master(usize),
    Drain(usize),
    Ghost(usize),
}

impl World {
    /// Something goes wrong, and later something else.
    pub(super) fn trouble(&mut self) {
        if self.is_healing || self.settings.faults.is_empty() {
            return;
        }
        let kind = *self.random.pick(&self.settings.faults);
        if self.inflict(kind) {
            self.took_effect(kind.name());
            self.tell(|| format!("    {}", kind.name()));
        }
        let pause = self.random.about(self.settings.fault_pause);
        self.schedule.at(self.time + pause, Event::Trouble);
    }

    /// False: it cannot happen now.
    fn inflict(&mut self, kind: FaultKind) -> bool {
        let node = self.random.index(self.settings.nodes);
        let short = self.random.between(ms(200), ms(4_000));
        let long = self.random.between(ms(200), ms(15_000));
        match kind {
            FaultKind::Kill => self.kill(node),
            FaultKind::PowerLoss => self.lose_power(node),
            FaultKind::PowerLossWhileWriting => {
                let operations = self.random.below(0, 12);
                self.nodes[node].disk.power_off_after(operations);
                self.schedule.at(self.time + ms(500), Event::Relief(Fault::Power(node)));
                true
            }
            FaultKind::PowerLossOfAll => {
                (0..self.settings.nodes).for_each(|node| {
                    self.lose_power(node);
                });
                true
            }
            FaultKind::Pause => self.stand_still(node, long, false),
            FaultKind::Suspend => self.stand_still(node, long, true),
            FaultKind::Isolate => self.cut(&[Place::Node(node)], short),
            FaultKind::OneWayCut => {
                let other = self.random.index(self.settings.nodes);
                self.network.cut(Place::Node(node), Place::Node(other));
                self.schedule.at(self.time + long, Event::Relief(Fault::Network));
                node != other
            }
            FaultKind::Halves => {
                let half: Vec<Place> = (0..=node).map(Place::Node).collect();
                self.cut(&half, short)
            }
            FaultKind::StoreCut => {
                for (from, to) in [(Place::Node(node), Place::Store), (Place::Store, Place::Node(node))] {
                    self.network.cut(from, to);
                }
                self.schedule.at(self.time + long, Event::Relief(Fault::Network));
                true
            }
            FaultKind::StoreAway => {
                self.store.away_until = self.time + long;
                true
            }
            FaultKind::StoreLeader => {
                self.store.away_until = self.time + short / 2;
                self.store.renew_leases(self.time + short / 2);
                true
            }
            FaultKind::LeaseEnded => {
                let name = self.nodes[node].id.clone();
                let ended = self.store.end_lease_of(&name);
                self.tell_news();
                ended
            }
            FaultKind::LeaseLate => {
                let name = self.nodes[node].id.clone();
                self.store.delay_lease_of(&name, long)
            }
            FaultKind::MasterPause => self.pause_master(long),
            FaultKind::Drain => self.drain(node),
            FaultKind::HandOver => self.wish_hand_over(),
            FaultKind::Storm => {
                let latency = self.random.between(ms(1), ms(150));
                self.network.weather =
                    Weather { latency, lost_one_in: 5, doubled_one_in: 8, late_one_in: 8, late: ms(3_000) };
                self.schedule.at(self.time + short, Event::Relief(Fault::Weather));
                true
            }
            FaultKind::VolumeMoved => self.move_volume(node),
            _ => self.hurt_disk(kind, node, short),
        }
    }

    fn hurt_disk(&mut self, kind: FaultKind, node: usize, time: Duration) -> bool {
        match kind {
            FaultKind::DiskError => {
                let operation = *self.random.pick(&[
                    DiskOperation::Read,
                    DiskOperation::Append,
                    DiskOperation::Sync,
                    DiskOperation::Directory,
                ]);
                let count = self.random.below(0, 20);
                self.nodes[node].disk.fail_after(count, operation, ErrorKind::Other);
                true
            }
            FaultKind::DeadDisk => {
                self.nodes[node].disk.power_off_after(self.random.below(0, 20));
                self.schedule.at(self.time + time * 3, Event::Relief(Fault::DeadDisk(node)));
                true
            }
            FaultKind::DiskFull => {
                let disk = &self.nodes[node].disk;
                let space = disk.space().expect("it is in memory");
                let used = space.capacity_bytes - space.free_bytes;
                disk.set_capacity(used + self.random.below(0, 3_000));
                self.schedule.at(self.time + time, Event::Relief(Fault::Disk(node)));
                true
            }
            FaultKind::SlowDisk => {
                self.nodes[node].sync_time = self.random.between(ms(100), ms(5_000));
                self.schedule.at(self.time + time, Event::Relief(Fault::Disk(node)));
                true
            }
            FaultKind::LyingDisk => {
                let lies = self.may_lie(node);
                if lies {
                    self.nodes[node].disk.forget_syncs(self.random.below(1, 200));
                    self.begin_lie(node, time);
                }
                lies
            }
            FaultKind::BitFlip => self.may_lose(node) && self.flip_bit(node),
            FaultKind::Misdirected => {
                let hits = self.may_lie(node);
                if hits {
                    self.nodes[node].disk.misdirect_next_append();
                    self.begin_lie(node, time);
                }
                hits
            }
            FaultKind::Wipe => {
                let hits = self.may_lose(node);
                if hits {
                    self.kill(node);
                    self.mark_bad(node);
                    self.note_effects(&self.nodes[node].disk.effects());
                    self.nodes[node].disk = MemoryDisk::new(self.random.number());
                    (self.nodes[node].image, self.nodes[node].volume_boot) = (None, None);
                }
                hits
            }
            FaultKind::RollBack => self.roll_back(node),
            _ => unreachable!("no fault of a disk"),
        }
    }

    /// Ends a machine's process, and starts another one a little later.
    pub(super) fn kill(&mut self, node: usize) -> bool {
        let was_running = self.nodes[node].process.take().is_some();
        self.tell(|| format!("n{node} ends"));
        self.nodes[node].backlog.clear();
        (self.nodes[node].stands_still, self.nodes[node].asleep_since) = (false, None);
        let pause = self.random.between(ms(50), ms(5_000));
        self.schedule.at(self.time + pause, Event::Start(node));
        was_running
    }

    fn lose_power(&mut self, node: usize) -> bool {
        let was_running = self.kill(node);
        self.end_lie(node);
        let (time, machine) = (self.time, &mut self.nodes[node]);
        machine.disk.crash();
        machine.boot(time, &mut self.random);
        was_running
    }

    fn stand_still(&mut self, node: usize, time: Duration, sleeps: bool) -> bool {
        let machine = &mut self.nodes[node];
        if machine.stands_still || machine.process.is_none() {
            return false;
        }
        (machine.stands_still, machine.asleep_since) = (true, sleeps.then_some(self.time));
        self.schedule.at(self.time + time, Event::Resume(node));
        true
    }

    /// A machine that stands still goes on: everything that has waited happens now.
    pub(super) fn resume(&mut self, node: usize) {
        let machine = &mut self.nodes[node];
        machine.stands_still = false;
        if let Some(since) = machine.asleep_since.take() {
            machine.clock.slept(self.time.since(since));
        }
        for event in std::mem::take(&mut machine.backlog) {
            self.schedule.at(self.time, event);
        }
    }

    fn pause_master(&mut self, time: Duration) -> bool {
        let master = self.random.index(self.masters.len());
        let was_running = !std::mem::replace(&mut self.masters[master].stands_still, true);
        if was_running {
            self.schedule.at(self.time + time, Event::Relief(Fault::Master(master)));
        }
        was_running
    }

    fn cut(&mut self, places: &[Place], time: Duration) -> bool {
        let others = (0..self.nodes.len()).map(Place::Node).chain([Place::Store]);
        let others = others.chain((0..self.masters.len()).map(Place::Master));
        let others = others.chain((0..self.clients.len()).map(Place::Client));
        let keeps_clients = self.random.one_in(2);
        for other in others.filter(|other| !places.contains(other)) {
            // A machine that is cut off from the others and not from its clients is the worst of all.
            if keeps_clients && matches!(other, Place::Client(_)) {
                continue;
            }
            for place in places {
                self.network.cut(*place, other);
                self.network.cut(other, *place);
            }
        }
        self.schedule.at(self.time + time, Event::Relief(Fault::Network));
        true
    }

    fn drain(&mut self, node: usize) -> bool {
        let name = self.nodes[node].id.clone();
        if self.store.content().is_drained(&name) {
            return false;
        }
        self.store.drain(name);
        self.tell_news();
        let time = self.random.between(ms(3_000), ms(20_000));
        self.schedule.at(self.time + time, Event::Relief(Fault::Drain(node)));
        true
    }

    fn wish_hand_over(&mut self) -> bool {
        let shard = *self.random.pick(&self.settings.shards());
        let record = self.store.content().shard(shard).cloned();
        let Some(node) = record.as_ref().and_then(|record| record.primary_node()) else { return false };
        let node = self.index_of(node);
        if self.nodes[node].stands_still || self.nodes[node].process.is_none() {
            return false;
        }
        let question = self.number();
        self.hand_over(node, Place::Master(0), question, shard, None);
        true
    }

    /// A volume is taken away from a machine, whose process goes on without it, and given to a new machine of its name.
    fn move_volume(&mut self, node: usize) -> bool {
        if self.nodes[node].process.is_none() || self.nodes[node].stands_still {
            return false;
        }
        self.end_lie(node);
        let disk = MemoryDisk::new(self.random.number());
        disk.restore(&self.nodes[node].disk.image());
        disk.crash();
        let mut fresh = Node::new(self.nodes[node].id.clone(), &mut self.random);
        fresh.boot(self.time, &mut self.random);
        (fresh.disk, fresh.volume_boot) = (disk, self.nodes[node].volume_boot);
        let mut ghost = std::mem::replace(&mut self.nodes[node], fresh);
        ghost.is_ghost = true;
        ghost.disk.power_off_after(0);
        self.nodes.push(ghost);
        let ghost = self.nodes.len() - 1;
        self.revive_ghost(ghost);
        for client in 0..self.clients.len() {
            if self.random.one_in(2) {
                self.clients[client].follow(node, ghost);
            }
        }
        let pause = self.random.between(ms(50), ms(2_000));
        self.schedule.at(self.time + pause, Event::Start(node));
        self.schedule.at(self.time + ms(20_000), Event::Relief(Fault::Ghost(ghost)));
        true
    }

    /// What a process was about to do, it does where it is now; but its disk does nothing any more.
    fn revive_ghost(&mut self, ghost: usize) {
        for (from, to) in [(Place::Node(ghost), Place::Store), (Place::Store, Place::Node(ghost))] {
            self.network.cut_for_good(from, to);
        }
        let process = self.nodes[ghost].process.as_mut().expect("it runs");
        let number = process.number;
        let copies: Vec<CopyId> = process.slots.keys().copied().collect();
        for slot in process.slots.values_mut() {
            slot.is_busy = true;
            if let Some(open) = &mut slot.open {
                (open.turn, open.wake) = (Some(Turn::Other), None);
            }
        }
        self.schedule.at(self.time, Event::Beat(ghost, number));
        copies.into_iter().for_each(|copy| self.proceed(ghost, copy));
    }

    /// True when the claim allows this machine's disk to be lost now.
    fn may_lose(&self, node: usize) -> bool {
        let name = &self.nodes[node].id;
        self.store.content().shards().all(|record| {
            let is_whole = |replica: &Replica| {
                let state = self.ledger.copies.get(&(record.id, replica.id));
                let is_lying = self.nodes[self.index_of(&replica.node)].is_lying;
                !is_lying && !state.is_some_and(|state| state.is_bad) && replica.node != *name
            };
            let is_founded = !record.isr.is_empty();
            let counts = |replica: &&Replica| !is_founded || record.is_in_sync(replica.id);
            let members: Vec<&Replica> = record.staying().filter(counts).collect();
            let whole = members.iter().filter(|replica| is_whole(replica)).count();
            let is_concerned = members.iter().any(|replica| replica.node == *name);
            let is_enough = !is_founded || whole + (record.min_isr as usize - 1) >= record.isr.len();
            !is_concerned || whole > 0 && is_enough
        })
    }

    /// The same for a disk that goes on for a while: any shard may come to rest on it meanwhile.
    fn may_lie(&self, node: usize) -> bool {
        let mut shards = self.store.content().shards();
        let is_founded = |record: &Arc<Shard>| record.isr.len() >= record.min_isr as usize;
        self.settings.min_isr > 1 && shards.all(is_founded) && self.may_lose(node)
    }

    fn begin_lie(&mut self, node: usize, time: Duration) {
        self.mark_bad(node);
        self.nodes[node].is_lying = true;
        self.schedule.at(self.time + time, Event::Relief(Fault::Power(node)));
    }

    /// What came to this disk while it lied may be lost too.
    fn end_lie(&mut self, node: usize) {
        if std::mem::take(&mut self.nodes[node].is_lying) {
            self.mark_bad(node);
        }
    }

    /// Whatever this machine's disk holds may be lost.
    fn mark_bad(&mut self, node: usize) {
        let name = self.nodes[node].id.clone();
        let shards: Vec<_> = self.store.content().shards().cloned().collect();
        for record in shards {
            for replica in record.replicas.iter().filter(|replica| replica.node == name) {
                let copy = self.ledger.copy((record.id, replica.id));
                (copy.is_bad, copy.was_bad) = (true, true);
            }
        }
    }

    /// Changes a bit of a file of a copy, and lets its process start anew: it is found by whoever reads it.
    fn flip_bit(&mut self, node: usize) -> bool {
        let disk = self.nodes[node].disk.clone();
        let shards = self.settings.shards();
        let folders: Vec<_> = shards.iter().map(|shard| data_dir::shard_directory(*shard)).collect();
        let files: Vec<_> = disk
            .files()
            .into_iter()
            .filter(|file| folders.iter().any(|folder| file.starts_with(folder)))
            .collect();
        if files.is_empty() {
            return false;
        }
        let file = self.random.pick(&files).clone();
        let Ok(length) = disk.open(&file).and_then(|reader| reader.len()) else { return false };
        if length == 0 {
            return false;
        }
        self.took_effect(match file.extension().and_then(|extension| extension.to_str()) {
            Some("log") => "bit flip in a log",
            Some("rows") => "bit flip in a segment",
            Some("meta") => "bit flip in replica.meta",
            _ if file.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"manifest")) => {
                "bit flip in a manifest"
            }
            _ => "bit flip elsewhere",
        });
        self.mark_bad(node);
        self.kill(node);
        disk.flip_bit(&file, self.random.index(length as usize), self.random.below(0, 8) as u8);
        true
    }

    /// Takes an image of a disk, or puts one back that was taken before.
    fn roll_back(&mut self, node: usize) -> bool {
        let Some(image) = self.nodes[node].image.take() else {
            self.nodes[node].image = Some(self.nodes[node].disk.image());
            return false;
        };
        if !self.may_lose(node) {
            return false;
        }
        self.mark_bad(node);
        self.kill(node);
        self.nodes[node].disk.restore(&image);
        self.nodes[node].disk.crash();
        true
    }

    /// Something that went wrong is over.
    pub(super) fn relieve(&mut self, fault: Fault) {
        match fault {
            Fault::Network => self.network.mend(),
            Fault::Weather => self.network.weather = self.usual_weather(),
            Fault::Disk(node) => self.relieve_disk(node),
            Fault::DeadDisk(node) => self.nodes[node].disk.power_on(),
            Fault::Power(node) => drop(self.lose_power(node)),
            Fault::Master(master) => {
                self.masters[master].stands_still = false;
                for event in std::mem::take(&mut self.masters[master].backlog) {
                    self.schedule.at(self.time, event);
                }
            }
            Fault::Drain(node) => {
                let name = self.nodes[node].id.clone();
                self.store.end_drain(&name);
                self.tell_news();
            }
            Fault::Ghost(ghost) => self.nodes[ghost].process = None,
        }
    }

    fn usual_weather(&self) -> Weather {
        match self.is_healing {
            true => Weather { lost_one_in: 0, doubled_one_in: 0, late_one_in: 0, ..self.settings.weather },
            false => self.settings.weather,
        }
    }

    fn relieve_disk(&mut self, node: usize) {
        let machine = &mut self.nodes[node];
        machine.disk.set_capacity(1 << 40);
        machine.sync_time = Duration::from_micros(500);
    }

    /// Everything that goes wrong is over, everywhere.
    pub(super) fn heal(&mut self) {
        self.is_healing = true;
        self.network.mend();
        self.network.weather = self.usual_weather();
        self.settings.full_queue_one_in = 0;
        self.store.away_until = self.time;
        self.store.delay_no_lease();
        for node in 0..self.nodes.len() {
            self.relieve_disk(node);
            self.nodes[node].image = None;
            if self.nodes[node].is_ghost {
                self.nodes[node].process = None;
                continue;
            }
            self.end_lie(node);
            self.nodes[node].disk.heal();
            if self.nodes[node].stands_still {
                self.resume(node);
            }
            let name = self.nodes[node].id.clone();
            self.store.end_drain(&name);
            self.schedule.at(self.time, Event::Start(node));
        }
        for master in 0..self.masters.len() {
            self.relieve(Fault::Master(master));
        }
        self.tell_news();
    }
}

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}
