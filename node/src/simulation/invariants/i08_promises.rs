//! I8: a copy answers under no epoch that it has not promised durably, nor under one below what it has answered before.

use super::super::ledger::Ledger;
use super::super::node::CopyId;
use crate::ids::Epoch;

impl Ledger {
    /// A copy answers under this epoch; `promised`: what its disk says.
    pub(in crate::simulation) fn replied(&mut self, copy: CopyId, epoch: Epoch, promised: Epoch) {
        let state = self.copy(copy);
        let (before, is_bad) = (state.answered, state.is_bad);
        state.answered = before.max(epoch);
        if promised < epoch {
            self.break_with(format!("I8: {} answers under {epoch} and has promised {promised}", copy.1));
        }
        if epoch < before && !is_bad {
            self.break_with(format!("I8: {} answers under {epoch} after {before}", copy.1));
        }
    }
}
