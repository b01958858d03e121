//! Whether a sum that batches only move about stays the same.

use std::collections::BTreeMap;
use std::fmt;

/// Accounts that show something that never was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which read, from 0 on.
    pub read: usize,
    /// What it showed.
    pub shown: Vec<(String, i64)>,
    /// What is wrong with it.
    pub why: String,
}

/// Checks reads of all accounts, each taken at one moment, while batches moved units between them: every read shows the
/// accounts of `opening`, each once, and their sum.
///
/// # Errors
/// The first read that shows something else.
pub fn check(opening: &BTreeMap<String, i64>, reads: &[Vec<(String, i64)>]) -> Result<(), Violation> {
    let total: i64 = opening.values().sum();
    for (read, shown) in reads.iter().enumerate() {
        let mut names: Vec<&String> = shown.iter().map(|(account, _)| account).collect();
        names.sort_unstable();
        let sum: i64 = shown.iter().map(|(_, units)| units).sum();
        let why = if !names.into_iter().eq(opening.keys()) {
            "not every account is there once".to_owned()
        } else if sum != total {
            format!("the sum is {sum}, not {total}")
        } else {
            continue;
        };
        return Err(Violation { read, shown: shown.clone(), why });
    }
    Ok(())
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "read {} of the accounts: {}: {:?}", self.read, self.why, self.shown)
    }
}

impl std::error::Error for Violation {}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts(units: &[(&str, i64)]) -> Vec<(String, i64)> {
        units.iter().map(|(account, units)| ((*account).to_owned(), *units)).collect()
    }

    #[test]
    fn units_move_and_none_is_made_or_lost() {
        let opening = accounts(&[("a", 10), ("b", 5)]).into_iter().collect();
        let moved = accounts(&[("b", 18), ("a", -3)]);
        check(&opening, &[accounts(&[("a", 10), ("b", 5)]), moved.clone()]).expect("the same sum");
        for (wrong, why) in [
            (accounts(&[("a", 10), ("b", 6)]), "the sum is 16, not 15"),
            (accounts(&[("a", 15)]), "not every account is there once"),
            (accounts(&[("a", 5), ("a", 5), ("b", 5)]), "not every account is there once"),
            (accounts(&[("a", 10), ("c", 5)]), "not every account is there once"),
        ] {
            let violation = check(&opening, &[moved.clone(), wrong]).expect_err(why);
            assert_eq!((violation.read, violation.why.as_str()), (1, why));
        }
    }
}
