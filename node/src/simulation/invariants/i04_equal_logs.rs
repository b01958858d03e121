//! I4: what was committed is the same for everybody, for ever.

use super::super::node::CopyId;
use super::super::world::World;
use crate::ids::Lsn;

impl World {
    /// A primary commits up to here: that is true from now on.
    pub(in crate::simulation) fn commit_as_primary(&mut self, copy: CopyId, commit: Lsn) {
        let log = &self.ledger.copies.entry(copy).or_default().log;
        let Some(log) = log.get(..commit.0 as usize) else {
            let (has, replica) = (log.len(), copy.1);
            return self.ledger.break_with(format!("{replica} commits {commit}, its disk has {has} records"));
        };
        let committed = &mut self.ledger.shards.entry(copy.0).or_default().committed;
        let common = committed.len().min(log.len());
        let is_equal = common == 0 || committed[common - 1] == log[common - 1];
        if log.len() > committed.len() {
            committed.extend_from_slice(&log[common..]);
        }
        if !is_equal {
            let what = format!("I4: {} commits up to {commit} other records than were committed", copy.1);
            self.ledger.break_with(what);
        }
    }
}
