//! A document as one place would keep it: what it holds and its version. Pure.

/// Number of a value in one history; [`ABSENT`] is the absence of the document.
pub(crate) type Slot = u32;

/// No document.
pub(crate) const ABSENT: Slot = 0;

/// The state of a document.
///
/// Answers name versions of their own, and only some of them, so the register knows a bound: a version that no answer
/// named is *some* number above the last one that was named, and room for it is never short.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Register {
    /// What it holds.
    pub(crate) slot: Slot,
    /// The largest version that was named so far.
    pub(crate) floor: u64,
    /// The document has version `floor`; otherwise a larger one. False while there is no document.
    pub(crate) is_exact: bool,
}

/// Something that is true of a document at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Fact {
    /// What it holds; `None`: something.
    pub(crate) slot: Option<Slot>,
    /// Its version; `None`: not known.
    pub(crate) version: Option<u64>,
}

/// What an operation saw or did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Effect {
    /// This was true.
    Observe(Fact),
    /// `requires` was true; then the document became `to`, with this version if it is known.
    Change { requires: Option<Fact>, to: Slot, version: Option<u64> },
}

impl Register {
    /// Before the first write.
    pub(crate) const EMPTY: Register = Register { slot: ABSENT, floor: 0, is_exact: false };

    /// The register after `effect`; `None` when the effect is impossible here.
    pub(crate) fn apply(self, effect: &Effect) -> Option<Register> {
        match *effect {
            Effect::Observe(fact) => self.learn(fact),
            Effect::Change { requires: Some(fact), to, version } => self.learn(fact)?.change(to, version),
            Effect::Change { requires: None, to, version } => self.change(to, version),
        }
    }

    /// The register, known better, when `fact` can be true of it.
    fn learn(self, fact: Fact) -> Option<Register> {
        let fits = match fact.slot {
            Some(slot) => slot == self.slot,
            None => self.slot != ABSENT,
        };
        if !fits {
            return None;
        }
        match fact.version {
            None => Some(self),
            Some(version) if self.is_exact => (version == self.floor).then_some(self),
            Some(version) => {
                (version > self.floor).then_some(Register { floor: version, is_exact: true, ..self })
            }
        }
    }

    fn change(self, to: Slot, version: Option<u64>) -> Option<Register> {
        match version {
            None => Some(Register { slot: to, floor: self.floor, is_exact: false }),
            Some(version) => {
                let is_exact = to != ABSENT;
                (version > self.floor).then_some(Register { slot: to, floor: version, is_exact })
            }
        }
    }
}

impl Effect {
    /// What must be true for the effect to happen.
    pub(crate) fn fact(&self) -> Option<Fact> {
        match *self {
            Effect::Observe(fact) => Some(fact),
            Effect::Change { requires, .. } => requires,
        }
    }

    /// The largest version that may have been named before this effect.
    pub(crate) fn ceiling(&self) -> Option<u64> {
        let named = self.fact().and_then(|fact| fact.version);
        match *self {
            Effect::Observe(_) => named,
            Effect::Change { version, .. } => named.or(version),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(slot: Slot, floor: u64, is_exact: bool) -> Register {
        Register { slot, floor, is_exact }
    }

    fn sees(slot: Option<Slot>, version: Option<u64>) -> Effect {
        Effect::Observe(Fact { slot, version })
    }

    fn change(to: Slot, version: Option<u64>) -> Effect {
        Effect::Change { requires: None, to, version }
    }

    fn change_if(required: u64, to: Slot, version: Option<u64>) -> Effect {
        Effect::Change { requires: Some(Fact { slot: None, version: Some(required) }), to, version }
    }

    #[test]
    fn versions_grow_and_values_are_what_was_written() {
        let (absent, exact, vague) = (Register::EMPTY, at(1, 5, true), at(1, 5, false));
        for (before, effect, after) in [
            (absent, sees(Some(ABSENT), None), Some(absent)),
            (absent, sees(Some(1), None), None),
            (absent, sees(None, Some(3)), None),
            (exact, sees(Some(1), Some(5)), Some(exact)),
            (exact, sees(Some(1), Some(6)), None),
            (exact, sees(Some(2), None), None),
            (exact, sees(None, Some(5)), Some(exact)),
            (vague, sees(Some(1), None), Some(vague)),
            (vague, sees(Some(1), Some(5)), None),
            (vague, sees(Some(1), Some(9)), Some(at(1, 9, true))),
            (exact, change(2, Some(6)), Some(at(2, 6, true))),
            (exact, change(2, Some(5)), None),
            (exact, change(2, None), Some(at(2, 5, false))),
            (exact, change(ABSENT, Some(5)), None),
            (exact, change(ABSENT, Some(6)), Some(at(ABSENT, 6, false))),
            (at(ABSENT, 6, false), change(ABSENT, Some(6)), None),
            (at(ABSENT, 6, false), change(ABSENT, None), Some(at(ABSENT, 6, false))),
            (exact, change_if(5, 2, None), Some(at(2, 5, false))),
            (exact, change_if(4, 2, None), None),
            (vague, change_if(7, 2, Some(8)), Some(at(2, 8, true))),
            (vague, change_if(7, 2, Some(7)), None),
            (at(ABSENT, 6, false), change_if(6, 2, None), None),
        ] {
            assert_eq!(before.apply(&effect), after, "{before:?} {effect:?}");
        }
    }
}
