//! How two vectors are compared.

/// How two vectors are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Metric {
    /// Cosine similarity in -1..=1; higher is better.
    Cosine,
    /// Euclidean distance, not squared; lower is better.
    L2,
    /// Dot product; higher is better.
    Dot,
}

impl Metric {
    /// True when the better of two scores is the higher one.
    pub const fn higher_is_better(self) -> bool {
        match self {
            Metric::Cosine | Metric::Dot => true,
            Metric::L2 => false,
        }
    }

    /// True when `score` is as good as `threshold` or better.
    pub fn reaches(self, score: f64, threshold: f64) -> bool {
        if self.higher_is_better() { score >= threshold } else { score <= threshold }
    }
}
