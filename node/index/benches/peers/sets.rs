//! The vector sets that engines are compared on: one real, the others drawn from a seed.
//!
//! A set is base rows and queries, nothing else; what is true of them is found out by [`truth`](crate::truth).

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use half::f16;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use vectorsphere_index::{Metric, Rows};

/// Changes whenever a set of the same name and size gets other rows, so that no cached file outlives it.
pub(crate) const VERSION: u32 = 2;
/// Seed of everything that is drawn.
pub(crate) const SEED: u64 = 20_261_123;
/// One row in so many repeats an earlier one, as real tables do.
const DUPLICATE_EVERY: u32 = 100;
const DEBIAN_QUERIES: usize = 1_000;

/// Base rows and queries of one dimension.
pub(crate) struct Set {
    pub(crate) metric: Metric,
    pub(crate) base: Rows,
    pub(crate) queries: Rows,
}

/// Names of the sets and what they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Package descriptions embedded by a small language model, 62,666 x 384, cosine.
    Debian,
    /// Clusters of clusters, 1,000,000 x 128, Euclidean.
    Clustered,
    /// Sixteen directions of freedom in 768 dimensions, 200,000 rows, cosine.
    LowDimensional,
    /// Clusters in the dimension of common text models, 200,000 x 384, cosine.
    Text,
}

impl Kind {
    pub(crate) fn parse(name: &str) -> Result<Kind> {
        Ok(match name {
            "debian" => Kind::Debian,
            "clustered" => Kind::Clustered,
            "low-dimensional" => Kind::LowDimensional,
            "text" => Kind::Text,
            _ => bail!("unknown set {name:?}, there are debian, clustered, low-dimensional and text"),
        })
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Debian => "debian",
            Kind::Clustered => "clustered",
            Kind::LowDimensional => "low-dimensional",
            Kind::Text => "text",
        }
    }

    /// Base rows; `quick` sets are a tenth.
    pub(crate) fn rows(self, quick: bool) -> usize {
        match self {
            Kind::Debian => 62_666,
            Kind::Clustered if quick => 100_000,
            Kind::Clustered => 1_000_000,
            Kind::LowDimensional | Kind::Text if quick => 20_000,
            Kind::LowDimensional | Kind::Text => 200_000,
        }
    }

    /// Draws the set, or reads it from the folder `data`.
    pub(crate) fn load(self, quick: bool, data: &Path) -> Result<Set> {
        let rows = self.rows(quick);
        let queries = if quick { 1_000 } else { 2_000 };
        let mixture =
            |dimension, latent, families, clusters| Mixture { dimension, latent, families, clusters };
        Ok(match self {
            Kind::Debian => debian(data)?,
            Kind::Clustered => {
                mixture(128, 28, 64, if quick { 400 } else { 4_000 }).draw(Metric::L2, rows, queries)
            }
            Kind::LowDimensional => mixture(768, 16, 10, 100).draw(Metric::Cosine, rows, queries),
            Kind::Text => {
                mixture(384, 96, 40, if quick { 200 } else { 2_000 }).draw(Metric::Cosine, rows, queries)
            }
        })
    }
}

/// The shipped embeddings: f16 widened and renormalised, the last thousand rows are the queries.
fn debian(folder: &Path) -> Result<Set> {
    let path = folder.join("debian-minilm-f16.npy");
    let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    ensure!(bytes.starts_with(b"\x93NUMPY\x01\x00"), "{} is no .npy file of version 1", path.display());
    let header_bytes = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let header = String::from_utf8_lossy(&bytes[10..10 + header_bytes]);
    ensure!(
        header.contains("'<f2'") && header.contains("'fortran_order': False") && header.contains(", 384)"),
        "{} holds other than rows of 384 half floats: {header}",
        path.display()
    );
    let values = bytes[10 + header_bytes..].as_chunks::<2>().0;
    let rows: Vec<Vec<f32>> = values.chunks_exact(384).map(widened).collect();
    let (base, queries) = rows.split_at(rows.len() - DEBIAN_QUERIES);
    Ok(Set { metric: Metric::Cosine, base: stored(384, base), queries: stored(384, queries) })
}

fn widened(row: &[[u8; 2]]) -> Vec<f32> {
    normalised(row.iter().map(|bytes| f16::from_le_bytes(*bytes).to_f64()).collect())
}

fn normalised(row: Vec<f64>) -> Vec<f32> {
    let norm = row.iter().map(|value| value * value).sum::<f64>().sqrt();
    row.iter().map(|value| (value / norm) as f32).collect()
}

fn stored(dimension: usize, rows: &[Vec<f32>]) -> Rows {
    let mut stored = Rows::new(dimension);
    rows.iter().for_each(|row| {
        stored.push(row);
    });
    stored
}

/// Gaussian clusters of uneven size, spread and shape whose centres lie in families, drawn in `latent` dimensions and
/// turned into `dimension` ones.
struct Mixture {
    dimension: usize,
    latent: usize,
    families: usize,
    clusters: usize,
}

struct Cluster {
    centre: Vec<f64>,
    /// Standard deviation along each axis.
    spreads: Vec<f64>,
}

impl Mixture {
    fn draw(&self, metric: Metric, rows: usize, queries: usize) -> Set {
        let mut random = ChaCha8Rng::seed_from_u64(SEED);
        let clusters = self.clusters(&mut random);
        // Sizes follow a power law: a few clusters hold much, many hold little.
        let weights: Vec<f64> = (0..clusters.len()).map(|rank| (rank as f64 + 10.0).powf(-0.7)).collect();
        let totals: Vec<f64> = weights
            .iter()
            .scan(0.0, |total, weight| {
                *total += weight;
                Some(*total)
            })
            .collect();
        let turn = self.turn(&mut random);
        let point = |random: &mut ChaCha8Rng| {
            let at = random.random_range(0.0..totals[totals.len() - 1]);
            let cluster = &clusters[totals.partition_point(|total| *total <= at).min(clusters.len() - 1)];
            let pairs = cluster.centre.iter().zip(&cluster.spreads);
            let latent: Vec<f64> = pairs.map(|(centre, spread)| centre + spread * normal(random)).collect();
            self.finished(metric, &latent, turn.as_deref(), random)
        };
        let mut base = Rows::new(self.dimension);
        for number in 0..rows as u32 {
            let row = if number > 0 && random.random_range(0..DUPLICATE_EVERY) == 0 {
                base.row(random.random_range(0..number)).into_owned()
            } else {
                point(&mut random)
            };
            base.push(&row);
        }
        let queries: Vec<Vec<f32>> = (0..queries).map(|_| point(&mut random)).collect();
        Set { metric, base, queries: stored(self.dimension, &queries) }
    }

    fn clusters(&self, random: &mut ChaCha8Rng) -> Vec<Cluster> {
        let families: Vec<Vec<f64>> =
            (0..self.families).map(|_| (0..self.latent).map(|_| 0.8 * normal(random)).collect()).collect();
        (0..self.clusters)
            .map(|_| {
                let family = &families[random.random_range(0..families.len())];
                let centre = family.iter().map(|value| value + 0.5 * normal(random)).collect();
                // Clusters of one family touch, and differ in spread and shape.
                let spread = 0.3 * (0.4 * normal(random)).exp();
                let spreads = (0..self.latent).map(|_| spread * (0.5 * normal(random)).exp()).collect();
                Cluster { centre, spreads }
            })
            .collect()
    }

    /// The matrix, row by row, that takes a latent point to the set's dimension; none where they are the same.
    fn turn(&self, random: &mut ChaCha8Rng) -> Option<Vec<f64>> {
        let scale = (self.latent as f64).sqrt().recip();
        (self.latent < self.dimension)
            .then(|| (0..self.dimension * self.latent).map(|_| scale * normal(random)).collect())
    }

    fn finished(
        &self,
        metric: Metric,
        latent: &[f64],
        turn: Option<&[f64]>,
        random: &mut ChaCha8Rng,
    ) -> Vec<f32> {
        let row: Vec<f64> = match turn {
            None => latent.to_vec(),
            // A little noise in every direction, as no model's output lies exactly in a plane.
            Some(turn) => turn
                .chunks_exact(self.latent)
                .map(|axis| axis.iter().zip(latent).map(|(a, b)| a * b).sum::<f64>() + 0.02 * normal(random))
                .collect(),
        };
        match metric {
            Metric::Cosine => normalised(row),
            Metric::L2 | Metric::Dot => row.iter().map(|value| *value as f32).collect(),
        }
    }
}

/// A normal deviate by Box and Muller's transform.
fn normal(random: &mut ChaCha8Rng) -> f64 {
    let radius = (-2.0 * (1.0 - random.random::<f64>()).ln()).sqrt();
    radius * (std::f64::consts::TAU * random.random::<f64>()).cos()
}
