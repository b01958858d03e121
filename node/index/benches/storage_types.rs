//! Graphs over rows of four bytes and of two: bytes for each of a row's in single precision, searches a second, and the
//! share of the true best in single precision that is found.
//!
//! `cargo bench -p vectorsphere-index --bench storage_types`; `QUICK=1` shortens it. Types take turns in every round, so that
//! all meet the same noise; the table shows medians.

#![allow(clippy::print_stdout)] // a benchmark prints

use std::time::Instant;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use vectorsphere_index::{
    Graph, GraphOptions, Kernels, Metric, Query, Rows, RowsView, Scratch, Selection, StorageType, TopK, norm,
    scan, score,
};

const ROWS: usize = 60_000;
const DIMENSION: usize = 384;
const TOP_K: usize = 10;
const QUERIES: usize = 500;
const WIDTHS: [usize; 3] = [24, 48, 96];
const METRIC: Metric = Metric::Cosine;

struct Engine {
    rows: Rows,
    graph: Graph,
    seconds: Vec<Vec<f64>>,
    recalls: Vec<f64>,
}

fn main() {
    // Under `cargo test --benches` there is nothing to measure.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let (rounds, count) = if std::env::var_os("QUICK").is_some() { (5, ROWS / 4) } else { (11, ROWS) };
    let kernels = Kernels::detect(None).expect("some");
    let (base, queries) = (clustered(count, 7), clustered(QUERIES, 8));
    let truth: Vec<f64> =
        (0..QUERIES as u32).map(|query| worst_of_best(kernels, &base, &queries.row(query))).collect();
    let mut engines: Vec<Engine> =
        StorageType::ALL.into_iter().map(|storage_type| Engine::new(kernels, storage_type, &base)).collect();
    for _ in 0..rounds {
        for engine in &mut engines {
            engine.measure(kernels, &base, &queries, &truth);
        }
    }
    println!("{count} rows x {DIMENSION}, top {TOP_K}, one thread, {}", kernels.name());
    println!("{:>6} {:>8} {:>8} {:>8} {:>8}", "rows", "bytes", "width", "recall", "QPS");
    for engine in &mut engines {
        let bytes = (engine.rows.bytes() + engine.graph.bytes()) as f64 / (count * DIMENSION * 4) as f64;
        for (index, width) in WIDTHS.into_iter().enumerate() {
            let (recall, seconds) = (engine.recalls[index], median(&mut engine.seconds[index]));
            let name = engine.rows.storage_type().as_str();
            println!("{name:>6} {bytes:>8.3} {width:>8} {recall:>8.4} {:>8.0}", QUERIES as f64 / seconds);
        }
    }
}

impl Engine {
    fn new(kernels: Kernels, storage_type: StorageType, base: &RowsView) -> Engine {
        let mut rows = Rows::stored_as(storage_type, DIMENSION);
        (0..base.len() as u32).for_each(|row| _ = rows.push(&base.row(row)));
        let options = GraphOptions::default();
        let graph = Graph::build(kernels, &rows, METRIC, &options, 2, &|| false).expect("nobody stops it");
        Engine { rows, graph, seconds: vec![Vec::new(); WIDTHS.len()], recalls: vec![0.0; WIDTHS.len()] }
    }

    fn measure(&mut self, kernels: Kernels, base: &RowsView, queries: &RowsView, truth: &[f64]) {
        let mut scratch = Scratch::default();
        for (index, width) in WIDTHS.into_iter().enumerate() {
            let started = Instant::now();
            let mut found = Vec::new();
            for query in 0..QUERIES as u32 {
                let vector = queries.row(query);
                let (query, mut top) = (Query::new(METRIC, &vector, None), TopK::new(METRIC, TOP_K));
                let Ok(_) = self.graph.search(
                    kernels,
                    &*self.rows,
                    &query,
                    (width, 2),
                    Selection::All,
                    |_| true,
                    |row| row,
                    &mut top,
                    &mut scratch,
                );
                found.push(top.into_sorted());
            }
            self.seconds[index].push(started.elapsed().as_secs_f64());
            let good = |(query, hits): (usize, &Vec<_>)| {
                let vector = queries.row(query as u32);
                let of = |row| score(METRIC, &vector, norm(&vector), &base.row(row), base.norm(row));
                hits.iter()
                    .filter(|hit: &&vectorsphere_index::Ranked<u32>| of(hit.key) >= truth[query])
                    .count()
            };
            let good: usize = found.iter().enumerate().map(good).sum();
            self.recalls[index] = good as f64 / (QUERIES * TOP_K) as f64;
        }
    }
}

fn worst_of_best(kernels: Kernels, base: &RowsView, vector: &[f32]) -> f64 {
    let mut top = TopK::new(METRIC, TOP_K);
    let query = Query::new(METRIC, vector, None);
    scan(kernels, base, 0..base.len() as u32, &query, |_| true, |row| row, &mut top);
    top.into_sorted().last().expect("some rows").score
}

/// Around a few hundred centres, as embeddings are.
fn clustered(rows: usize, seed: u64) -> Rows {
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let centres: Vec<Vec<f32>> =
        (0..300).map(|_| (0..DIMENSION).map(|_| random.random_range(-1.0f32..1.0)).collect()).collect();
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut all = Rows::new(DIMENSION);
    for _ in 0..rows {
        let centre = &centres[random.random_range(0..centres.len())];
        let vector: Vec<f32> = centre.iter().map(|x| x + random.random_range(-0.8f32..0.8)).collect();
        all.push(&vector);
    }
    all
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
