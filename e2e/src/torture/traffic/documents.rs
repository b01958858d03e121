//! Documents of which each state shows what was written last, and how they are found.

use anyhow::{Context, Result, bail, ensure};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use crate::rest::RestClient;

/// Length of all vectors.
pub const DIMENSION: usize = 16;
/// Regions lie so far apart, more than any two documents of one do.
const APART: u64 = 16;
const REGIONS_IN_A_ROW: u64 = 4096;

/// Where vectors lie: documents of one region are nearer to each other than to those of any other one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Region(pub u64);

impl Region {
    /// Where documents lie that nobody looks for together.
    pub const COMMON: Region = Region(0);

    /// The vector of a value: unlike that of any other.
    #[must_use]
    pub fn vector(self, value: u64) -> Vec<f32> {
        let mut random = ChaCha8Rng::seed_from_u64(value);
        let mut vector: Vec<f32> = (0..DIMENSION).map(|_| random.random_range(-1.0..1.0)).collect();
        if self != Region::COMMON {
            let corner = self.corner();
            vector[..2].copy_from_slice(&corner[..2]);
        }
        vector
    }

    /// A document that holds a value.
    #[must_use]
    pub fn document(self, id: &str, value: u64) -> Value {
        json!({"document_id": id, "vector": self.vector(value), "metadata": {"value": value}})
    }

    /// The value that a document holds, in its metadata and in its vector.
    ///
    /// # Errors
    /// When they do not agree.
    pub fn value_of(self, document: &Value) -> Result<u64> {
        let value =
            document["metadata"]["value"].as_u64().with_context(|| format!("no value in {document}"))?;
        let stored: Vec<f32> = serde_json::from_value(document["vector"].clone())?;
        ensure!(stored == self.vector(value), "the vector is not that of value {value}: {document}");
        Ok(value)
    }

    /// A search that finds all documents of the region, up to 1,000.
    #[must_use]
    pub fn search(self, consistency: &str) -> Value {
        json!({
            "vector": self.corner(), "top_k": 1_000, "exact": true, "threshold": APART, "consistency": consistency,
            "with_metadata": true, "with_vector": true,
        })
    }

    fn corner(self) -> [f32; DIMENSION] {
        let mut corner = [0.0; DIMENSION];
        // Whole numbers below 2^24 are exact.
        corner[0] = (APART * (self.0 % REGIONS_IN_A_ROW)) as f32;
        corner[1] = (APART * (self.0 / REGIONS_IN_A_ROW)) as f32;
        corner
    }
}

/// The documents that a search has found.
///
/// # Errors
/// When the answer has none.
pub(super) fn hits(answer: &Value) -> Result<&[Value]> {
    Ok(answer["hits"].as_array().with_context(|| format!("no hits in {answer}"))?)
}

/// All documents of a table, by a strong read of each page.
///
/// # Errors
/// When a page cannot be read.
pub async fn list(client: &RestClient, table: &str, consistency: &str) -> Result<Vec<Value>> {
    let mut found = Vec::new();
    let mut cursor = String::new();
    loop {
        let path = format!(
            "/api/v1/tables/{table}/documents?limit=1000&with_vector=true&consistency={consistency}{cursor}"
        );
        let mut page: Value = client.get(&path).await?;
        let Value::Array(documents) = page["documents"].take() else { bail!("no documents in {page}") };
        found.extend(documents);
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return Ok(found),
        }
    }
}

/// A document's id.
///
/// # Errors
/// When it has none.
pub(super) fn id_of(document: &Value) -> Result<&str> {
    document["document_id"].as_str().with_context(|| format!("no id in {document}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_shows_one_value() {
        let mut one = Region::COMMON.document("d", 7);
        assert_eq!(Region::COMMON.value_of(&one).unwrap(), 7);
        assert!(Region(1).value_of(&one).is_err(), "it lies elsewhere");
        one["metadata"]["value"] = json!(8);
        assert!(Region::COMMON.value_of(&one).is_err());
    }

    #[test]
    fn regions_lie_apart() {
        let distance = |one: &[f32], other: &[f32]| -> f32 {
            one.iter().zip(other).map(|(one, other)| (one - other) * (one - other)).sum::<f32>().sqrt()
        };
        let region = Region(3 * REGIONS_IN_A_ROW + 7);
        for (value, other) in (0..100).zip(
            [Region::COMMON, Region(region.0 + 1), Region(region.0 + REGIONS_IN_A_ROW)].into_iter().cycle(),
        ) {
            assert!(distance(&region.corner(), &region.vector(value)) <= APART as f32);
            assert!(distance(&region.corner(), &other.vector(value)) > APART as f32);
        }
    }
}
