//! The codes of vertices, with what turns a dot product of codes into a cost.

use bytemuck::{Pod, Zeroable};

use super::walk::{BATCH_MAX, Space};
use crate::codes::{self, Coded, EncodedQuery};
use crate::distance::codes::{CodeLine, CodeWidth, code_of};
use crate::memory::{HugeSlice, prefetch};
use crate::{Kernels, Metric};

/// Squared norms weigh no more than this in a cost, however short the query is: single precision must still tell apart
/// what dot products add to them.
const ADD_SCALE_MAX: f32 = 1e6;

/// What makes a cost of a dot product: `add / |query's step| − mul · (dot − offset)`, up to the query's scale.
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Factors {
    /// Squared norm under L2, else 0.
    pub(super) add: f32,
    /// What an integer of the dot product is worth.
    pub(super) mul: f32,
}

/// Codes of consecutive vertices.
#[derive(Debug)]
pub(super) struct CodeTable {
    pub(super) width: CodeWidth,
    /// Lines of a vertex.
    pub(super) stride: usize,
    pub(super) lines: HugeSlice<CodeLine>,
    pub(super) factors: HugeSlice<Factors>,
    /// Typical error of a cost by the vertices' codes, for queries of length 1.
    pub(super) error: f32,
    /// How much the query's own rounding counts, typically: the vectors' lengths, as far as the metric knows them.
    pub(super) length: f32,
}

/// A query against tables of one width. The costs are in units of the query's step: they order vertices, no more.
#[derive(Debug, Default)]
pub(super) struct TableQuery {
    encoded: EncodedQuery,
    /// 1 / step of the query; for squared norms.
    add_scale: f32,
}

impl TableQuery {
    pub(super) fn encode(&mut self, kernels: Kernels, width: CodeWidth, rotated: &[f32]) {
        self.encoded.encode(kernels, width, rotated);
        self.add_scale = (1.0 / self.encoded.scale).min(ADD_SCALE_MAX);
    }

    /// The cost of a value that [`TableQuery::cost`] estimates: of −⟨q, x⟩, or of |x|² − 2⟨q, x⟩. `None` for a query that is so
    /// short that costs are not to its scale.
    pub(super) fn cost_of(&self, value: f64) -> Option<f64> {
        (self.add_scale < ADD_SCALE_MAX).then_some(value * f64::from(self.add_scale))
    }

    /// Typical error of what [`TableQuery::cost`] estimates, for a query of this norm. Values that were rounded to the step
    /// of an integer are wrong by 1/√12 of it.
    pub(super) fn error(&self, table: &CodeTable, norm: f64) -> f64 {
        let rounding = f64::from(self.encoded.scale) * f64::from(table.length) / 12f64.sqrt();
        (f64::from(table.error) * norm).hypot(rounding)
    }

    #[inline(always)]
    pub(super) fn cost(&self, factors: Factors, dot: i32) -> f32 {
        factors.add * self.add_scale - factors.mul * (dot as f32 - self.encoded.offset)
    }
}

impl Factors {
    /// What an integer of the codes is worth for a vector of this norm: what [`encode`] made the factors of.
    pub(super) fn worth(self, metric: Metric, norm: f64) -> f32 {
        match metric {
            Metric::Dot => self.mul,
            Metric::Cosine => (f64::from(self.mul) * norm) as f32,
            Metric::L2 => self.mul / 2.0,
        }
    }
}

impl CodeTable {
    /// Room for `len` vertices whose rotated vectors have `padded` values.
    pub(super) fn zeroed(width: CodeWidth, padded: usize, len: usize) -> CodeTable {
        let stride = width.lines_of(padded);
        CodeTable {
            width,
            stride,
            lines: HugeSlice::zeroed(stride * len),
            factors: HugeSlice::zeroed(len),
            error: 0.0,
            length: 0.0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.factors.len()
    }

    /// Codes and factors of a vertex.
    pub(super) fn of(&self, vertex: u32) -> (&[CodeLine], Factors) {
        (code_of(&self.lines, self.stride, vertex), self.factors[vertex as usize])
    }

    /// Bytes in memory.
    pub(super) fn bytes(&self) -> usize {
        self.lines.bytes() + self.factors.bytes()
    }

    #[inline(always)]
    pub(super) fn prefetch(&self, vertex: u32) {
        prefetch(code_of(&self.lines, self.stride, vertex));
        prefetch(&self.factors[vertex as usize..=vertex as usize]);
    }
}

/// A table seen from a query.
#[derive(Clone, Copy)]
pub(super) struct TableSpace<'s> {
    pub(super) kernels: Kernels,
    pub(super) table: &'s CodeTable,
    pub(super) query: &'s TableQuery,
}

impl Space for TableSpace<'_> {
    #[inline(always)]
    fn prefetch(&self, vertex: u32) {
        self.table.prefetch(vertex);
    }

    #[inline(always)]
    fn costs(&self, vertices: &[u32], out: &mut [f32]) {
        let mut dots = [0; BATCH_MAX];
        let dots = &mut dots[..vertices.len()];
        let CodeTable { width, lines, factors, .. } = self.table;
        self.kernels.code_dots(*width, &self.query.encoded.lines, lines, vertices, dots);
        for ((vertex, dot), out) in vertices.iter().zip(&*dots).zip(out) {
            *out = self.query.cost(factors[*vertex as usize], *dot);
        }
    }
}

/// Writes one vertex' codes. Returns its factors, and the expected square of a cost's error for queries of length 1.
pub(super) fn encode(
    kernels: Kernels,
    width: CodeWidth,
    metric: Metric,
    rotated: &[f32],
    lines: &mut [CodeLine],
) -> (Factors, f64) {
    let Coded { factor, variance, square } = codes::encode(kernels, width, rotated, lines);
    match metric {
        Metric::Dot => (Factors { add: 0.0, mul: factor }, variance),
        Metric::Cosine if square > 0.0 => {
            let mul = (f64::from(factor) / square.sqrt()) as f32;
            (Factors { add: 0.0, mul }, variance / square)
        }
        Metric::Cosine => (Factors::default(), 0.0),
        Metric::L2 => (Factors { add: square as f32, mul: 2.0 * factor }, 4.0 * variance),
    }
}
