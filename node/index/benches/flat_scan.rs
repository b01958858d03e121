//! A flat scan of 62,666 x 384 floats, of four bytes and of two, against the bandwidth that the buffer of four bytes is
//! read with, in the same run.
//!
//! `cargo bench -p vectorsphere-index`; `QUICK=1` shortens it. Rounds alternate between reading and scanning, so that
//! both meet the same noise; the table shows medians.

#![allow(clippy::print_stdout, unsafe_code)] // a benchmark prints, and reads memory as fast as the scan does

use std::hint::black_box;
use std::ops::Range;
use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use vectorsphere_index::{Kernels, Metric, Query, Rows, RowsView, StorageType, TopK, scan};

const ROWS: usize = 62_666;
const DIMENSION: usize = 384;
const TOP_K: usize = 10;
const GB: f64 = 1e9;

fn main() {
    // Under `cargo test --benches` there is nothing to measure.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let rounds = if std::env::var_os("QUICK").is_some() { 11 } else { 41 };
    let rows = rows();
    let stored = StorageType::ALL.map(|storage_type| stored_as(storage_type, &rows));
    let query: Vec<f32> = rows.row(17).to_vec();
    // The host backs fresh memory lazily and raises the clock late: the first readings of a cold run are too low.
    for _ in 0..200 {
        timed(2, |range| {
            black_box(read(&rows, range));
        });
    }
    println!("{ROWS} rows x {DIMENSION} ({:.0} MB as f32), top {TOP_K}, {}", bytes(4) / 1e6, processor());
    println!(
        "{:<10} {:>6} {:>8} {:>7} {:>10} {:>10} {:>7} {:>10} {:>8}",
        "tier", "rows", "metric", "threads", "read GB/s", "scan GB/s", "ratio", "ns/row", "QPS"
    );
    for kernels in Kernels::available() {
        for metric in [Metric::Cosine, Metric::L2] {
            for threads in [1, 2] {
                measure(kernels, metric, threads, rounds, &stored, &query);
            }
        }
    }
}

/// Reads and scans take turns; the first of `stored` is in single precision.
fn measure(kernels: Kernels, metric: Metric, threads: u32, rounds: usize, stored: &[Rows], query: &[f32]) {
    let mut reads = Vec::new();
    let mut scans = vec![Vec::new(); stored.len()];
    for _ in 0..rounds {
        reads.push(timed(threads, |range| {
            black_box(read(&stored[0], range));
        }));
        for (rows, scans) in stored.iter().zip(&mut scans) {
            scans.push(timed(threads, |range| {
                let query = Query::new(metric, query, None);
                let mut top = TopK::new(metric, TOP_K);
                scan(kernels, rows, range, &query, |_| true, |row| row, &mut top);
                black_box(top.into_sorted());
            }));
        }
    }
    let read = bytes(4) / median(reads) / GB;
    for (rows, scans) in stored.iter().zip(scans) {
        let seconds = median(scans);
        let scan = bytes(rows.storage_type().value_bytes()) / seconds / GB;
        println!(
            "{:<10} {:>6} {:>8} {threads:>7} {read:>10.1} {scan:>10.1} {:>6.0}% {:>10.1} {:>8.0}",
            kernels.name(),
            rows.storage_type().as_str(),
            format!("{metric:?}"),
            100.0 * scan / read,
            seconds * 1e9 / ROWS as f64,
            1.0 / seconds
        );
    }
}

/// Time until all threads have done their part of the rows.
fn timed(threads: u32, work: impl Fn(Range<u32>) + Sync) -> f64 {
    let started = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let work = &work;
            let range = ROWS as u32 * thread / threads..ROWS as u32 * (thread + 1) / threads;
            scope.spawn(move || work(range));
        }
    });
    started.elapsed().as_secs_f64()
}

/// Reads every value once and does next to nothing with it, as wide as the processor can.
fn read(rows: &RowsView, range: Range<u32>) -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the processor has the feature.
            return unsafe { read_avx512(rows, range) };
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has the feature.
            return unsafe { read_avx2(rows, range) };
        }
    }
    xor_of_all(rows, range)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn read_avx512(rows: &RowsView, range: Range<u32>) -> u64 {
    xor_of_all(rows, range)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn read_avx2(rows: &RowsView, range: Range<u32>) -> u64 {
    xor_of_all(rows, range)
}

#[inline(always)]
fn xor_of_all(rows: &RowsView, range: Range<u32>) -> u64 {
    let mut sums = [0u32; 64];
    for row in range {
        let row = rows.row(row);
        let (blocks, _) = row.as_chunks::<64>();
        for block in blocks {
            #[cfg(target_arch = "x86_64")]
            for line in 0..4 {
                let ahead = block.as_ptr().wrapping_add(line * 16).wrapping_byte_add(4096);
                // SAFETY: a prefetch reads nothing and may name any address.
                unsafe {
                    std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(ahead.cast());
                };
            }
            for (sum, value) in sums.iter_mut().zip(block) {
                *sum ^= value.to_bits();
            }
        }
    }
    sums.iter().fold(0, |all, sum| all ^ u64::from(*sum))
}

fn rows() -> Rows {
    let mut random = ChaCha8Rng::seed_from_u64(7);
    let mut rows = Rows::new(DIMENSION);
    let mut row = vec![0.0; DIMENSION];
    for _ in 0..ROWS {
        row.iter_mut().for_each(|x| *x = random.random_range(-1.0f32..1.0));
        rows.push(&row);
    }
    rows
}

fn stored_as(storage_type: StorageType, rows: &RowsView) -> Rows {
    let mut stored = Rows::stored_as(storage_type, DIMENSION);
    (0..rows.len() as u32).for_each(|row| _ = stored.push(&rows.row(row)));
    stored
}

fn bytes(of_value: usize) -> f64 {
    (ROWS * DIMENSION * of_value) as f64
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_unstable_by(f64::total_cmp);
    times[times.len() / 2].max(Duration::from_nanos(1).as_secs_f64())
}

fn processor() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = info.lines().find(|line| line.starts_with("model name")).unwrap_or("unknown processor");
    line.rsplit(": ").next().unwrap_or_default().to_owned()
}
