//! The Debian package embeddings: real text, a real model, exact answers.
//!
//! The folder holds `debian-minilm-f16.npy` (rows × 384 halves; the last 1,000 rows are the queries),
//! `debian-minilm-meta.jsonl` (one package a line) and `debian-minilm-gt100.ibin` (u32 queries, u32 k, then row
//! numbers as u32, then inner products as f32). Rows are widened to f32 and normalised, as the exact answers were
//! computed. A sample of 10,000 rows in the same form, with exact answers of its own, lies in `e2e/data/debian-10k`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use half::f16;
use serde_json::{Map, Value};

/// Queries at the end of the rows.
const QUERIES: usize = Debian::QUERIES;

/// The set in memory.
pub struct Debian {
    dimension: usize,
    rows: Vec<f32>,
    packages: Vec<Package>,
    k: usize,
    neighbours: Vec<u32>,
    products: Vec<f32>,
}

/// One package: its name is the document's id, all its fields are the metadata.
pub struct Package {
    /// Unique name.
    pub name: String,
    /// `name`, `section`, `priority`, `size_kib`, `arch`, `desc`.
    pub metadata: Map<String, Value>,
}

impl Debian {
    /// Queries at the end of the rows.
    pub const QUERIES: usize = 1_000;

    /// The sample that ships with the sources.
    ///
    /// # Errors
    /// When its files are missing or damaged.
    pub fn sample() -> Result<Debian> {
        Debian::load(&PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("data/debian-10k"))
    }

    /// Reads a folder.
    ///
    /// # Errors
    /// When a file is missing, damaged, or does not fit the others.
    pub fn load(folder: &Path) -> Result<Debian> {
        let read = |name: &str| {
            let path = folder.join(name);
            fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        let (dimension, rows) = halves(&read("debian-minilm-f16.npy")?).context("debian-minilm-f16.npy")?;
        let packages = packages(&read("debian-minilm-meta.jsonl")?).context("debian-minilm-meta.jsonl")?;
        let (k, neighbours, products) =
            answers(&read("debian-minilm-gt100.ibin")?).context("debian-minilm-gt100.ibin")?;
        let count = rows.len() / dimension;
        ensure!(count == packages.len(), "{count} rows but {} packages", packages.len());
        ensure!(count > QUERIES && neighbours.len() == QUERIES * k, "wanted answers to {QUERIES} queries");
        Ok(Debian { dimension, rows: normalised(rows, dimension), packages, k, neighbours, products })
    }

    /// Values of each vector.
    #[must_use]
    pub fn dimension(&self) -> usize {
        self.dimension
    }

    /// Documents to load.
    #[must_use]
    pub fn len(&self) -> usize {
        self.packages.len() - QUERIES
    }

    /// Never: [`Debian::load`] refuses an empty set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Queries with exact answers.
    #[must_use]
    pub fn queries(&self) -> usize {
        QUERIES
    }

    /// Document `index`, `0..len`.
    #[must_use]
    pub fn document(&self, index: usize) -> (&Package, &[f32]) {
        (&self.packages[index], &self.rows[index * self.dimension..][..self.dimension])
    }

    /// Query `index`, `0..queries`.
    #[must_use]
    pub fn query(&self, index: usize) -> &[f32] {
        &self.rows[(self.len() + index) * self.dimension..][..self.dimension]
    }

    /// The exact answer to query `index`: names and inner products, best first, 100 of them.
    pub fn answer(&self, index: usize) -> impl Iterator<Item = (&str, f32)> {
        let range = index * self.k..(index + 1) * self.k;
        let names =
            self.neighbours[range.clone()].iter().map(|row| self.packages[*row as usize].name.as_str());
        names.zip(self.products[range].iter().copied())
    }

    /// Checks an answer of 100 hits to query `index`: the first ten are the exact ones in order (equal scores may
    /// stand in any order), and every score is within 1e-6 of the exact one of its rank.
    ///
    /// # Errors
    /// Says which rank differs and how.
    pub fn check(&self, index: usize, hits: &[(String, f64)]) -> Result<()> {
        let exact: Vec<_> = self.answer(index).collect();
        ensure!(hits.len() == exact.len(), "query {index}: {} hits instead of {}", hits.len(), exact.len());
        for (rank, ((name, score), (exact_name, exact_score))) in hits.iter().zip(&exact).enumerate() {
            let off = (score - f64::from(*exact_score)).abs();
            ensure!(off <= 1e-6, "query {index}, rank {rank}: score {score} instead of {exact_score}");
            let tied = || exact.iter().any(|(other, score)| other == name && score == exact_score);
            if rank < 10 && name != exact_name && !tied() {
                bail!("query {index}, rank {rank}: {name} instead of {exact_name}");
            }
        }
        Ok(())
    }
}

/// Dimension and values of a two-dimensional NumPy array of little-endian halves in C order.
fn halves(bytes: &[u8]) -> Result<(usize, Vec<f32>)> {
    ensure!(bytes.starts_with(b"\x93NUMPY\x01\x00"), "not a NumPy array of version 1");
    let header_bytes = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let header = str::from_utf8(bytes.get(10..10 + header_bytes).context("cut short")?)?;
    ensure!(header.contains("'<f2'") && header.contains("'fortran_order': False"), "not halves in C order");
    let shape =
        header.split("'shape': (").nth(1).and_then(|rest| rest.split(')').next()).context("no shape")?;
    let sides: Vec<usize> = shape.split(',').map(str::trim).filter_map(|side| side.parse().ok()).collect();
    let [count, dimension] = sides[..] else { bail!("shape ({shape}) is not two-dimensional") };
    let data = &bytes[10 + header_bytes..];
    ensure!(data.len() == count * dimension * 2 && dimension > 0, "{} bytes for shape ({shape})", data.len());
    let (pairs, _) = data.as_chunks::<2>();
    Ok((dimension, pairs.iter().map(|pair| f16::from_le_bytes(*pair).to_f32()).collect()))
}

fn normalised(mut rows: Vec<f32>, dimension: usize) -> Vec<f32> {
    for row in rows.chunks_exact_mut(dimension) {
        let norm = row.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt() as f32;
        row.iter_mut().for_each(|x| *x /= norm);
    }
    rows
}

fn packages(bytes: &[u8]) -> Result<Vec<Package>> {
    str::from_utf8(bytes)?.lines().enumerate().map(|(line, text)| package(line, text)).collect()
}

fn package(line: usize, text: &str) -> Result<Package> {
    let metadata: Map<String, Value> =
        serde_json::from_str(text).with_context(|| format!("line {}", line + 1))?;
    let name = metadata.get("name").and_then(Value::as_str).with_context(|| format!("line {}", line + 1))?;
    Ok(Package { name: name.to_owned(), metadata })
}

fn answers(bytes: &[u8]) -> Result<(usize, Vec<u32>, Vec<f32>)> {
    let (words, rest) = bytes.as_chunks::<4>();
    ensure!(rest.is_empty() && words.len() > 2, "cut short");
    let queries = u32::from_le_bytes(words[0]) as usize;
    let k = u32::from_le_bytes(words[1]) as usize;
    let (ids, products) = words[2..].split_at_checked(queries * k).context("cut short")?;
    ensure!(products.len() == ids.len(), "{} ids but {} products", ids.len(), products.len());
    let ids = ids.iter().map(|word| u32::from_le_bytes(*word)).collect();
    Ok((k, ids, products.iter().map(|word| f32::from_le_bytes(*word)).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_fits_its_answers() {
        let debian = Debian::sample().expect("ships with the sources");
        assert_eq!((debian.len(), debian.dimension()), (10_000, 384));
        for query in 0..debian.queries() {
            let (name, product) = debian.answer(query).next().expect("100 answers");
            let index = (0..debian.len()).find(|i| debian.document(*i).0.name == name).expect("a document");
            let dot: f32 = debian.query(query).iter().zip(debian.document(index).1).map(|(a, b)| a * b).sum();
            assert!((dot - product).abs() < 1e-5, "query {query}: {dot} instead of {product}");
        }
    }

    #[test]
    fn a_wrong_answer_is_found() {
        let debian = Debian::sample().expect("ships with the sources");
        let mut hits: Vec<_> =
            debian.answer(3).map(|(name, score)| (name.to_owned(), f64::from(score))).collect();
        debian.check(3, &hits).expect("the exact answer is right");
        hits.swap(0, 50);
        assert!(debian.check(3, &hits).is_err());
    }
}
