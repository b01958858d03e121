//! What an index knows of a condition: the rows for which it holds for certain, and those for which it may.

use roaring::RoaringBitmap;

/// Two sets of rows; a condition holds for every row of `sure`, and for none that is not in `possible`, which holds all of
/// `sure`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Bounds {
    pub(super) sure: RoaringBitmap,
    /// `None`: as `sure`.
    pub(super) possible: Option<RoaringBitmap>,
}

impl Bounds {
    /// A condition whose rows are known.
    pub(super) fn exact(rows: RoaringBitmap) -> Bounds {
        Bounds { sure: rows, possible: None }
    }

    /// A condition that holds for `sure`, and perhaps for `unsure` as well.
    pub(super) fn between(sure: RoaringBitmap, unsure: &RoaringBitmap) -> Bounds {
        let possible = (!unsure.is_subset(&sure)).then(|| &sure | unsure);
        Bounds { sure, possible }
    }

    pub(super) fn is_exact(&self) -> bool {
        self.possible.is_none()
    }

    pub(super) fn possible(&self) -> &RoaringBitmap {
        self.possible.as_ref().unwrap_or(&self.sure)
    }

    /// Both hold.
    pub(super) fn and(self, other: &Bounds) -> Bounds {
        let possible = (!self.is_exact() || !other.is_exact()).then(|| self.possible() & other.possible());
        Bounds { sure: self.sure & &other.sure, possible }.simplified()
    }

    /// This one holds, the other does not.
    pub(super) fn and_not(self, other: &Bounds) -> Bounds {
        let possible = (!self.is_exact() || !other.is_exact()).then(|| self.possible() - &other.sure);
        Bounds { sure: self.sure - other.possible(), possible }.simplified()
    }

    /// One or both hold.
    pub(super) fn or(self, other: &Bounds) -> Bounds {
        let possible = (!self.is_exact() || !other.is_exact()).then(|| self.possible() | other.possible());
        Bounds { sure: self.sure | &other.sure, possible }.simplified()
    }

    fn simplified(self) -> Bounds {
        let Bounds { sure, possible } = self;
        // One holds the other: equal sizes are equal sets.
        let possible = possible.filter(|possible| possible.len() != sure.len());
        Bounds { sure, possible }
    }
}
