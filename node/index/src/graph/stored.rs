//! The form of a graph outside of memory: a head of numbers, then sections of bytes, in a fixed order.
//!
//! All numbers are little-endian. Whoever stores them guards them with checksums; what is read is checked anyway, so that no
//! content can lead a walk out of bounds.
//!
//! | head, 8 bytes each | |
//! |---|---|
//! | version | 2; 1 had no calibration |
//! | metric | 0 cosine, 1 l2, 2 dot |
//! | code bits | 4 or 8 |
//! | dimension, rows, vertices, degree | |
//! | seed | of the rotation |
//! | flat groups | numbers in the section of groups |
//! | centres, pivots | |
//! | error | typical error of a cost by codes, for queries of length 1, f32 |
//! | length | how much the rounding of a query counts, typically, f32 |
//!
//! | section | bytes |
//! |---|---|
//! | codes | 64 for each line, `vertices` times the lines of a vertex |
//! | factors | 8 for each vertex: `add` and `mul`, f32 |
//! | links | 4 · degree for each vertex, u32; 2³² − 1 behind the last |
//! | entries | 4 for each vertex: its row, or 2³¹ + the number of its group |
//! | groups | for each: how many rows, then those; 4 each |
//! | codes and factors of the centres | as above, 8 bits |
//! | starts | 4 for each centre, and the end |
//! | pivots | 4 for each: its vertex |
//! | calibration | entries and queries, u32; for 1, 10 and 100 hits, for each width: mean recall and its lower bound, f32 |

use bytemuck::Pod;

use super::build::NONE;
use super::calibration::Calibration;
use super::pivots::Pivots;
use super::table::CodeTable;
use super::vertices::VertexRows;
use super::walk::DEGREE_MAX;
use super::{CodeWidth, Graph, Metric};
use crate::codes::Rotation;
use crate::memory::HugeSlice;

const VERSION: u64 = 2;
const HEAD_NUMBERS: usize = 13;
const _: () = assert!(cfg!(target_endian = "little"), "numbers are stored as they lie in memory");

/// Why a stored graph cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError<E> {
    /// It was written by another version, or for other rows.
    #[error("{0}")]
    Unfit(String),
    /// What was read cannot be a graph.
    #[error("the {0} are not those of a graph")]
    Content(&'static str),
    /// Its bytes could not be read.
    #[error("failed to read the {part}")]
    Read {
        /// Which.
        part: &'static str,
        /// Why.
        #[source]
        source: E,
    },
}

impl Graph {
    /// Bytes of [`Graph::head`].
    pub const HEAD_BYTES: usize = HEAD_NUMBERS * 8;

    /// The head of the stored form.
    pub fn head(&self) -> Vec<u8> {
        let metric = match self.metric {
            Metric::Cosine => 0,
            Metric::L2 => 1,
            Metric::Dot => 2,
        };
        let bits = u64::from(self.table.width.bits());
        let numbers: [u64; HEAD_NUMBERS] = [
            VERSION,
            metric,
            bits,
            self.rotation.dimension() as u64,
            self.rows.row_count() as u64,
            self.vertices() as u64,
            self.degree as u64,
            self.rotation.seed(),
            self.rows.flat_groups().len() as u64,
            self.pivots.centres.len() as u64,
            self.pivots.vertices.len() as u64,
            u64::from(self.table.error.to_bits()),
            u64::from(self.table.length.to_bits()),
        ];
        numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
    }

    /// Calls `each` with the sections of the stored form.
    ///
    /// # Errors
    /// Those of `each`.
    pub fn sections<E>(&self, mut each: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        each(bytemuck::cast_slice(&self.table.lines))?;
        each(bytemuck::cast_slice(&self.table.factors))?;
        each(bytemuck::cast_slice(&self.links))?;
        each(bytemuck::cast_slice(self.rows.entries()))?;
        each(bytemuck::cast_slice(&self.rows.flat_groups()))?;
        each(bytemuck::cast_slice(&self.pivots.centres.lines))?;
        each(bytemuck::cast_slice(&self.pivots.centres.factors))?;
        each(bytemuck::cast_slice(&self.pivots.starts))?;
        each(bytemuck::cast_slice(&self.pivots.vertices))?;
        let Calibration { entries, queries, recalls } = &self.calibration;
        each(bytemuck::bytes_of(&[*entries, *queries]))?;
        each(bytemuck::bytes_of(recalls))
    }

    /// A graph from its stored form, of `rows` rows of `dimension` values under `metric`. `fill` reads the next bytes.
    ///
    /// # Errors
    /// When it does not fit the rows, cannot be a graph, or cannot be read.
    pub fn load<E>(
        head: &[u8],
        metric: Metric,
        dimension: usize,
        rows: usize,
        fill: impl FnMut(&mut [u8]) -> Result<(), E>,
    ) -> Result<Graph, LoadError<E>> {
        let head = Head::parse(head, metric, dimension, rows).map_err(LoadError::Unfit)?;
        let mut sections = Sections { fill };
        let rotation = Rotation::new(dimension, head.seed);
        let mut table = sections.table(head.width, rotation.padded(), head.vertices, "codes of vertices")?;
        (table.error, table.length) = (head.error, head.length);
        let links = sections.numbers(head.vertices * head.degree, "neighbours")?;
        if !links.iter().all(|link| *link == NONE || (*link as usize) < head.vertices) {
            return Err(LoadError::Content("neighbours"));
        }
        let entries = sections.numbers(head.vertices, "rows of vertices")?;
        let flat = sections.numbers(head.flat_groups, "groups of rows")?;
        let vertex_rows = VertexRows::from_stored(entries, &flat, rows);
        let vertex_rows = vertex_rows.ok_or(LoadError::Content("rows of vertices"))?;
        let centres =
            sections.table(CodeWidth::Eight, rotation.padded(), head.centres, "codes of centres")?;
        let starts = sections.numbers(head.centres + 1, "groups of pivots")?;
        let is_range = starts[0] == 0 && starts[head.centres] as usize == head.pivots;
        if !is_range || !starts.is_sorted() {
            return Err(LoadError::Content("groups of pivots"));
        }
        let vertices = sections.numbers(head.pivots, "pivots")?;
        if !vertices.iter().all(|vertex| (*vertex as usize) < head.vertices) {
            return Err(LoadError::Content("pivots"));
        }
        let pivots = Pivots::of(centres, starts.to_vec(), &table, vertices.to_vec());
        let calibration = sections.calibration()?;
        let degree = head.degree;
        let (rows, taken_over) = (vertex_rows, 0);
        Ok(Graph { metric, rotation, table, degree, links, rows, pivots, calibration, taken_over })
    }
}

struct Head {
    width: CodeWidth,
    vertices: usize,
    degree: usize,
    seed: u64,
    flat_groups: usize,
    centres: usize,
    pivots: usize,
    error: f32,
    length: f32,
}

impl Head {
    /// Checks that nothing is larger than rows allow, so that no section asks for more memory than they do.
    fn parse(head: &[u8], metric: Metric, dimension: usize, rows: usize) -> Result<Head, String> {
        let (numbers, rest) = head.as_chunks::<8>();
        let numbers: Vec<u64> = numbers.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect();
        let [version, stored_metric, bits, stored_dimension, stored_rows, vertices, degree, ..] = numbers[..]
        else {
            return Err(format!("a head of {} bytes, not {}", head.len(), Graph::HEAD_BYTES));
        };
        let [.., seed, flat, centres, pivots, error, length] = numbers[..] else {
            return Err(format!("a head of {} bytes, not {}", head.len(), Graph::HEAD_BYTES));
        };
        if version != VERSION || !rest.is_empty() {
            return Err(format!("version {version}, only {VERSION} is known"));
        }
        let is_metric = match metric {
            Metric::Cosine => stored_metric == 0,
            Metric::L2 => stored_metric == 1,
            Metric::Dot => stored_metric == 2,
        };
        let is_same = stored_dimension == dimension as u64 && stored_rows == rows as u64;
        if !is_metric || !is_same {
            return Err(format!(
                "built of {stored_rows} rows of dimension {stored_dimension}, or for another metric"
            ));
        }
        let width = CodeWidth::of_bits(bits).ok_or_else(|| format!("codes of {bits} bits"))?;
        let within = |number: u64, range: std::ops::RangeInclusive<usize>| {
            let number = usize::try_from(number).ok().filter(|number| range.contains(number));
            number.ok_or_else(|| "sizes that do not fit the rows".to_owned())
        };
        let float = |bits: u64| {
            let value = u32::try_from(bits).ok().map(f32::from_bits).filter(|value| *value >= 0.0);
            value.ok_or_else(|| "an error that is no number".to_owned())
        };
        let vertices = within(vertices, 1..=rows)?;
        Ok(Head {
            width,
            vertices,
            degree: within(degree, 1..=DEGREE_MAX)?,
            seed,
            flat_groups: within(flat, 0..=2 * rows)?,
            centres: within(centres, 1..=vertices)?,
            pivots: within(pivots, 1..=vertices)?,
            error: float(error)?,
            length: float(length)?,
        })
    }
}

struct Sections<F> {
    fill: F,
}

impl<F> Sections<F> {
    fn values<T: Pod, E>(&mut self, len: usize, part: &'static str) -> Result<HugeSlice<T>, LoadError<E>>
    where
        F: FnMut(&mut [u8]) -> Result<(), E>,
    {
        let mut values = HugeSlice::zeroed(len);
        (self.fill)(bytemuck::cast_slice_mut(&mut values[..]))
            .map_err(|source| LoadError::Read { part, source })?;
        Ok(values)
    }

    fn numbers<E>(&mut self, len: usize, part: &'static str) -> Result<HugeSlice<u32>, LoadError<E>>
    where
        F: FnMut(&mut [u8]) -> Result<(), E>,
    {
        self.values(len, part)
    }

    fn calibration<E>(&mut self) -> Result<Calibration, LoadError<E>>
    where
        F: FnMut(&mut [u8]) -> Result<(), E>,
    {
        let part = "calibration";
        let mut read = |into: &mut [u8]| (self.fill)(into).map_err(|source| LoadError::Read { part, source });
        let mut numbers = [0u32; 2];
        read(bytemuck::bytes_of_mut(&mut numbers))?;
        let [entries, queries] = numbers;
        let mut calibration = Calibration { entries, queries, ..Calibration::default() };
        read(bytemuck::bytes_of_mut(&mut calibration.recalls))?;
        let shares = calibration.recalls.as_flattened().as_flattened();
        let is_usable =
            (1..=DEGREE_MAX as u32).contains(&entries) && shares.iter().all(|r| (0.0..=1.0).contains(r));
        is_usable.then_some(calibration).ok_or(LoadError::Content(part))
    }

    fn table<E>(
        &mut self,
        width: CodeWidth,
        padded: usize,
        len: usize,
        part: &'static str,
    ) -> Result<CodeTable, LoadError<E>>
    where
        F: FnMut(&mut [u8]) -> Result<(), E>,
    {
        let stride = width.lines_of(padded);
        let lines = self.values(stride * len, part)?;
        let factors: HugeSlice<super::table::Factors> = self.values(len, part)?;
        let is_number = |factor: &super::table::Factors| factor.add.is_finite() && factor.mul.is_finite();
        if !factors.iter().all(is_number) {
            return Err(LoadError::Content("factors of codes"));
        }
        Ok(CodeTable { width, stride, lines, factors, error: 0.0, length: 0.0 })
    }
}
