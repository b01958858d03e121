//! What a run did and found.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::fault::{Effect, Fault};
use super::traffic::Counts;

/// What a run did and found.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// What draws the faults.
    pub seed: u64,
    /// How long it took.
    pub lasted: Duration,
    /// How often each class of faults was tried, and how often it was shown to have taken effect.
    pub faults: BTreeMap<Fault, (u64, u64)>,
    /// What became of operations, by kind.
    pub operations: BTreeMap<String, Counts>,
    /// What was checked, by kind.
    pub checks: BTreeMap<&'static str, u64>,
}

impl Summary {
    /// Counts a fault.
    pub fn note_fault(&mut self, fault: Fault, effect: &Effect) {
        let (tried, confirmed) = self.faults.entry(fault).or_default();
        *tried += 1;
        *confirmed += u64::from(matches!(effect, Effect::Confirmed(_)));
    }

    /// Counts what clients did.
    pub fn note_operations(&mut self, tally: BTreeMap<String, Counts>) {
        for (kind, more) in tally {
            let counts = self.operations.entry(kind).or_default();
            counts.acknowledged += more.acknowledged;
            counts.refused += more.refused;
            counts.unknown += more.unknown;
        }
    }

    /// Counts what was checked.
    pub fn note_check(&mut self, what: &'static str, count: usize) {
        *self.checks.entry(what).or_default() += count as u64;
    }

    /// Operations that happened.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.operations.values().map(|counts| counts.acknowledged).sum()
    }

    /// An error unless each of these classes of faults was shown to have taken effect.
    ///
    /// # Errors
    /// Names the classes that prove nothing.
    pub fn was_confirmed(&self, faults: &[Fault]) -> Result<()> {
        let is_missing = |fault: &&Fault| self.faults.get(fault).is_none_or(|(_, confirmed)| *confirmed == 0);
        let missing: Vec<String> = faults.iter().filter(is_missing).map(ToString::to_string).collect();
        ensure!(
            missing.is_empty(),
            "faults that were never shown to have taken effect: {}",
            missing.join(", ")
        );
        Ok(())
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}, {} s", self.seed, self.lasted.as_secs())?;
        writeln!(f, "  fault                     tried  confirmed")?;
        for (fault, (tried, confirmed)) in &self.faults {
            writeln!(f, "  {:<24} {tried:>6} {confirmed:>10}", fault.to_string())?;
        }
        writeln!(f, "  operations        acknowledged    unknown    refused")?;
        for (kind, Counts { acknowledged, unknown, refused }) in &self.operations {
            writeln!(f, "  {kind:<17} {acknowledged:>12} {unknown:>10} {refused:>10}")?;
        }
        writeln!(f, "  checked")?;
        self.checks.iter().try_for_each(|(what, count)| writeln!(f, "  {what:<24} {count:>6}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_that_never_took_effect_fails_the_run() {
        let mut summary = Summary::default();
        for fault in Fault::ALL {
            summary.note_fault(fault, &Effect::Unconfirmed(String::new()));
        }
        for fault in &Fault::ALL[1..] {
            summary.note_fault(*fault, &Effect::Confirmed(String::new()));
        }
        let error = summary.was_confirmed(&Fault::ALL).unwrap_err().to_string();
        assert!(error.ends_with("taken effect: kill primary"), "{error}");
        summary.note_fault(Fault::ALL[0], &Effect::Confirmed(String::new()));
        summary.was_confirmed(&Fault::ALL).unwrap();
    }
}
