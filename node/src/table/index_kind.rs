//! Kinds of index that a table can have, and their options.

use std::fmt;
use std::ops::RangeInclusive;

use vectorsphere_index::faiss::{Factory, IS_BUILT_IN};
use vectorsphere_index::{CodeWidth, GraphOptions, Metric};
use vectorsphere_proto::meta;

/// What a factory string of FAISS follows.
const FAISS_PREFIX: &str = "faiss:";

/// Kinds of index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IndexKind {
    /// Chosen by size: small segments are scanned, large ones get a graph.
    Auto(IndexOptions),
    /// Exact scan of all rows.
    Flat,
    /// A graph for all but the smallest segments.
    Hnsw(IndexOptions),
    /// Inverted lists of FAISS, as many as suit the segment.
    Ivf,
    /// What a factory string of FAISS says.
    Faiss(String),
}

/// How a graph is built; `None`: the usual.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct IndexOptions {
    /// Links of a vector, as graphs of several levels count them: the lowest, which is all that ours has, has twice as many.
    pub m: Option<u32>,
    /// Candidates that are looked at for each vector.
    pub ef_construction: Option<u32>,
    /// Codes that walks decide by.
    pub code_bits: Option<CodeWidth>,
    /// How much nearer another neighbour must be to take a link's place.
    pub alpha: Option<f32>,
}

/// `alpha` is never a NaN: [`IndexOptions::check`].
impl Eq for IndexOptions {}

impl IndexKind {
    /// Words of every kind, for messages that say what is allowed.
    pub const ALLOWED: &'static str = "auto, flat, hnsw, ivf, faiss:<factory string>";

    /// The kind of a word; empty means the default. It has no options.
    pub fn parse(word: &str) -> Option<IndexKind> {
        match word {
            "" | "auto" => Some(IndexKind::Auto(IndexOptions::default())),
            "flat" => Some(IndexKind::Flat),
            "hnsw" => Some(IndexKind::Hnsw(IndexOptions::default())),
            "ivf" => Some(IndexKind::Ivf),
            word => word.strip_prefix(FAISS_PREFIX).map(|factory| IndexKind::Faiss(factory.to_owned())),
        }
    }

    /// Bytes in memory of the indexes over so many rows, about, when all of them are in one.
    pub fn bytes(&self, rows: u64, dimension: u32, metric: Metric) -> u64 {
        let (count, dimension) = (usize::try_from(rows).unwrap_or(usize::MAX), dimension as usize);
        match self {
            IndexKind::Flat => 0,
            IndexKind::Ivf | IndexKind::Faiss(_) if !IS_BUILT_IN => 0,
            IndexKind::Auto(options) | IndexKind::Hnsw(options) => {
                rows.saturating_mul(options.graph_options().bytes_per_vertex(dimension) as u64)
            }
            IndexKind::Ivf => Factory::trained(count, dimension, metric).bytes(count) as u64,
            IndexKind::Faiss(text) => {
                Factory::parse(text, dimension, metric).map_or(0, |factory| factory.bytes(count) as u64)
            }
        }
    }

    /// The options, of a kind that has any.
    pub fn options(&self) -> Option<&IndexOptions> {
        match self {
            IndexKind::Auto(options) | IndexKind::Hnsw(options) => Some(options),
            IndexKind::Flat | IndexKind::Ivf | IndexKind::Faiss(_) => None,
        }
    }

    /// The same kind with options; none are given to a kind that has none.
    pub fn with_options(self, options: IndexOptions) -> IndexKind {
        match self {
            IndexKind::Auto(_) => IndexKind::Auto(options),
            IndexKind::Hnsw(_) => IndexKind::Hnsw(options),
            IndexKind::Flat | IndexKind::Ivf | IndexKind::Faiss(_) => self,
        }
    }

    /// The kind of index that segments have, those that have one.
    pub fn of_segments(&self) -> IndexKind {
        match self {
            IndexKind::Auto(options) => IndexKind::Hnsw(*options),
            other => other.clone(),
        }
    }

    /// Checks that this build has such indexes of vectors of `dimension` values.
    ///
    /// # Errors
    /// What is wrong, and what is allowed.
    pub fn check(&self, dimension: u32, metric: Metric) -> Result<(), String> {
        match self {
            IndexKind::Auto(options) | IndexKind::Hnsw(options) => options.check(),
            IndexKind::Flat => Ok(()),
            IndexKind::Ivf | IndexKind::Faiss(_) if !IS_BUILT_IN => {
                Err(format!("index_type \"{self}\" needs the FAISS library, which this build is without"))
            }
            IndexKind::Ivf => Ok(()),
            IndexKind::Faiss(factory) => Factory::parse(factory, dimension as usize, metric)
                .map(|_| ())
                .map_err(|error| error.to_string()),
        }
    }
}

/// The word that users write.
impl fmt::Display for IndexKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IndexKind::Auto(_) => formatter.write_str("auto"),
            IndexKind::Flat => formatter.write_str("flat"),
            IndexKind::Hnsw(_) => formatter.write_str("hnsw"),
            IndexKind::Ivf => formatter.write_str("ivf"),
            IndexKind::Faiss(factory) => write!(formatter, "{FAISS_PREFIX}{factory}"),
        }
    }
}

impl IndexOptions {
    /// Allowed values of `m`.
    pub const M: RangeInclusive<u32> = 2..=32;
    /// Allowed values of `ef_construction`.
    pub const EF_CONSTRUCTION: RangeInclusive<u32> = 8..=2_048;
    /// Allowed values of `alpha`.
    pub const ALPHA: RangeInclusive<f64> = 1.0..=2.0;

    /// Checks every range; the error says which option, its value, and what is allowed.
    pub fn check(&self) -> Result<(), String> {
        let whole = |name: &str, value: Option<u32>, allowed: &RangeInclusive<u32>| match value {
            Some(value) if !allowed.contains(&value) => {
                Err(format!("{name} is {value}, must be {} to {}", allowed.start(), allowed.end()))
            }
            _ => Ok(()),
        };
        whole("m", self.m, &Self::M)?;
        whole("ef_construction", self.ef_construction, &Self::EF_CONSTRUCTION)?;
        match self.alpha {
            Some(alpha) if !Self::ALPHA.contains(&f64::from(alpha)) => {
                Err(format!("alpha is {alpha}, must be {} to {}", Self::ALPHA.start(), Self::ALPHA.end()))
            }
            _ => Ok(()),
        }
    }

    /// How graphs are built.
    pub fn graph_options(&self) -> GraphOptions {
        let usual = GraphOptions::default();
        GraphOptions {
            degree: self.m.map_or(usual.degree, |m| 2 * m as usize),
            width: self.ef_construction.map_or(usual.width, |width| width as usize),
            alpha: self.alpha.unwrap_or(usual.alpha),
            codes: self.code_bits.or(usual.codes),
            ..usual
        }
    }

    /// Bits of a code, if they were chosen.
    pub fn bits(&self) -> Option<u32> {
        self.code_bits.map(CodeWidth::bits)
    }

    /// Codes of so many bits; an error for another number than 1, 4 or 8.
    pub fn codes_of(bits: u64) -> Result<CodeWidth, String> {
        CodeWidth::of_bits(bits).ok_or_else(|| format!("code_bits is {bits}, must be 1, 4, 8 or \"auto\""))
    }

    /// The stored form; nothing for what is the usual.
    pub fn to_record(&self) -> Option<meta::IndexOptions> {
        (*self != IndexOptions::default()).then(|| meta::IndexOptions {
            m: self.m,
            ef_construction: self.ef_construction,
            code_bits: self.bits(),
            alpha: self.alpha,
        })
    }

    /// From the stored form; the error says what this version cannot read.
    pub fn from_record(record: &meta::IndexOptions) -> Result<IndexOptions, String> {
        let meta::IndexOptions { m, ef_construction, code_bits, alpha } = *record;
        let code_bits = code_bits.map(|bits| Self::codes_of(bits.into())).transpose()?;
        let options = IndexOptions { m, ef_construction, code_bits, alpha };
        options.check()?;
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_round_trip() {
        for word in ["auto", "flat", "hnsw", "ivf", "faiss:IVF256,PQ16x4fs"] {
            assert_eq!(IndexKind::parse(word).expect(word).to_string(), word);
        }
        assert_eq!(IndexKind::parse(""), IndexKind::parse("auto"));
        for word in ["Flat", "faiss", "IVF", " hnsw"] {
            assert_eq!(IndexKind::parse(word), None, "{word}");
        }
    }

    #[test]
    fn options_become_those_of_graphs() {
        assert_eq!(IndexOptions::default().graph_options(), GraphOptions::default());
        let options = IndexOptions {
            m: Some(8),
            ef_construction: Some(64),
            code_bits: Some(CodeWidth::Eight),
            alpha: Some(1.25),
        };
        let built = options.graph_options();
        assert_eq!(
            (built.degree, built.width, built.codes, built.alpha),
            (16, 64, Some(CodeWidth::Eight), 1.25)
        );
        let record = options.to_record().expect("it is not the usual");
        assert_eq!(IndexOptions::from_record(&record), Ok(options));
        assert_eq!(IndexOptions::default().to_record(), None);
    }

    #[test]
    fn options_beyond_their_ranges_are_told() {
        let usual = IndexOptions::default();
        for (options, name) in [
            (IndexOptions { m: Some(1), ..usual }, "m is 1"),
            (IndexOptions { m: Some(33), ..usual }, "m is 33"),
            (IndexOptions { ef_construction: Some(7), ..usual }, "ef_construction is 7"),
            (IndexOptions { ef_construction: Some(u32::MAX), ..usual }, "ef_construction is 4294967295"),
            (IndexOptions { alpha: Some(0.99), ..usual }, "alpha is 0.99"),
            (IndexOptions { alpha: Some(f32::NAN), ..usual }, "alpha is NaN"),
        ] {
            let why = options.check().expect_err(name);
            assert!(why.starts_with(name), "{why}");
        }
        let bits = meta::IndexOptions { code_bits: Some(5), ..meta::IndexOptions::default() };
        assert!(IndexOptions::from_record(&bits).expect_err("five bits").contains("code_bits is 5"));
    }

    #[cfg(feature = "faiss")]
    #[test]
    fn factory_strings_are_checked_against_dimension_and_metric() {
        let kind = |factory: &str| IndexKind::Faiss(factory.to_owned());
        kind("IVF64,PQ4").check(16, Metric::L2).expect("16 values are 4 blocks of 4");
        let why = kind("IVF64,PQ4").check(18, Metric::L2).expect_err("18 values are no 4 blocks");
        assert!(why.contains("IVF64,PQ4") && why.contains("18"), "{why}");
        assert!(kind("HNSW16,PQ4").check(16, Metric::Dot).is_err());
        assert!(kind("").check(16, Metric::L2).is_err());
    }

    #[cfg(not(feature = "faiss"))]
    #[test]
    fn without_the_library_its_kinds_are_refused() {
        for kind in [IndexKind::Ivf, IndexKind::Faiss("Flat".to_owned())] {
            let why = kind.check(16, Metric::L2).expect_err("there is no FAISS");
            assert!(why.contains("FAISS library") && why.contains(&kind.to_string()), "{why}");
        }
    }
}
