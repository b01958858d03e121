//! Nanoseconds that each kernel of each tier needs for a row of 384 values: rows in the first-level cache, in the second,
//! and in memory.
//!
//! `cargo bench -p vectorsphere-index --bench kernels`; `QUICK=1` shortens it. Kernels take turns in every round, so
//! that all meet the same noise; the table shows medians, and the bytes of a row.

#![allow(clippy::print_stdout)] // a benchmark prints
// The kernels are compiled into it: they are no part of the crate's interface.
#![allow(dead_code, unused_imports, unreachable_pub, unfulfilled_lint_expectations)]

#[path = "../src/distance/mod.rs"]
mod distance;
#[path = "../src/line.rs"]
mod line;

use std::hint::black_box;
use std::time::Instant;

use distance::Kernels;
use distance::codes::{CODE_LINE, CodeLine, CodeWidth, QueryLine};
use distance::halves::{self, HalfKind, HalfLine};
use line::{LINE, Line};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const DIMENSION: usize = 384;
/// Bytes of rows that a kernel reads in turn.
const SIZES: [(&str, usize); 3] = [("L1", 12 << 10), ("L2", 256 << 10), ("memory", 128 << 20)];
/// Rows of one call, as a scan makes it.
const BLOCK: usize = 64;
/// Bytes that are read between two looks at the clock, at least.
const TIMED_BYTES: usize = 8 << 20;

fn main() {
    // Under `cargo test --benches` there is nothing to measure.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let rounds = if std::env::var_os("QUICK").is_some() { 5 } else { 21 };
    println!("{DIMENSION} values a row, nanoseconds a row");
    println!("{:<12} {:<14} {:>6} {:>8} {:>8} {:>8}", "tier", "kernel", "bytes", "L1", "L2", "memory");
    let data = Data::new();
    let work = works();
    let mut times = vec![vec![Vec::new(); SIZES.len()]; work.len()];
    for _ in 0..rounds {
        for (work, times) in work.iter().zip(&mut times) {
            for ((_, bytes), times) in SIZES.iter().zip(times) {
                times.push(work.nanoseconds(&data, *bytes));
            }
        }
    }
    for (work, times) in work.iter().zip(times) {
        let [first, second, memory] = [0, 1, 2].map(|size| median(&times[size]));
        println!(
            "{:<12} {:<14} {:>6} {first:>8.1} {second:>8.1} {memory:>8.1}",
            work.kernels.name(),
            work.kernel.name(),
            work.kernel.row_bytes()
        );
    }
}

/// A kernel of a tier.
struct Work {
    kernels: Kernels,
    kernel: Kernel,
}

#[derive(Clone, Copy)]
enum Kernel {
    Dot,
    Distance,
    HalfDot(HalfKind),
    HalfDistance(HalfKind),
    CodeDot(CodeWidth),
}

fn works() -> Vec<Work> {
    let kernel = [
        Kernel::Dot,
        Kernel::Distance,
        Kernel::HalfDot(HalfKind::Float16),
        Kernel::HalfDistance(HalfKind::Float16),
        Kernel::HalfDot(HalfKind::Bfloat16),
        Kernel::HalfDistance(HalfKind::Bfloat16),
        Kernel::CodeDot(CodeWidth::Eight),
        Kernel::CodeDot(CodeWidth::Four),
        Kernel::CodeDot(CodeWidth::One),
    ];
    Kernels::available().flat_map(|kernels| kernel.map(|kernel| Work { kernels, kernel })).collect()
}

impl Kernel {
    fn name(self) -> &'static str {
        match self {
            Kernel::Dot => "f32 dot",
            Kernel::Distance => "f32 distance",
            Kernel::HalfDot(HalfKind::Float16) => "f16 dot",
            Kernel::HalfDistance(HalfKind::Float16) => "f16 distance",
            Kernel::HalfDot(HalfKind::Bfloat16) => "bf16 dot",
            Kernel::HalfDistance(HalfKind::Bfloat16) => "bf16 distance",
            Kernel::CodeDot(CodeWidth::Eight) => "u8 dot",
            Kernel::CodeDot(CodeWidth::Four) => "u4 dot",
            Kernel::CodeDot(CodeWidth::One) => "u1 dot",
        }
    }

    fn row_bytes(self) -> usize {
        match self {
            Kernel::Dot | Kernel::Distance => DIMENSION * 4,
            Kernel::HalfDot(_) | Kernel::HalfDistance(_) => DIMENSION * 2,
            Kernel::CodeDot(width) => width.lines_of(DIMENSION) * CODE_LINE,
        }
    }
}

/// Rows of every kind, `SIZES`' largest of each, and a query.
struct Data {
    query: Vec<Line>,
    code_query: Vec<QueryLine>,
    floats: Vec<Line>,
    halves: Vec<HalfLine>,
    codes: Vec<CodeLine>,
    /// All rows of codes, one after the other.
    numbers: Vec<u32>,
}

impl Data {
    fn new() -> Data {
        let mut random = ChaCha8Rng::seed_from_u64(7);
        let lines = SIZES[2].1 / CODE_LINE;
        let mut value = || random.random_range(-1.0f32..1.0);
        let query: Vec<f32> = (0..DIMENSION).map(|_| value()).collect();
        let floats: Vec<f32> = (0..LINE * 1_024).map(|_| value()).collect();
        let bits: Vec<u16> = floats.iter().map(|value| HalfKind::Float16.rounded(*value)).collect();
        let (floats, halves) = (floats.as_chunks().0, bits.as_chunks().0);
        Data {
            query: {
                let mut lines = Vec::new();
                halves::append_query(&query, &mut lines);
                lines
            },
            code_query: (0..8)
                .map(|i| QueryLine(std::array::from_fn(|j| ((i * 31 + j * 7) % 128) as i8 - 64)))
                .collect(),
            floats: floats.iter().cycle().take(lines).map(|values| Line(*values)).collect(),
            halves: halves.iter().cycle().take(lines).map(|values| HalfLine(*values)).collect(),
            codes: (0..lines).map(|i| CodeLine(std::array::from_fn(|j| (i * 31 + j * 101) as u8))).collect(),
            numbers: (0..lines as u32).collect(),
        }
    }
}

impl Work {
    /// Nanoseconds a row, over and over through rows of `bytes` in all.
    fn nanoseconds(&self, data: &Data, bytes: usize) -> f64 {
        let rows = bytes / self.kernel.row_bytes();
        let repeats = TIMED_BYTES.div_ceil(bytes);
        self.pass(data, rows.min(TIMED_BYTES / self.kernel.row_bytes()));
        let started = Instant::now();
        for _ in 0..repeats {
            self.pass(data, rows);
        }
        started.elapsed().as_secs_f64() * 1e9 / (rows * repeats) as f64
    }

    /// Reads the first `rows` rows once.
    fn pass(&self, data: &Data, rows: usize) {
        let (kernels, stride) = (self.kernels, self.kernel.row_bytes() / CODE_LINE);
        let (mut estimates, mut integers) = ([0.0f32; BLOCK], [0i32; BLOCK]);
        for first in (0..rows).step_by(BLOCK) {
            let count = BLOCK.min(rows - first);
            let range = first * stride..(first + count) * stride;
            let estimates = &mut estimates[..count];
            match self.kernel {
                Kernel::Dot => kernels.dots(&data.query, &data.floats[range], estimates),
                Kernel::Distance => kernels.squared_distances(&data.query, &data.floats[range], estimates),
                Kernel::HalfDot(kind) => kernels.half_dots(kind, &data.query, &data.halves[range], estimates),
                Kernel::HalfDistance(kind) => {
                    kernels.half_squared_distances(kind, &data.query, &data.halves[range], estimates);
                }
                Kernel::CodeDot(width) => {
                    let query = &data.code_query[..width.query_lines(DIMENSION)];
                    let numbers = &data.numbers[first..first + count];
                    kernels.code_dots(width, query, &data.codes, numbers, &mut integers[..count]);
                }
            }
            black_box((&estimates, &integers));
        }
    }
}

fn median(times: &[f64]) -> f64 {
    let mut times = times.to_vec();
    times.sort_unstable_by(f64::total_cmp);
    times[times.len() / 2]
}
