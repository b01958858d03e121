//! What ten merges leave of a graph that each builds from the one before: in every round a fifth of the rows goes, at random
//! or whole clusters of them, and those that went the round before come back. Held against the graph that is built of the last
//! round's rows from nothing: recall, searches a second, and the time of the builds.
//!
//! `cargo bench -p vectorsphere-index --bench merges`; `QUICK=1` shortens it, `VECTORSPHERE_KERNELS=avx2` forces a
//! tier of kernels. Graphs take turns in every round, so that both meet the same noise; the numbers are medians. One line of
//! JSON for each bar.

#![allow(clippy::print_stdout)] // a benchmark prints

use std::time::Instant;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use vectorsphere_index::{
    Earlier, GONE, Graph, GraphOptions, Hints, Kernels, Metric, Query, Ranked, Rows, RowsView, Scratch,
    Selection, TopK, scan,
};

const METRIC: Metric = Metric::L2;
const DIMENSION: usize = 128;
/// Directions in which the rows of a cluster differ.
const LATENT: usize = 32;
const MERGES: usize = 10;
/// Parts of the pool that are rows at a time, and the one that is not: a fifth of them.
const LIVE_PARTS: usize = 5;
const CLUSTERS: u32 = 60;
const TOP_K: usize = 10;
const QUERIES: usize = 1_000;
/// Pivots that walks begin at, as a node has it.
const ENTRIES: usize = 4;
const WIDTHS: [usize; 3] = [24, 48, 96];
/// Bars, for each width: what a merged graph may find less, how fast its searches are, and the builds.
const RECALL_AT_LEAST: f64 = -0.01;
const SPEED_AT_LEAST: f64 = 0.85;
const BUILD_AT_LEAST: f64 = 1.5;

/// Which rows go.
#[derive(Clone, Copy)]
enum Churn {
    Random,
    Clusters,
}

/// Vectors that are rows at some time, and the cluster of each.
struct Pool {
    vectors: Rows,
    clusters: Vec<u32>,
    queries: Rows,
}

/// Rows of one round and the vectors of the pool that they are, ascending.
struct Round {
    rows: Rows,
    members: Vec<u32>,
}

struct Measured {
    seconds: Vec<Vec<f64>>,
    recalls: Vec<f64>,
}

fn main() {
    // Under `cargo test --benches` there is nothing to measure.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let (count, rounds) = if std::env::var_os("QUICK").is_some() { (12_000, 5) } else { (72_000, 11) };
    let tier = std::env::var_os("VECTORSPHERE_KERNELS");
    let kernels =
        Kernels::detect(tier.as_ref().and_then(|tier| tier.to_str())).expect("a tier of this processor");
    let pool = Pool::drawn(count);
    for (churn, name) in [(Churn::Random, "random"), (Churn::Clusters, "clusters")] {
        merges(kernels, &pool, churn, name, rounds);
    }
}

fn merges(kernels: Kernels, pool: &Pool, churn: Churn, name: &str, rounds: usize) {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let options = GraphOptions::default();
    let anew = |rows: &RowsView| {
        let started = Instant::now();
        let graph = Graph::build(kernels, rows, METRIC, &options, threads, &|| false);
        (graph.expect("nobody stops it"), started.elapsed().as_secs_f64())
    };
    let mut random = ChaCha8Rng::seed_from_u64(3);
    let mut away = pool.first_away(churn);
    let mut round = pool.round(&away);
    let (mut graph, _) = anew(&round.rows);
    let (mut fresh, mut ratios, mut kept) = (None, Vec::new(), 0);
    for _ in 0..MERGES {
        away = pool.next_away(churn, &away, &mut random);
        let next = pool.round(&away);
        let moved = next.moved_from(&round);
        let hints = Hints { earlier: Some(Earlier { graph: &graph, moved: &moved }), ..Hints::default() };
        let started = Instant::now();
        let merged = Graph::build_from(kernels, &next.rows, METRIC, &options, threads, &|| false, &hints);
        let seconds = started.elapsed().as_secs_f64();
        let (new, seconds_anew) = anew(&next.rows);
        (graph, fresh, round) = (merged.expect("nobody stops it"), Some(new), next);
        kept += usize::from(graph.taken_over() > 0);
        ratios.push(seconds_anew / seconds);
    }
    assert_eq!(kept, MERGES, "no graph was built from nothing");
    let graphs = [fresh.expect("there was a round"), graph];
    let truth: Vec<f64> = (0..QUERIES as u32)
        .map(|query| worst_of_best(kernels, &round.rows, &pool.queries.row(query)))
        .collect();
    let mut measured = [Measured::new(), Measured::new()];
    for _ in 0..rounds {
        for (graph, measured) in graphs.iter().zip(&mut measured) {
            measured.take(kernels, graph, &round.rows, &pool.queries, &truth);
        }
    }
    let [anew, mut merged] = measured;
    let (tier, rows) = (kernels.name(), round.rows.len());
    let bar =
        |what: &str| format!("{MERGES} merges of {rows} rows x {DIMENSION}, a fifth each, {name}: {what}");
    let build = median(&mut ratios);
    println!(
        "{}",
        json!({"bar": bar("builds"), "tier": tier, "ratio": shown(build), "at_least": BUILD_AT_LEAST})
    );
    for (index, width) in WIDTHS.into_iter().enumerate() {
        let less = merged.recalls[index] - anew.recalls[index];
        println!(
            "{}",
            json!({
                "bar": bar(&format!("recall at width {width}")),
                "tier": tier,
                "recall": shown(merged.recalls[index]),
                "difference": shown(less),
                "at_least": RECALL_AT_LEAST,
            })
        );
        // Of the same round, one right after the other.
        let mut ratios: Vec<f64> = anew.seconds[index]
            .iter()
            .zip(&merged.seconds[index])
            .map(|(anew, merged)| anew / merged)
            .collect();
        println!(
            "{}",
            json!({
                "bar": bar(&format!("searches at width {width}")),
                "tier": tier,
                "qps": (QUERIES as f64 / median(&mut merged.seconds[index])).round(),
                "ratio": shown(median(&mut ratios)),
                "at_least": SPEED_AT_LEAST,
            })
        );
    }
}

impl Pool {
    fn drawn(count: usize) -> Pool {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let mut value = |spread: f32| random.random_range(-spread..spread);
        let centres: Vec<f32> = (0..CLUSTERS as usize * DIMENSION).map(|_| value(0.4)).collect();
        let directions: Vec<f32> = (0..LATENT * DIMENSION).map(|_| value(0.25)).collect();
        let mut random = ChaCha8Rng::seed_from_u64(2);
        let mut draw = |cluster: u32| {
            let mut vector = centres[cluster as usize * DIMENSION..][..DIMENSION].to_vec();
            for direction in directions.chunks_exact(DIMENSION) {
                let much = random.random_range(-1.0f32..1.0);
                vector.iter_mut().zip(direction).for_each(|(x, d)| *x += much * d);
            }
            vector.iter_mut().for_each(|x| *x += random.random_range(-0.05f32..0.05));
            vector
        };
        let mut pool =
            Pool { vectors: Rows::new(DIMENSION), clusters: Vec::new(), queries: Rows::new(DIMENSION) };
        for number in 0..count as u32 {
            pool.clusters.push(number % CLUSTERS);
            pool.vectors.push(&draw(number % CLUSTERS));
        }
        (0..QUERIES as u32).for_each(|number| _ = pool.queries.push(&draw(number * 7 % CLUSTERS)));
        pool
    }

    fn parts(&self) -> usize {
        self.clusters.len() / (LIVE_PARTS + 1)
    }

    fn first_away(&self, churn: Churn) -> Vec<bool> {
        let clusters = CLUSTERS / (LIVE_PARTS as u32 + 1);
        let is_away = |number: usize| match churn {
            Churn::Random => number < self.parts(),
            Churn::Clusters => self.clusters[number] < clusters,
        };
        (0..self.clusters.len()).map(is_away).collect()
    }

    /// What is away comes back, and a fifth of the rest goes.
    fn next_away(&self, churn: Churn, away: &[bool], random: &mut ChaCha8Rng) -> Vec<bool> {
        let mut next = vec![false; away.len()];
        match churn {
            Churn::Random => {
                let mut left = self.parts();
                while left > 0 {
                    let number = random.random_range(0..away.len());
                    if !away[number] && !std::mem::replace(&mut next[number], true) {
                        left -= 1;
                    }
                }
            }
            Churn::Clusters => {
                let mut goes = vec![false; CLUSTERS as usize];
                let mut left = CLUSTERS / (LIVE_PARTS as u32 + 1);
                while left > 0 {
                    // Numbers below that of clusters: the first vector of each.
                    let cluster = random.random_range(0..CLUSTERS as usize);
                    if !away[cluster] && !std::mem::replace(&mut goes[cluster], true) {
                        left -= 1;
                    }
                }
                next.iter_mut().zip(&self.clusters).for_each(|(next, of)| *next = goes[*of as usize]);
            }
        }
        next
    }

    fn round(&self, away: &[bool]) -> Round {
        let members: Vec<u32> = (0..away.len() as u32).filter(|number| !away[*number as usize]).collect();
        let mut rows = Rows::new(DIMENSION);
        members.iter().for_each(|member| _ = rows.push(&self.vectors.row(*member)));
        Round { rows, members }
    }
}

impl Round {
    fn moved_from(&self, earlier: &Round) -> Vec<u32> {
        let now = |member: &u32| self.members.binary_search(member).map_or(GONE, |row| row as u32);
        earlier.members.iter().map(now).collect()
    }
}

impl Measured {
    fn new() -> Measured {
        Measured { seconds: vec![Vec::new(); WIDTHS.len()], recalls: vec![0.0; WIDTHS.len()] }
    }

    fn take(&mut self, kernels: Kernels, graph: &Graph, rows: &RowsView, queries: &RowsView, truth: &[f64]) {
        let mut scratch = Scratch::default();
        for (index, width) in WIDTHS.into_iter().enumerate() {
            let mut found: Vec<Vec<Ranked<u32>>> = Vec::new();
            let started = Instant::now();
            for query in 0..QUERIES as u32 {
                let vector = queries.row(query);
                let (query, mut top) = (Query::new(METRIC, &vector, None), TopK::new(METRIC, TOP_K));
                let (all, effort) = (Selection::All, (width, ENTRIES));
                let Ok(_) = graph.search(
                    kernels,
                    rows,
                    &query,
                    effort,
                    all,
                    |_| true,
                    |row| row,
                    &mut top,
                    &mut scratch,
                );
                found.push(top.into_sorted());
            }
            self.seconds[index].push(started.elapsed().as_secs_f64());
            let good = |(hits, truth): (&Vec<Ranked<u32>>, &f64)| {
                hits.iter().filter(|hit| METRIC.reaches(hit.score, *truth)).count()
            };
            let good: usize = found.iter().zip(truth).map(good).sum();
            self.recalls[index] = good as f64 / (QUERIES * TOP_K) as f64;
        }
    }
}

fn worst_of_best(kernels: Kernels, rows: &RowsView, vector: &[f32]) -> f64 {
    let mut top = TopK::new(METRIC, TOP_K);
    let query = Query::new(METRIC, vector, None);
    scan(kernels, rows, 0..rows.len() as u32, &query, |_| true, |row| row, &mut top);
    top.into_sorted().last().expect("some rows").score
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn shown(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}
