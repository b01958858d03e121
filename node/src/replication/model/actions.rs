//! What may happen next in a world.

use super::limits::Limits;
use super::world::{Action, World};
use crate::replication::Rule;

impl World {
    /// Everything that may happen next; nothing when something is broken.
    pub(super) fn actions(&self, limits: &Limits, actions: &mut Vec<Action>) {
        if self.broken.is_some() {
            return;
        }
        for index in 0..self.nodes.len() {
            if self.is_gone(index, limits) {
                continue;
            }
            self.actions_of_clients(index, limits, actions);
            self.actions_of_the_process(index, limits, actions);
            if index < limits.copies {
                self.actions_of_the_master(index, limits, actions);
                self.actions_of_drains(index, limits, actions);
            }
        }
        self.actions_of_messages(actions);
        if self.time - 10 < limits.time {
            actions.push(Action::Time);
        }
    }

    /// Its volume was deleted.
    fn is_gone(&self, index: usize, limits: &Limits) -> bool {
        index < limits.copies && !self.nodes[index].is_registered
    }

    fn actions_of_clients(&self, index: usize, limits: &Limits, actions: &mut Vec<Action>) {
        let node = &self.nodes[index];
        if !self.leads(index) {
            return;
        }
        let takes_writes = node.core.admit(true, self.now()).is_ok();
        if takes_writes && node.has_volume && self.happened.writes < limits.writes {
            actions.push(Action::Write(index));
        }
        if takes_writes && self.happened.refusals < limits.refusals {
            actions.push(Action::Refuse(index));
        }
        if self.happened.confirmations < limits.confirmations {
            actions.push(Action::Confirm(index));
        }
        if node.has_volume && self.happened.hand_overs < limits.hand_overs {
            actions.push(Action::HandOver(index));
        }
    }

    fn actions_of_the_process(&self, index: usize, limits: &Limits, actions: &mut Vec<Action>) {
        let node = &self.nodes[index];
        actions.push(Action::Tick(index));
        if node.core.configuration().is_none_or(|known| known.revision < self.record.revision) {
            actions.push(Action::Watch(index));
        }
        if !node.has_volume {
            return;
        }
        if node.synced < node.core.last_ticket() {
            actions.push(Action::Sync(index));
        }
        if self.happened.crashes < limits.crashes {
            actions.extend([false, true].map(|kept| Action::Crash { node: index, kept }));
        }
        // With fewer whole copies than a write needs, what is lost is outside the claim.
        let whole = self.nodes.iter().filter(|node| node.has_volume && self.record.is_in_sync(node.id()));
        if self.happened.wipes < limits.wipes && whole.count() >= 2 {
            actions.push(Action::Wipe(index));
        }
        if self.happened.successors < limits.successors {
            actions.push(Action::Succeed(index));
        }
    }

    fn actions_of_the_master(&self, index: usize, limits: &Limits, actions: &mut Vec<Action>) {
        let id = self.nodes[index].id();
        if self.record.member(id).is_none() {
            actions.push(Action::Replace(index));
        }
        // A copy in sync, or the primary itself when its process is another one than the record names.
        let is_new =
            self.record.primary != Some(id) || self.record.primary_session != self.nodes[index].session;
        if is_new && self.record.is_in_sync(id) && self.happened.elections < limits.elections {
            actions.push(Action::Elect { node: index, out: false });
            let may_shrink = self.record.isr.len() > self.record.min_isr || !limits.rules.hold(Rule::MinIsr);
            if may_shrink && self.record.primary != Some(id) {
                actions.push(Action::Elect { node: index, out: true });
            }
        }
    }

    fn actions_of_drains(&self, index: usize, limits: &Limits, actions: &mut Vec<Action>) {
        match self.drains.iter().find(|(node, _)| *node == index) {
            None if self.drains.len() < usize::from(limits.drains) => actions.push(Action::Drain(index)),
            Some((_, false)) if !self.record.is_in_sync(self.nodes[index].id()) => {
                actions.push(Action::Inspect(index));
            }
            Some((_, true)) => actions.push(Action::Discard(index)),
            None | Some(_) => {}
        }
    }

    fn actions_of_messages(&self, actions: &mut Vec<Action>) {
        for (mail, letter) in self.mail.iter().enumerate() {
            let receivers = self.nodes.iter().enumerate().filter(|(_, node)| node.id() == letter.to);
            for (node, _) in receivers {
                actions.extend([false, true].map(|again| Action::Deliver { mail, node, again }));
            }
        }
        for (request, asked) in self.requests.iter().enumerate() {
            actions.extend([false, true].map(|answered| Action::Land { request, answered }));
            if !asked.timed_out {
                actions.push(Action::TimeOut(request));
            }
        }
    }
}
