//! Factory strings of FAISS, as far as a table can have them.
//!
//! FAISS parses them itself, but no string of a user may reach it: some it answers with a division by zero, an access to
//! memory that is not there, or a loop without end (`PQ0`, `HNSW0`, `RQ4x0`, `NSG0`; see `docs/decisions/012-faiss.md`).
//! So they are parsed here, checked against dimension and metric, and written anew for FAISS. What is left out either
//! compares by another metric, cannot be searched as tables are, or takes hours to train for no gain.

mod parse;

use std::fmt;
use std::ops::RangeInclusive;

use crate::Metric;

/// A kind of index that FAISS can build for rows of one dimension under one metric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Factory {
    /// As it was asked for.
    text: String,
    dimension: usize,
    metric: Metric,
    transforms: Vec<Transform>,
    core: Core,
}

/// A factory string that is refused: what is wrong with it, and what is allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the FAISS factory string {factory:?} cannot be used: {problem}")]
pub struct BadFactory {
    /// Its beginning.
    pub factory: String,
    /// What is wrong with it.
    pub problem: String,
}

/// A linear map in front of the index.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Transform {
    /// Rotation that suits a product quantiser of that many blocks.
    Opq { blocks: usize, dimension: usize },
    /// Principal components, rotated at random afterwards or not.
    Pca { rotated: bool, dimension: usize },
    /// Random rotation.
    Rotation { dimension: usize },
}

/// How rows are found.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Core {
    /// All codes are read.
    Scan(Codes),
    /// A graph with that many links a row.
    Hnsw { links: usize, codes: Codes },
    /// Inverted lists, whose centroids are in a graph if they have links.
    Ivf { lists: usize, links: Option<usize>, codes: Codes },
}

/// How rows are stored.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Codes {
    Flat,
    /// One number a value.
    Scalar(Scalar),
    /// One number of some bits a block of values.
    Product {
        blocks: usize,
        bits: usize,
    },
    /// Four bits a block of values, laid out for table look-ups.
    FastScan {
        blocks: usize,
    },
    /// One bit a value.
    RaBit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scalar {
    Bits4,
    Bits6,
    Bits8,
    Half,
    Bfloat,
}

/// How thoroughly an index can be searched: a number that FAISS calls by the name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EffortRange {
    /// Every search reads everything.
    None,
    /// `nprobe`: lists that a search looks into.
    Lists(RangeInclusive<u32>),
    /// `efSearch`: rows that the walk over the graph keeps in mind.
    Candidates(RangeInclusive<u32>),
}

/// Rows that training needs for each centroid: FAISS warns below it.
const ROWS_PER_CENTROID: usize = 39;
/// Rows that training gets for each centroid. FAISS would use 256, and all rows of a large table would be copied for it.
const ROWS_PER_CENTROID_AT_MOST: usize = 64;
/// Rows that training gets in any case, if they are there.
const ROWS_FOR_TRAINING: usize = 1 << 16;
/// Centroids of the product quantiser that an OPQ rotation is trained with.
const OPQ_CENTROIDS: usize = 256;

impl Factory {
    /// Parses a factory string for rows of `dimension` values, `1..=65_536`.
    ///
    /// # Errors
    /// When the string is none that a table can have, or its numbers do not fit the dimension.
    pub fn parse(text: &str, dimension: usize, metric: Metric) -> Result<Factory, BadFactory> {
        let (transforms, core) = parse::parse(text, dimension, metric)
            .map_err(|problem| BadFactory { factory: text.chars().take(64).collect(), problem })?;
        Ok(Factory { text: text.to_owned(), dimension, metric, transforms, core })
    }

    /// What the kind `ivf` stands for, for a table of about so many rows.
    ///
    /// Four times √rows lists, as FAISS' guidelines have it, but so few that each has 39 rows to be trained with. Rows are
    /// stored as 4-bit codes of two values each, if there are enough to train those and the dimension is a multiple of
    /// two, and as they are otherwise: candidates are scored exactly afterwards in any case.
    pub fn trained(rows: usize, dimension: usize, metric: Metric) -> Factory {
        let lists = ((4.0 * (rows as f64).sqrt()) as usize).min(rows / ROWS_PER_CENTROID).clamp(1, 1 << 20);
        let codes = if dimension >= 16 && dimension.is_multiple_of(2) && rows >= 10_000 {
            Codes::FastScan { blocks: dimension / 2 }
        } else {
            Codes::Flat
        };
        let core = Core::Ivf { lists, links: None, codes };
        let mut factory = Factory { text: String::new(), dimension, metric, transforms: Vec::new(), core };
        factory.text = factory.native();
        factory
    }

    /// Values of the rows.
    pub fn dimension(&self) -> usize {
        self.dimension
    }

    /// How rows are compared.
    pub fn metric(&self) -> Metric {
        self.metric
    }

    /// Rows that must be there before the index can be trained.
    pub fn rows_needed(&self) -> usize {
        let trained = self.centroids() * ROWS_PER_CENTROID;
        let components = self.transforms.iter().map(|transform| match transform {
            Transform::Opq { .. } | Transform::Pca { .. } => self.dimension,
            Transform::Rotation { .. } => 0,
        });
        trained.max(components.max().unwrap_or(0)).max(1)
    }

    /// Rows that training gets, if they are there.
    pub(super) fn rows_for_training(&self) -> usize {
        (self.centroids() * ROWS_PER_CENTROID_AT_MOST).max(self.rows_needed()).max(ROWS_FOR_TRAINING)
    }

    /// Most centroids that one quantiser of the index has.
    fn centroids(&self) -> usize {
        let opq = self.transforms.iter().any(|transform| matches!(transform, Transform::Opq { .. }));
        let lists = match self.core {
            Core::Ivf { lists, .. } => lists,
            Core::Scan(_) | Core::Hnsw { .. } => 0,
        };
        let codes = match self.codes() {
            Codes::Product { bits, .. } => 1 << bits,
            Codes::FastScan { .. } => 16,
            Codes::Flat | Codes::Scalar(_) | Codes::RaBit => 0,
        };
        lists.max(codes).max(if opq { OPQ_CENTROIDS } else { 0 })
    }

    /// How thoroughly it can be searched when it holds so many rows.
    pub fn effort(&self, rows: usize) -> EffortRange {
        match self.core {
            Core::Scan(_) => EffortRange::None,
            Core::Hnsw { .. } => EffortRange::Candidates(1..=rows.clamp(1, i32::MAX as usize) as u32),
            Core::Ivf { lists, .. } => EffortRange::Lists(1..=lists as u32),
        }
    }

    /// The number that FAISS gets when so much is asked for, before it is limited to [`Factory::effort`]; without one, a
    /// middling value.
    pub fn effort_of(&self, asked: Option<u32>) -> u32 {
        asked.unwrap_or_else(|| self.default_effort())
    }

    /// The effort of a search that asks for none.
    fn default_effort(&self) -> u32 {
        match self.core {
            Core::Scan(_) => 1,
            Core::Hnsw { .. } => 64,
            Core::Ivf { lists, .. } => default_lists(lists),
        }
    }

    /// How thoroughly lists are looked for, if they are in a graph. FAISS' 16 would not find as many as searches look into.
    pub(super) fn centroid_effort(&self) -> Option<u32> {
        match self.core {
            Core::Ivf { lists, links: Some(_), .. } => Some(2 * default_lists(lists)),
            Core::Ivf { links: None, .. } | Core::Scan(_) | Core::Hnsw { .. } => None,
        }
    }

    /// Candidates to score exactly for a search of the best `top_k`: more where codes are coarse.
    pub(super) fn candidates(&self, top_k: usize) -> usize {
        let reduces = self.transforms.iter().any(|transform| transform.dimension() < self.dimension);
        match self.codes() {
            _ if reduces => (8 * top_k).max(100),
            Codes::RaBit | Codes::Scalar(Scalar::Bits4) | Codes::FastScan { .. } => (8 * top_k).max(100),
            Codes::Product { bits, .. } if *bits <= 4 => (8 * top_k).max(100),
            Codes::Product { .. } | Codes::Scalar(_) => (4 * top_k).max(40),
            Codes::Flat => (2 * top_k).max(20),
        }
    }

    /// True when FAISS lets a search of this kind be limited to some rows.
    pub(super) fn can_filter(&self) -> bool {
        match &self.core {
            Core::Scan(codes) => !matches!(codes, Codes::Product { .. } | Codes::FastScan { .. }),
            Core::Hnsw { .. } | Core::Ivf { .. } => true,
        }
    }

    /// The string for FAISS. Refinement is left out, since candidates are scored from our rows, and so is the training of
    /// product codes for Hamming distances, which no search uses.
    pub(super) fn native(&self) -> String {
        let mut parts: Vec<String> = self.transforms.iter().map(ToString::to_string).collect();
        match &self.core {
            Core::Scan(codes) => parts.push(codes.to_string()),
            Core::Hnsw { links, codes } => parts.extend([format!("HNSW{links}"), codes.to_string()]),
            Core::Ivf { lists, links, codes } => {
                let links = links.map(|links| format!("_HNSW{links}")).unwrap_or_default();
                parts.extend([format!("IVF{lists}{links}"), codes.to_string()]);
            }
        }
        parts.join(",")
    }

    fn codes(&self) -> &Codes {
        match &self.core {
            Core::Scan(codes) | Core::Hnsw { codes, .. } | Core::Ivf { codes, .. } => codes,
        }
    }

    /// Values of a row behind the transforms.
    fn coded_dimension(&self) -> usize {
        self.transforms.last().map_or(self.dimension, Transform::dimension)
    }

    /// Bytes that [`FaissIndex::build`](super::FaissIndex::build) takes at most for so many rows, beside the rows.
    ///
    /// Lists grow by doubling: until an index is loaded from a file they may take twice what their rows need.
    pub fn bytes_to_build(&self, rows: usize) -> usize {
        let sample = rows.min(self.rows_for_training()) * self.dimension * size_of::<f32>();
        // FAISS copies what it trains codes with.
        2 * self.bytes(rows) + 2 * sample + 2 * super::index::BATCH_BYTES
    }

    /// Bytes that an index of so many rows takes once it is loaded, to a few percent.
    pub fn bytes(&self, rows: usize) -> usize {
        let dimension = self.coded_dimension();
        let float = size_of::<f32>();
        let maps = self.transforms.iter().fold((0, self.dimension), |(bytes, from), transform| {
            (bytes + from * transform.dimension() * float, transform.dimension())
        });
        let padded = match (&self.core, self.codes()) {
            // Blocks of 32 rows: half a block is empty at the end of each list.
            (Core::Ivf { lists, .. }, Codes::FastScan { .. }) => rows + lists * 16,
            _ => rows,
        };
        let codes = padded * self.codes().bytes(dimension);
        let tables = self.codes().table_bytes(dimension);
        let core = match &self.core {
            Core::Scan(_) => 0,
            Core::Hnsw { links, codes } => rows * graph_bytes(*links) + codes.pair_bytes(),
            Core::Ivf { lists, links, codes } => {
                let list = dimension * float + 64 + links.map_or(0, graph_bytes);
                let residual = match codes {
                    // What FAISS computes beforehand under L2, unless it is more than 2 GiB.
                    Codes::Product { blocks, bits } if self.metric != Metric::Dot => blocks * (float << bits),
                    _ => 0,
                };
                let residual = if lists * residual > 2 << 30 { 0 } else { residual };
                rows * size_of::<i64>() + lists * (list + residual)
            }
        };
        maps.0 + codes + tables + core
    }
}

/// Lists that a search looks into unless it asks for another number. At 1,001 lists of real text embeddings these 63 have 95 %
/// of the ten nearest rows.
fn default_lists(lists: usize) -> u32 {
    (2.0 * (lists as f64).sqrt()).clamp(16.0, f64::from(u32::MAX)) as u32
}

/// Bytes that a row takes in a graph: twice the links on the lowest level, and one row in `links` on each further one.
fn graph_bytes(links: usize) -> usize {
    let upper = links * size_of::<i32>() / (links - 1).max(1) + 1;
    2 * links * size_of::<i32>() + upper + size_of::<i32>() + size_of::<u64>()
}

impl Transform {
    fn dimension(&self) -> usize {
        match self {
            Transform::Opq { dimension, .. }
            | Transform::Pca { dimension, .. }
            | Transform::Rotation { dimension } => *dimension,
        }
    }
}

impl Codes {
    /// Bytes of a row.
    fn bytes(&self, dimension: usize) -> usize {
        match self {
            Codes::Flat => dimension * size_of::<f32>(),
            Codes::Scalar(Scalar::Bits4) => dimension.div_ceil(2),
            Codes::Scalar(Scalar::Bits6) => (dimension * 6).div_ceil(8),
            Codes::Scalar(Scalar::Bits8) => dimension,
            Codes::Scalar(Scalar::Half | Scalar::Bfloat) => dimension * 2,
            Codes::Product { blocks, bits } => (blocks * bits).div_ceil(8),
            Codes::FastScan { blocks } => blocks.div_ceil(2),
            // Two factors beside the bits.
            Codes::RaBit => dimension.div_ceil(8) + 2 * size_of::<f32>(),
        }
    }

    /// Bytes of centroids.
    fn table_bytes(&self, dimension: usize) -> usize {
        match self {
            Codes::Product { bits, .. } => dimension * (size_of::<f32>() << bits),
            Codes::FastScan { .. } => dimension * (size_of::<f32>() << 4),
            Codes::Flat | Codes::Scalar(_) | Codes::RaBit => dimension * 2 * size_of::<f32>(),
        }
    }

    /// Bytes of the distances between centroids, which a graph over product codes is built with.
    fn pair_bytes(&self) -> usize {
        match self {
            Codes::Product { blocks, bits } => blocks * (size_of::<f32>() << (2 * bits)),
            Codes::Flat | Codes::Scalar(_) | Codes::FastScan { .. } | Codes::RaBit => 0,
        }
    }
}

impl fmt::Display for Factory {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl fmt::Display for Transform {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Transform::Opq { blocks, dimension } => write!(formatter, "OPQ{blocks}_{dimension}"),
            Transform::Pca { rotated: false, dimension } => write!(formatter, "PCA{dimension}"),
            Transform::Pca { rotated: true, dimension } => write!(formatter, "PCAR{dimension}"),
            Transform::Rotation { dimension } => write!(formatter, "RR{dimension}"),
        }
    }
}

impl fmt::Display for Codes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Codes::Flat => formatter.write_str("Flat"),
            Codes::Scalar(scalar) => formatter.write_str(scalar.name()),
            Codes::Product { blocks, bits } => write!(formatter, "PQ{blocks}x{bits}np"),
            Codes::FastScan { blocks } => write!(formatter, "PQ{blocks}x4fs"),
            Codes::RaBit => formatter.write_str("RaBitQ"),
        }
    }
}

impl Scalar {
    const ALL: [Scalar; 5] = [Scalar::Bits4, Scalar::Bits6, Scalar::Bits8, Scalar::Half, Scalar::Bfloat];

    fn name(self) -> &'static str {
        match self {
            Scalar::Bits4 => "SQ4",
            Scalar::Bits6 => "SQ6",
            Scalar::Bits8 => "SQ8",
            Scalar::Half => "SQfp16",
            Scalar::Bfloat => "SQbf16",
        }
    }
}

#[cfg(test)]
mod tests;
