//! The rules that keep acknowledged data, by name. A product build always has all of them; the model removes one at a
//! time and must find what breaks.

/// A rule of the protocol. Each says what happens without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rule {
    /// A copy counts as in sync from the moment that its entry is asked for, until it is known to be out. Else a copy
    /// that is in sync by the record misses what was acknowledged.
    MaximalIsr,
    /// What a copy lacks is acknowledged only when the record says that it is out.
    ShrinkIsConfirmed,
    /// A change of the record whose outcome is not known may have happened, or happen later.
    TimeoutIsUnknown,
    /// A copy cuts its log where it parts from the primary's, not at what it knows to be committed.
    CutWhereLogsPart,
    /// A new primary serves strong reads only when the record that begins its reign is committed.
    ServeAfterStart,
    /// A copy enters the in-sync set only with all of the primary's log up to the beginning of its reign, and all that is
    /// committed.
    GrowWhenComplete,
    /// R2. A dead copy's place is given to a complete one before anything of the reign is committed: nothing would be while
    /// the dead copy counts.
    ReplaceBeforeCommit,
    /// A new primary commits only when the promise that it gave to earlier ones has passed.
    PromiseRunsOut,
    /// A promise is only ever prolonged.
    PromiseIsMaximum,
    /// A copy obeys no epoch below the one it has promised.
    EpochIsChecked,
    /// Nothing is acknowledged with fewer copies in sync than the table demands, and no change leaves fewer.
    MinIsr,
    /// An acknowledgement counts for the epoch in which it was given.
    AcksOfThisEpoch,
    /// A promise is durable before anything is answered under it.
    PromiseIsDurable,
    /// A disk that was emptied holds another copy: acknowledgements and promises of the old one do not count for it.
    IdentityIsNew,
    /// R1. A new process takes a new epoch: what it had written and not synced may be on other disks.
    NeverResume,
    /// R4. A refusal that depends on documents is told as a strong read is. (The driver's.)
    RefusalsAreReads,
    /// R5. A new primary waits for its promise unless the one before, in the session that led, has answered it: what that
    /// one had agreed to is no proof, for it may have gone back to leading.
    FormerPrimaryAnswers,
    /// R7. Commit stops only where a batch ends.
    BatchesAreWhole,
    /// R8. A copy that lacks what another one knows to be committed does not lead: its disk holds an earlier state.
    BehindStepsBack,
    /// R8. A copy that was opened and has not had since all that was acknowledged does not lead of its own accord: its disk
    /// may have forgotten, and what it forgot may be on the others.
    ProvenLead,
    /// R9. A new process commits nothing until an earlier one over the same volume must have noticed its end.
    PredecessorEnds,
    /// R9. The only copy in sync, which asks nobody, serves and commits only while its node's session is certain.
    SoleMemberHasSession,
    /// R11. No copy of a node that is being drained enters the in-sync set: its volume may be deleted. (The metadata store's.)
    DrainsAreCompared,
}

/// Which rules hold: all of them, but in tests of the rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rules {
    #[cfg(test)]
    removed: Option<Rule>,
}

impl Rules {
    /// All rules but one, to see what breaks.
    #[cfg(test)]
    pub(crate) fn without(rule: Rule) -> Rules {
        Rules { removed: Some(rule) }
    }

    /// True when the rule holds.
    #[cfg(test)]
    pub(super) fn hold(self, rule: Rule) -> bool {
        self.removed != Some(rule)
    }

    /// True: every rule holds.
    #[cfg(not(test))]
    pub(super) const fn hold(self, _rule: Rule) -> bool {
        true
    }
}
