//! What must hold in every world, by the names of the design (`replication.md` 2.17). Each is checked where it can break.

mod i01_one_primary;
mod i02_in_sync_copies_have_all;
mod i03_maximal_set;
mod i04_equal_logs;
mod i05_commit_grows;
mod i06_acknowledged_is_durable;
mod i07_applied_is_committed;
mod i08_promises;
mod i09_one_lease;
mod i10_equal_digests;
mod i11_deletion;
mod i12_identities;
mod i13_enough_in_sync;
mod i14_one_master;

use super::node::CopyId;
use super::world::World;

impl World {
    /// Looks at a copy after something happened to it.
    pub(super) fn observe(&mut self, node: usize, copy: CopyId) {
        let process = self.nodes[node].process.as_ref();
        let open = process.and_then(|process| process.slots.get(&copy)).and_then(|slot| slot.open.as_ref());
        let Some(open) = open else { return };
        let (core, before) = (open.driver.core(), open.seen.commit);
        let commit = core.commit();
        if commit == before {
            return;
        }
        let leads = matches!(core.standing(), crate::replication::Standing::Primary(_));
        let maximal = core.maximal_isr();
        self.check_commit_grows(copy, before, commit);
        if leads {
            self.commit_as_primary(copy, commit);
            self.check_maximal_set(copy, &maximal);
            self.check_acknowledged_is_durable(copy, commit);
        } else {
            self.check_known_commit(copy, commit);
        }
        if let Some(open) = self.copy(node, copy) {
            open.seen.commit = commit;
        }
    }

    /// Looks at everything that may be wrong at any time.
    pub(super) fn check(&mut self) {
        self.check_leases();
        self.check_records();
    }
}
