//! FAISS against our own exact scan.

use std::collections::BTreeSet;
use std::io::{self, Write};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::{Kernels, Metric, Query, Ranked, Rows, RowsView, TopK, norm, scan, score};

const METRICS: [Metric; 3] = [Metric::Cosine, Metric::L2, Metric::Dot];

/// Rows around a few centres, as embeddings are, and a few copies of rows.
fn rows(count: usize, dimension: usize) -> Rows {
    let mut random = ChaCha8Rng::seed_from_u64((count + dimension) as u64);
    let centres: Vec<Vec<f32>> = (0..20).map(|_| vector(&mut random, dimension, 1.0)).collect();
    let mut rows = Rows::new(dimension);
    for number in 0..count {
        if number % 100 == 99 {
            let copied = rows.row(number as u32 / 2).to_vec();
            rows.push(&copied);
            continue;
        }
        let centre = &centres[random.random_range(0..centres.len())];
        let around = vector(&mut random, dimension, 0.4);
        rows.push(&centre.iter().zip(&around).map(|(a, b)| a + b).collect::<Vec<f32>>());
    }
    rows
}

fn vector(random: &mut ChaCha8Rng, dimension: usize, size: f32) -> Vec<f32> {
    (0..dimension).map(|_| random.random_range(-size..size)).collect()
}

/// Queries near rows.
fn queries(rows: &RowsView, count: usize) -> Vec<Vec<f32>> {
    let mut random = ChaCha8Rng::seed_from_u64(7);
    (0..count)
        .map(|_| {
            let near = rows.row(random.random_range(0..rows.len() as u32));
            let away = vector(&mut random, rows.dimension(), 0.2);
            near.iter().zip(&away).map(|(a, b)| a + b).collect()
        })
        .collect()
}

fn exact(
    rows: &RowsView,
    metric: Metric,
    query: &[f32],
    top_k: usize,
    visible: impl Fn(u32) -> bool,
) -> Vec<Ranked<u32>> {
    let kernels = Kernels::detect(None).expect("scalar is always there");
    let mut top = TopK::new(metric, top_k);
    let query = Query::new(metric, query, None);
    scan(kernels, rows, 0..rows.len() as u32, &query, visible, |row| row, &mut top);
    top.into_sorted()
}

fn scored(rows: &RowsView, metric: Metric, query: &[f32], top_k: usize, found: &[u32]) -> Vec<Ranked<u32>> {
    let mut top = TopK::new(metric, top_k);
    let query_norm = norm(query);
    for row in found {
        top.offer(score(metric, query, query_norm, &rows.row(*row), rows.norm(*row)), *row);
    }
    top.into_sorted()
}

fn build(rows: &RowsView, text: &str, metric: Metric) -> FaissIndex {
    let factory = FaissIndex::validate_factory(text, rows.dimension(), metric).expect(text);
    FaissIndex::build(rows, &factory).unwrap_or_else(|error| panic!("{text} {metric:?}: {error}"))
}

fn stored(index: &FaissIndex) -> Vec<u8> {
    let mut bytes = Vec::new();
    index.save(&mut bytes).expect("memory takes everything");
    bytes
}

/// Searches and checks what holds whatever the kind: rows are visible, different, and as many as there must be.
fn found(
    index: &FaissIndex,
    query: &[f32],
    top_k: usize,
    effort: Option<u32>,
    visible: impl Fn(u32) -> bool,
) -> Vec<u32> {
    let found = index.search(query, top_k, effort, &visible).expect("searched");
    let distinct: BTreeSet<u32> = found.iter().copied().collect();
    let there = (0..index.rows() as u32).filter(|row| visible(*row)).count();
    assert_eq!(distinct.len(), found.len(), "{} gives rows twice", index.factory());
    assert!(distinct.iter().all(|row| visible(*row)), "{} gives hidden rows", index.factory());
    assert!(found.len() >= top_k.min(there), "{}: {} of {there} rows", index.factory(), found.len());
    found
}

/// Share of the rows of an exact search that an index finds at its highest effort.
fn recall(
    index: &FaissIndex,
    rows: &RowsView,
    queries: &[Vec<f32>],
    visible: impl Fn(u32) -> bool + Copy,
) -> f64 {
    let (top_k, metric) = (10, index.factory().metric());
    let (mut hits, mut of) = (0, 0);
    for query in queries {
        let expected = exact(rows, metric, query, top_k, visible);
        let Some(worst) = expected.last().map(|ranked| ranked.score) else { continue };
        let found = found(index, query, top_k, Some(u32::MAX), visible);
        let found = scored(rows, metric, query, top_k, &found);
        hits += found.iter().filter(|ranked| metric.reaches(ranked.score, worst)).count();
        of += expected.len();
    }
    f64::from(u32::try_from(hits).expect("few")) / f64::from(u32::try_from(of).expect("few"))
}

#[test]
fn flat_finds_what_our_scan_finds() {
    for dimension in [1, 3, 16, 97, 384] {
        let rows = rows(2_000, dimension);
        for metric in METRICS {
            let index = build(&rows, "Flat", metric);
            for query in queries(&rows, 20) {
                for top_k in [1, 10, 100] {
                    // Single precision may order near ties otherwise; beyond them the candidates must be the same rows.
                    let expected = exact(&rows, metric, &query, top_k, |_| true);
                    let found = found(&index, &query, top_k, None, |_| true);
                    let found = scored(&rows, metric, &query, top_k, &found);
                    let scores =
                        |ranked: &[Ranked<u32>]| ranked.iter().map(|hit| hit.score).collect::<Vec<f64>>();
                    if dimension > 1 {
                        assert_eq!(scores(&found), scores(&expected), "{metric:?} {dimension} {top_k}");
                    } else {
                        assert_eq!(found.len(), expected.len());
                    }
                }
            }
        }
    }
}

/// Kinds, the rows that they are tried with, and the recall that they must reach when they search hardest.
const KINDS: [(&str, usize, f64); 32] = [
    ("Flat", 1_000, 1.0),
    ("SQ4", 1_000, 0.95),
    ("SQ6", 1_000, 0.99),
    ("SQ8", 1_000, 0.99),
    ("SQfp16", 1_000, 0.99),
    ("SQbf16", 1_000, 0.99),
    ("PQ16x4", 1_000, 0.9),
    ("PQ16x5", 2_000, 0.9),
    ("PQ16", 10_000, 0.95),
    ("PQ16x4fs", 1_000, 0.9),
    ("RaBitQ", 1_000, 0.95),
    ("RR,RaBitQ", 1_000, 0.95),
    ("PCA16,Flat", 1_000, 0.95),
    ("PCAR16,SQ8", 1_000, 0.95),
    ("OPQ16,PQ16x4fs", 10_000, 0.5),
    ("RR16,Flat,RFlat", 1_000, 0.95),
    ("HNSW", 1_000, 0.99),
    ("HNSW8,Flat", 1_000, 0.95),
    ("HNSW16,SQ8", 1_000, 0.95),
    ("HNSW16,SQ4", 1_000, 0.95),
    ("HNSW16,PQ16x4", 1_000, 0.9),
    ("PCAR16,HNSW16", 1_000, 0.95),
    ("IVF16,Flat", 1_000, 1.0),
    ("IVF16,SQ8", 1_000, 0.99),
    ("IVF16,SQ4", 1_000, 0.95),
    ("IVF16,SQfp16", 1_000, 0.99),
    ("IVF16,PQ16x4", 1_000, 0.9),
    ("IVF16,PQ16x4fs", 1_000, 0.9),
    ("IVF16,RaBitQ", 1_000, 0.95),
    ("IVF16_HNSW8,Flat", 1_000, 0.95),
    ("RR,IVF16,RaBitQ", 1_000, 0.95),
    ("OPQ8_16,IVF16,PQ8x4fs,RFlat", 10_000, 0.5),
];

// 1. Every kind under every metric finds enough of the best rows. 2. So it does among few. 3. Stored and loaded it finds
// the same and takes the memory that was foretold.
#[test]
fn every_kind_searches_filters_and_is_stored() {
    for (text, count, least) in KINDS {
        let rows = rows(count, 32);
        let queries = queries(&rows, 20);
        for metric in METRICS {
            // A graph over product codes compares by distance only, and rotations are slow to train and the same for all.
            let refused = metric == Metric::Dot && text.contains("HNSW16,PQ");
            if refused || (metric != Metric::Cosine && text.contains("OPQ")) {
                continue;
            }
            let index = build(&rows, text, metric);
            let reached = recall(&index, &rows, &queries, |_| true);
            assert!(reached >= least, "{text} {metric:?}: recall {reached}");
            for share in [2, 5, 20, 200] {
                let visible = |row: u32| row.wrapping_mul(2_654_435_761).is_multiple_of(share);
                let reached = recall(&index, &rows, &queries, visible);
                assert!(reached >= least - 0.05, "{text} {metric:?}, one in {share}: recall {reached}");
            }
            let bytes = stored(&index);
            let loaded = FaissIndex::load(&mut bytes.as_slice()).expect("as it was stored");
            assert_eq!((loaded.factory(), loaded.rows()), (index.factory(), count));
            for query in &queries {
                assert_eq!(
                    found(&loaded, query, 10, Some(4), |row| row % 3 > 0),
                    found(&index, query, 10, Some(4), |row| row % 3 > 0),
                );
            }
            let (foretold, is) = (loaded.bytes() as f64, bytes.len() as f64);
            assert!(
                (0.7..2.0).contains(&(foretold / is)),
                "{text} {metric:?}: {foretold} bytes foretold, {is}"
            );
        }
    }
}

#[test]
fn as_many_as_there_are_are_found_however_many_are_hidden() {
    let rows = rows(2_000, 16);
    let queries = queries(&rows, 3);
    for text in
        ["Flat", "PQ8x4", "PQ8x4fs", "RaBitQ", "HNSW4", "IVF40,Flat", "IVF40,PQ8x4fs", "IVF40_HNSW4,SQ8"]
    {
        for metric in METRICS {
            let index = build(&rows, text, metric);
            for query in &queries {
                // The nearest rows are hidden: those that are left are where a search looks last.
                let nearest: BTreeSet<u32> =
                    exact(&rows, metric, query, 1_500, |_| true).into_iter().map(|hit| hit.key).collect();
                for top_k in [1, 10, 400, 500, 1_000, 5_000] {
                    found(&index, query, top_k, Some(1), |row| !nearest.contains(&row));
                    found(&index, query, top_k, None, |row| row == 1_999);
                    found(&index, query, top_k, Some(1), |_| true);
                    assert!(found(&index, query, top_k, None, |_| false).is_empty());
                }
            }
            assert!(found(&index, &queries[0], 0, None, |_| true).is_empty());
        }
    }
}

#[test]
fn searches_at_the_same_time_do_not_disturb_each_other() {
    let rows = rows(2_000, 32);
    let queries = queries(&rows, 25);
    for text in ["HNSW8", "IVF40,Flat", "IVF40,PQ16x4fs", "SQ8", "PQ16x4"] {
        let index = build(&rows, text, Metric::Cosine);
        let search = |effort: u32, share: u32| -> Vec<Vec<u32>> {
            queries
                .iter()
                .map(|query| found(&index, query, 5, Some(effort), |row| row % share == 0))
                .collect()
        };
        let tasks = [(1, 1), (20, 1), (20, 3), (200, 1), (200, 50)];
        let alone: Vec<Vec<Vec<u32>>> = tasks.iter().map(|(effort, share)| search(*effort, *share)).collect();
        std::thread::scope(|scope| {
            let search = &search;
            for ((effort, share), expected) in tasks.into_iter().zip(&alone) {
                scope.spawn(move || {
                    for _ in 0..4 {
                        assert_eq!(&search(effort, share), expected, "{text} {effort} {share}");
                    }
                });
            }
        });
    }
}

#[test]
fn values_of_any_size_are_found() {
    let base = rows(1_000, 32);
    for size in [1e-40f32, 1e-25, 1e18] {
        let mut rows = Rows::new(32);
        (0..1_000).for_each(|row| {
            rows.push(&base.row(row).iter().map(|x| x * size).collect::<Vec<f32>>());
        });
        for metric in METRICS {
            for text in ["Flat", "SQfp16", "HNSW16", "IVF16,Flat"] {
                let index = build(&rows, text, metric);
                let queries: Vec<Vec<f32>> = (0..10).map(|row| rows.row(row * 90).to_vec()).collect();
                let reached = recall(&index, &rows, &queries, |_| true);
                // Of values as small as 1e-40 few bits are left to tell rows by.
                assert!(reached > 0.9 || size < 1e-30, "{text} {metric:?} of {size}: {reached}");
            }
        }
    }
    // A query whose distances are beyond single precision.
    for text in ["Flat", "IVF16,Flat", "HNSW16", "PQ16x4fs"] {
        let index = build(&base, text, Metric::L2);
        found(&index, &[1e38; 32], 10, None, |_| true);
        found(&index, &[-1e38; 32], 10, None, |row| row % 2 == 0);
    }
}

#[test]
fn rows_that_are_all_the_same_can_be_indexed() {
    for value in [0.0f32, 0.5] {
        let mut rows = Rows::new(16);
        (0..700).for_each(|_| _ = rows.push(&[value; 16]));
        for text in ["Flat", "SQ8", "PQ4x4fs", "RaBitQ", "HNSW16", "IVF16,Flat", "IVF16,PQ4x4fs", "OPQ4,Flat"]
        {
            let factory = FaissIndex::validate_factory(text, 16, Metric::L2).expect(text);
            if factory.rows_needed() <= rows.len() {
                let index = FaissIndex::build(&rows, &factory).expect(text);
                found(&index, &[0.25; 16], 10, None, |row| row % 2 == 0);
            }
        }
    }
}

#[test]
fn too_few_rows_are_told() {
    let factory = FaissIndex::validate_factory("IVF100,Flat", 8, Metric::L2).expect("valid");
    let error = FaissIndex::build(&rows(100, 8), &factory).expect_err("too few").to_string();
    assert!(error.contains("3900") && error.contains("100") && error.contains("IVF100,Flat"), "{error}");
}

#[test]
fn a_stream_that_was_changed_or_cut_is_refused() {
    let rows = rows(300, 8);
    for text in ["Flat", "IVF4,Flat", "HNSW8", "PCA4,SQ8"] {
        let bytes = stored(&build(&rows, text, Metric::Cosine));
        for length in (0..bytes.len()).step_by(97).chain([bytes.len() - 1]) {
            assert!(FaissIndex::load(&mut &bytes[..length]).is_err(), "{text} cut to {length}");
        }
        let mut damaged = bytes.clone();
        // Each byte of the header and of the first frame's beginning, and every 31st behind.
        for place in (0..200).chain((200..bytes.len()).step_by(31)).chain([bytes.len() - 1]) {
            for change in [0x01, 0x80, 0xff] {
                damaged[place] ^= change;
                assert!(FaissIndex::load(&mut damaged.as_slice()).is_err(), "{text} changed at {place}");
                damaged[place] ^= change;
            }
        }
        // What comes behind is another's.
        let mut longer = bytes.clone();
        longer.extend_from_slice(b"rest");
        let mut reader = longer.as_slice();
        FaissIndex::load(&mut reader).expect("whole");
        assert_eq!(reader, b"rest");
    }
}

#[test]
fn a_stream_of_a_later_format_is_told() {
    let mut bytes = stored(&build(&rows(50, 4), "Flat", Metric::L2));
    bytes[8] = 2;
    let error = FaissIndex::load(&mut bytes.as_slice()).expect_err("a later format").to_string();
    assert!(error.contains("format 2"), "{error}");
}

/// Takes some bytes, then fails.
struct Full(usize);

impl Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0 == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let taken = bytes.len().min(self.0);
        self.0 -= taken;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_writer_that_fails_is_told() {
    // More than one frame, so that one is written while FAISS writes.
    let index = build(&rows(3_000, 128), "Flat", Metric::L2);
    let whole = stored(&index).len();
    assert!(whole > 1 << 20);
    for room in [0, 10, 100, 1 << 20, whole - 1] {
        let error = index.save(&mut Full(room)).expect_err("full");
        assert!(
            matches!(&error, FaissError::Write(cause) if cause.kind() == io::ErrorKind::StorageFull),
            "{error}"
        );
    }
    index.save(&mut Full(whole)).expect("fits");
}
