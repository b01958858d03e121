//! A graph against scoring everything.

mod merges;

use proptest::prelude::*;
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::{Query, Ranked, RowMask, Rows, StorageType, TopK, scan};

const METRICS: [Metric; 3] = [Metric::Cosine, Metric::L2, Metric::Dot];

fn kernels() -> Kernels {
    Kernels::detect(None).expect("there is one")
}

/// Vectors around centres, one in ten of them a copy of an earlier one.
fn clustered(rows: usize, dimension: usize, seed: u64) -> Rows {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut value = |spread: f32| random.random_range(-spread..spread);
    let centres: Vec<Vec<f32>> =
        (0..1 + rows / 100).map(|_| (0..dimension).map(|_| value(1.0)).collect()).collect();
    let mut random = ChaCha8Rng::seed_from_u64(seed + 1);
    let mut all = Rows::new(dimension);
    for row in 0..rows {
        let vector: Vec<f32> = if row > 0 && random.random_range(0..10) == 0 {
            all.row(random.random_range(0..row as u32)).into_owned()
        } else {
            let centre = &centres[random.random_range(0..centres.len())];
            centre.iter().map(|x| x + random.random_range(-0.5..0.5)).collect()
        };
        all.push(&vector);
    }
    all
}

/// Vectors without any order: the hardest to walk between.
fn everywhere(rows: usize, dimension: usize, seed: u64) -> Rows {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut all = Rows::new(dimension);
    for _ in 0..rows {
        let vector: Vec<f32> = (0..dimension).map(|_| random.random_range(-1.0..1.0)).collect();
        all.push(&vector);
    }
    all
}

fn build(rows: &RowsView, metric: Metric, options: &GraphOptions) -> Graph {
    Graph::build(kernels(), rows, metric, options, 2, &|| false).expect("nobody stops it")
}

fn exact(rows: &RowsView, query: &Query<'_>, k: usize, counts: impl Fn(u32) -> bool) -> Vec<Ranked<u32>> {
    let mut top = TopK::new(query.metric(), k);
    scan(kernels(), rows, 0..rows.len() as u32, query, counts, |row| row, &mut top);
    top.into_sorted()
}

fn found(
    graph: &Graph,
    rows: &RowsView,
    query: &Query<'_>,
    (k, width): (usize, usize),
    selection: Selection<'_>,
    visible: impl Fn(u32) -> bool,
) -> Vec<Ranked<u32>> {
    let (mut top, mut scratch) = (TopK::new(query.metric(), k), Scratch::default());
    let Ok(_) = graph.search(
        kernels(),
        rows,
        query,
        (width, 2),
        selection,
        visible,
        |row| row,
        &mut top,
        &mut scratch,
    );
    top.into_sorted()
}

/// Share of the best scores that were found.
fn recall(found: &[Ranked<u32>], exact: &[Ranked<u32>]) -> f64 {
    let bar = exact.last().map(|last| last.score);
    let near = |ranked: &&Ranked<u32>| {
        bar.is_some_and(|bar| (ranked.score - bar).abs() < 1e-9 || exact.iter().any(|e| e.key == ranked.key))
    };
    found.iter().filter(near).count() as f64 / exact.len().max(1) as f64
}

fn mean_recall(graph: &Graph, rows: &RowsView, metric: Metric, queries: &RowsView, width: usize) -> f64 {
    let recalls = (0..queries.len() as u32).map(|number| {
        let vector = queries.row(number);
        let query = Query::new(metric, &vector, None);
        let found = found(graph, rows, &query, (10, width), Selection::All, |_| true);
        recall(&found, &exact(rows, &query, 10, |_| true))
    });
    recalls.sum::<f64>() / queries.len() as f64
}

#[test]
fn nearly_all_of_the_best_are_found_with_exact_scores() {
    for (metric, dimension) in METRICS.into_iter().zip([100, 64, 31]) {
        let rows = clustered(4_000, dimension, 7);
        for codes in [CodeWidth::Four, CodeWidth::Eight] {
            let graph = build(&rows, metric, &GraphOptions { codes: Some(codes), ..GraphOptions::default() });
            assert!(graph.vertices() < 3_800, "copies share a vertex");
            let mut sum = 0.0;
            for number in 0..100 {
                let row = rows.row(number * 37);
                let query = Query::new(metric, &row, None);
                let exact = exact(&rows, &query, 10, |_| true);
                let found = found(&graph, &rows, &query, (10, 64), Selection::All, |_| true);
                sum += recall(&found, &exact);
                for ranked in &found {
                    let found = rows.row(ranked.key);
                    let score = crate::score(
                        metric,
                        query.vector(),
                        crate::norm(query.vector()),
                        &found,
                        rows.norm(ranked.key),
                    );
                    assert_eq!(ranked.score, score, "the engine's one score");
                }
            }
            assert!(sum / 100.0 > 0.97, "{metric:?} {codes:?}: recall {}", sum / 100.0);
        }
    }
}

#[test]
fn one_bit_finds_what_four_bits_find_among_more_candidates() {
    for metric in METRICS {
        let rows = clustered(3_000, 600, 7);
        let width = |codes| GraphOptions { codes: Some(codes), ..GraphOptions::default() };
        let (one, four) =
            (build(&rows, metric, &width(CodeWidth::One)), build(&rows, metric, &width(CodeWidth::Four)));
        assert!(one.bytes() + 170 * one.vertices() < four.bytes(), "two lines of codes, not five");
        let found = |graph, effort: usize| {
            let found_by = |number: u32| {
                let row = rows.row(number * 29);
                let query = Query::new(metric, &row, None);
                let exact = exact(&rows, &query, 10, |_| true);
                recall(&found(graph, &rows, &query, (10, effort), Selection::All, |_| true), &exact)
            };
            (0..100).map(found_by).sum::<f64>() / 100.0
        };
        let recalls = (found(&one, 96), found(&four, 32));
        assert!(recalls.0 > recalls.1 - 0.02 && recalls.0 > 0.9, "{metric:?}: {recalls:?}");
    }
}

#[test]
fn rows_of_two_bytes_find_what_rows_of_four_bytes_do() {
    let key = |ranked: &Ranked<u32>| ranked.key;
    for metric in METRICS {
        let rows = clustered(4_000, 100, 7);
        for (storage_type, least) in [(StorageType::F16, 0.98), (StorageType::Bf16, 0.9)] {
            let mut stored = Rows::stored_as(storage_type, 100);
            (0..rows.len() as u32).for_each(|row| _ = stored.push(&rows.row(row)));
            let needed = rows.len() * 100 * size_of::<f32>();
            assert!(stored.bytes() * 10 < needed * 7, "{} bytes where f32 has {needed}", stored.bytes());
            let graph = build(&stored, metric, &GraphOptions::default());
            assert!(graph.vertices() < 3_800, "copies share a vertex");
            let (mut of_scan, mut of_graph) = (0.0, 0.0);
            for number in 0..100 {
                // Not a row, but near one.
                let vector: Vec<f32> = rows.row(number * 37).iter().map(|x| x + 0.01).collect();
                let query = Query::new(metric, &vector, None);
                let truth = exact(&rows, &query, 10, |_| true);
                // Copies of a row tie: a score says more than a number.
                let worst = truth[9].score;
                let share = |hits: &[Ranked<u32>]| {
                    let of_f32 = |row| {
                        crate::score(metric, &vector, crate::norm(&vector), &rows.row(row), rows.norm(row))
                    };
                    let good = hits.iter().map(key).filter(|row| metric.reaches(of_f32(*row), worst)).count();
                    good as f64 / truth.len() as f64
                };
                of_scan += share(&exact(&stored, &query, 10, |_| true)) / 100.0;
                let hits = found(&graph, &stored, &query, (10, 64), Selection::All, |_| true);
                of_graph += share(&hits) / 100.0;
            }
            let message = format!("{metric:?} {storage_type:?}: scan {of_scan}, graph {of_graph}");
            assert!(of_scan > least && of_graph > least - 0.03, "{message}");
        }
    }
}

#[test]
fn rows_that_do_not_count_are_never_found_and_the_others_are() {
    let rows = clustered(6_000, 48, 3);
    let graph = build(&rows, Metric::L2, &GraphOptions::default());
    // Some in a thousand, some in ten, most; and those far from the query.
    for (keep, least) in [(1_000, 0.99), (100, 0.99), (10, 0.9), (3, 0.95), (2, 0.95)] {
        let mask = RowMask::of(6_000, |row| row.wrapping_mul(2_654_435_761) >> 12 & 0xfff < 4_096 / keep);
        let (mut sum, mut masked) = (0.0, 0.0);
        for number in 0..60 {
            let row = rows.row(number * 71);
            let query = Query::new(Metric::L2, &row, None);
            let exact = exact(&rows, &query, 10, |row| mask.contains(row));
            let by_mask = found(&graph, &rows, &query, (10, 64), Selection::Mask(&mask), |_| true);
            let hidden = 6_000 - mask.count();
            let by_sight =
                found(&graph, &rows, &query, (10, 64), Selection::AllBut(hidden), |row| mask.contains(row));
            assert!(by_mask.iter().chain(&by_sight).all(|ranked| mask.contains(ranked.key)));
            masked += recall(&by_mask, &exact);
            sum += recall(&by_sight, &exact);
        }
        assert!(masked / 60.0 >= least, "one in {keep}: recall {}", masked / 60.0);
        if keep <= 3 {
            assert!(sum / 60.0 >= least, "one in {keep}, told apart by sight: recall {}", sum / 60.0);
        }
    }
}

#[test]
fn rows_far_from_the_query_are_found_when_only_they_count() {
    let rows = clustered(6_000, 48, 5);
    let graph = build(&rows, Metric::L2, &GraphOptions::default());
    let mut sum = 0.0;
    for number in 0..40 {
        let row = rows.row(number * 71);
        let query = Query::new(Metric::L2, &row, None);
        let mut far = exact(&rows, &query, 6_000, |_| true);
        let mut mask = RowMask::none(6_000);
        far.drain(..4_000).for_each(drop);
        far.iter().for_each(|ranked| mask.insert(ranked.key));
        let exact = exact(&rows, &query, 10, |row| mask.contains(row));
        sum += recall(&found(&graph, &rows, &query, (10, 64), Selection::Mask(&mask), |_| true), &exact);
    }
    assert!(sum / 40.0 > 0.95, "recall {}", sum / 40.0);
}

#[test]
fn rows_near_the_query_that_do_not_count_take_no_place_of_those_that_do() {
    // All of the nearest are hidden, though nearly all rows count: a plain walk would end among them.
    let rows = clustered(6_000, 48, 17);
    let graph = build(&rows, Metric::L2, &GraphOptions::default());
    for number in 0..20 {
        let row = rows.row(number * 71);
        let query = Query::new(Metric::L2, &row, None);
        let hidden: Vec<u32> =
            exact(&rows, &query, 60, |_| true).into_iter().map(|ranked| ranked.key).collect();
        let visible = |row: u32| !hidden.contains(&row);
        let found = found(&graph, &rows, &query, (10, 12), Selection::AllBut(1), visible);
        assert!(found.len() == 10 && found.iter().all(|ranked| visible(ranked.key)), "query {number}");
    }
}

#[test]
fn a_walk_that_would_see_every_vertex_is_a_scan() {
    let rows = clustered(3_000, 20, 19);
    let graph = build(&rows, Metric::L2, &GraphOptions::default());
    let row = rows.row(5);
    let query = Query::new(Metric::L2, &row, None);
    let (mut top, mut scratch) = (TopK::new(Metric::L2, 10), Scratch::default());
    for (width, plan) in [(64, Plan::Walk), (10_000, Plan::Scan)] {
        let (effort, all) = ((width, 2), Selection::All);
        let Ok(touched) =
            graph.search(kernels(), &*rows, &query, effort, all, |_| true, |row| row, &mut top, &mut scratch);
        assert_eq!((touched.plan, touched.hops == 0), (plan, plan == Plan::Scan));
    }
}

#[test]
fn a_threshold_is_exact_and_ties_go_to_the_smaller_key() {
    let rows = clustered(2_000, 32, 11);
    let graph = build(&rows, Metric::Cosine, &GraphOptions::default());
    let row = rows.row(5);
    let query = Query::new(Metric::Cosine, &row, None);
    let all = exact(&rows, &query, 20, |_| true);
    let threshold = all[7].score;
    let row = rows.row(5);
    let query = Query::new(Metric::Cosine, &row, Some(threshold));
    let found = found(&graph, &rows, &query, (20, 200), Selection::All, |_| true);
    assert!(found.iter().all(|ranked| ranked.score >= threshold));
    assert_eq!(found, exact(&rows, &query, 20, |_| true));
}

#[test]
fn a_build_can_be_stopped() {
    let rows = clustered(500, 16, 1);
    assert!(Graph::build(kernels(), &rows, Metric::L2, &GraphOptions::default(), 2, &|| true).is_none());
}

#[test]
fn one_row_equal_rows_and_zero_rows_make_graphs() {
    for metric in METRICS {
        let mut rows = Rows::new(3);
        for vector in [[0.0; 3], [0.0; 3], [1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [-1.0, 0.5, 1e-30]] {
            rows.push(&vector);
            let graph = build(&rows, metric, &GraphOptions::default());
            let query = Query::new(metric, &[1.0, 1.0, 1.0], None);
            let found = found(&graph, &rows, &query, (10, 10), Selection::All, |_| true);
            assert_eq!(found, exact(&rows, &query, 10, |_| true), "{metric:?} {} rows", rows.len());
        }
    }
}

#[test]
fn queries_of_any_length_find_the_same_directions() {
    let rows = clustered(3_000, 40, 13);
    for metric in METRICS {
        let graph = build(&rows, metric, &GraphOptions::default());
        for scale in [1e-30f32, 1e-9, 1e-3, 1e3, 1e9, 1e18] {
            let mut sum = 0.0;
            for number in 0..20 {
                let vector: Vec<f32> = rows.row(number * 131).iter().map(|x| x * scale).collect();
                let query = Query::new(metric, &vector, None);
                let exact = exact(&rows, &query, 10, |_| true);
                sum += recall(&found(&graph, &rows, &query, (10, 100), Selection::All, |_| true), &exact);
            }
            assert!(sum / 20.0 > 0.9, "{metric:?}, scale {scale}: recall {}", sum / 20.0);
        }
    }
    for metric in [Metric::L2, Metric::Dot] {
        let graph = build(&rows, metric, &GraphOptions::default());
        let zero = [0.0; 40];
        let query = Query::new(metric, &zero, None);
        let found = found(&graph, &rows, &query, (10, 100), Selection::All, |_| true);
        assert!(found.len() == 10 && recall(&found, &exact(&rows, &query, 10, |_| true)) > 0.8, "{metric:?}");
    }
}

#[test]
fn rows_that_single_precision_cannot_compare_get_no_graph() {
    let mut rows = Rows::new(2);
    rows.push(&[1.0, 2.0]);
    rows.push(&[0.0, 0.0]);
    assert!(METRICS.iter().all(|metric| Graph::fits(&rows, *metric)));
    rows.push(&[1e18, 0.0]);
    assert_eq!(METRICS.map(|metric| Graph::fits(&rows, metric)), [true, false, false]);
}

#[test]
fn every_vertex_is_reached() {
    // Tight clusters far from each other: a link between them is the exception.
    let mut random = ChaCha8Rng::seed_from_u64(2);
    let mut rows = Rows::new(16);
    for row in 0..3_000 {
        let centre = (row % 30) as f32 * 100.0;
        rows.push(&(0..16).map(|_| centre + random.random_range(-0.1..0.1)).collect::<Vec<f32>>());
    }
    let graph = build(&rows, Metric::L2, &GraphOptions::default());
    let mut reached = vec![false; graph.vertices()];
    let mut queue = graph.pivots.vertices.clone();
    while let Some(vertex) = queue.pop() {
        if !std::mem::replace(&mut reached[vertex as usize], true) {
            let list = &graph.links[vertex as usize * graph.degree..][..graph.degree];
            queue.extend(list.iter().take_while(|link| **link != NONE));
        }
    }
    assert_eq!(reached.iter().filter(|reached| !**reached).count(), 0);
}

fn stored(graph: &Graph) -> Vec<u8> {
    let mut bytes = graph.head();
    graph
        .sections::<()>(|section| {
            bytes.extend_from_slice(section);
            Ok(())
        })
        .expect("memory");
    bytes
}

fn loaded(bytes: &[u8], metric: Metric, rows: &RowsView) -> Result<Graph, LoadError<&'static str>> {
    let (head, mut rest) = bytes.split_at(Graph::HEAD_BYTES);
    Graph::load(head, metric, rows.dimension(), rows.len(), |into| {
        let (next, after) = rest.split_at_checked(into.len()).ok_or("cut off")?;
        into.copy_from_slice(next);
        rest = after;
        Ok(())
    })
}

#[test]
fn a_stored_graph_finds_the_same() {
    for (metric, codes) in METRICS.into_iter().zip([CodeWidth::Four, CodeWidth::Eight, CodeWidth::One]) {
        let rows = clustered(1_500, 70, 9);
        let mut graph =
            build(&rows, metric, &GraphOptions { codes: Some(codes), degree: 16, ..GraphOptions::default() });
        graph.calibrate(kernels(), &rows, 2, &|| false).expect("nobody stops it");
        let bytes = stored(&graph);
        let again = loaded(&bytes, metric, &rows).expect("what was stored");
        assert_eq!(again.calibration(), graph.calibration());
        assert_eq!(stored(&again), bytes);
        for number in 0..50 {
            let row = rows.row(number * 29);
            let query = Query::new(metric, &row, None);
            let found = |graph| found(graph, &rows, &query, (10, 30), Selection::All, |_| true);
            assert_eq!(found(&graph), found(&again));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn damaged_bytes_are_refused_or_searched_without_harm(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
        length in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let rows = clustered(300, 20, 4);
        let graph = build(&rows, Metric::L2, &GraphOptions { degree: 8, ..GraphOptions::default() });
        let mut bytes = stored(&graph);
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(length) = length {
            bytes.truncate(length.index(bytes.len()).max(Graph::HEAD_BYTES));
        }
        if let Ok(graph) = loaded(&bytes, Metric::L2, &rows) {
            let row = rows.row(3);
            let query = Query::new(Metric::L2, &row, None);
            found(&graph, &rows, &query, (10, 30), Selection::All, |_| true);
        }
    }
}

#[test]
fn a_calibrated_width_reaches_the_recall_that_it_promises() {
    for metric in METRICS {
        // Of the same clusters, queries that the graph does not hold.
        let all = clustered(6_000, 24, 17);
        let (mut rows, mut queries) = (Rows::new(24), Vec::new());
        for row in 0..6_000 {
            if row % 20 == 0 { queries.push(all.row(row).to_vec()) } else { _ = rows.push(&all.row(row)) }
        }
        let mut graph = build(&rows, metric, &GraphOptions::default());
        assert_eq!(graph.calibration().width_for(0.9, 10), None, "nothing was measured yet");
        assert!(graph.calibrate(kernels(), &rows, 2, &|| true).is_none(), "stopped");
        graph.calibrate(kernels(), &rows, 2, &|| false).expect("nobody stops it");
        let calibration = graph.calibration();
        assert!((100..=512).contains(&calibration.queries()), "{calibration:?}");
        let mut widths = Vec::new();
        for (target, k) in [(0.8, 10), (0.95, 1), (0.95, 10), (0.95, 30), (0.95, 100), (0.99, 10)] {
            let width = calibration.width_for(target, k).expect("measured");
            let recalls = queries.iter().map(|vector| {
                let query = Query::new(metric, vector, None);
                let found = found(&graph, &rows, &query, (k, width), Selection::All, |_| true);
                recall(&found, &exact(&rows, &query, k, |_| true))
            });
            let mean = recalls.sum::<f64>() / queries.len() as f64;
            // The queries are a sample, too: three times what their mean may be off by.
            assert!(mean >= target - 0.02, "{metric:?}: recall {mean} at {width}, {target} of {k} promised");
            widths.push(width);
        }
        assert!(widths[0] <= widths[2] && widths[2] <= widths[5], "more costs more: {widths:?}");
        assert!(widths[2] <= widths[3] && widths[3] <= widths[4], "so do more hits: {widths:?}");
        assert!(widths[0] < 60, "and nothing is given away: {widths:?}");
    }
}

#[test]
fn vertices_of_a_group_lie_together_and_walks_find_as_much() {
    let (rows, queries) = (everywhere(3_000, 16, 21), everywhere(100, 16, 22));
    let groups: Vec<u32> = (0..rows.len() as u32).map(|row| row * 7 % 40).collect();
    let options = GraphOptions::default();
    let hints = Hints { groups: Some(&groups), ..Hints::default() };
    let grouped = Graph::build_from(kernels(), &rows, Metric::L2, &options, 2, &|| false, &hints);
    let grouped = grouped.expect("nobody stops it");
    let order: Vec<u32> =
        (0..grouped.vertices() as u32).map(|v| groups[grouped.rows.first(v) as usize]).collect();
    assert!(order.is_sorted(), "{order:?}");
    let plain = build(&rows, Metric::L2, &options);
    for width in [16, 64] {
        let [grouped, plain] =
            [&grouped, &plain].map(|graph| mean_recall(graph, &rows, Metric::L2, &queries, width));
        assert!(grouped > plain - 0.01 && plain > 0.7, "width {width}: {grouped}, in its own order {plain}");
    }
}
