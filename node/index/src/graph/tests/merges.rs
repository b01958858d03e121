//! Graphs that are built from an earlier one: what stays, what is repaired, and what a search then finds.

use super::*;

/// The numbers below `count` that `stays` is true of, as rows, and which of the pool they are.
fn part_of(pool: &RowsView, stays: impl Fn(u32) -> bool) -> (Rows, Vec<u32>) {
    let members: Vec<u32> = (0..pool.len() as u32).filter(|number| stays(*number)).collect();
    let mut rows = Rows::new(pool.dimension());
    members.iter().for_each(|member| _ = rows.push(&pool.row(*member)));
    (rows, members)
}

fn moved(from: &[u32], to: &[u32]) -> Vec<u32> {
    from.iter().map(|member| to.binary_search(member).map_or(GONE, |row| row as u32)).collect()
}

#[test]
fn ten_merges_leave_a_graph_that_finds_as_much_as_a_new_one() {
    // Of six parts of a pool five are rows; in each merge one goes and the one that went before comes back: numbers that
    // leave the same remainder, or what lies in the same slice of space.
    for (metric, dimension, by_place, codes) in [
        (Metric::L2, 16, true, CodeWidth::Eight),
        (Metric::Cosine, 32, false, CodeWidth::Four),
        (Metric::Dot, 24, true, CodeWidth::Eight),
    ] {
        let (pool, queries) = (everywhere(3_000, dimension, 11), everywhere(200, dimension, 12));
        let part = |number: u32| match by_place {
            true => (pool.row(number)[0] * 3.0 + 3.0) as u32,
            false => number % 6,
        };
        let options = GraphOptions { codes: Some(codes), ..GraphOptions::default() };
        let (mut rows, mut members) = part_of(&pool, |number| part(number) != 0);
        let mut graph = build(&rows, metric, &options);
        assert_eq!(graph.taken_over(), 0);
        for merge in 1..=10 {
            let (next, next_members) = part_of(&pool, |number| part(number) != merge % 6);
            let moved = moved(&members, &next_members);
            let hints = Hints { earlier: Some(Earlier { graph: &graph, moved: &moved }), ..Hints::default() };
            let merged = Graph::build_from(kernels(), &next, metric, &options, 2, &|| false, &hints);
            (graph, rows, members) = (merged.expect("nobody stops it"), next, next_members);
            let taken = graph.taken_over();
            assert!(taken * 4 >= graph.vertices() && taken < graph.vertices(), "{taken} vertices stay");
        }
        let anew = build(&rows, metric, &options);
        assert_eq!(graph.vertices(), anew.vertices());
        for width in [16, 32] {
            let [merged, anew] =
                [&graph, &anew].map(|graph| mean_recall(graph, &rows, metric, &queries, width));
            let message = format!("{metric:?}, width {width}: {merged}, anew {anew}");
            assert!(anew < 0.999, "too easy to tell: {message}");
            assert!(merged > anew - 0.01 && merged > 0.7, "{message}");
        }
    }
}

#[test]
fn codes_of_what_stays_are_those_that_were_there() {
    for (metric, codes) in METRICS.into_iter().zip([CodeWidth::One, CodeWidth::Eight, CodeWidth::Four]) {
        let pool = clustered(2_000, 70, 5);
        let options = GraphOptions { codes: Some(codes), ..GraphOptions::default() };
        let (rows, members) = part_of(&pool, |number| number % 7 != 0);
        let (next, next_members) = part_of(&pool, |number| number % 7 != 1);
        let graph = build(&rows, metric, &options);
        let moved = moved(&members, &next_members);
        let hints = Hints { earlier: Some(Earlier { graph: &graph, moved: &moved }), ..Hints::default() };
        let merged = Graph::build_from(kernels(), &next, metric, &options, 2, &|| false, &hints);
        let (merged, anew) = (merged.expect("nobody stops it"), build(&next, metric, &options));
        assert!(merged.taken_over() > 1_000);
        for row in 0..next.len() as u32 {
            let of = |graph: &Graph| {
                let (codes, factors) = graph.table.of(graph.rows.vertex(row));
                (codes.to_vec(), factors)
            };
            let ((codes, factors), (codes_anew, factors_anew)) = (of(&merged), of(&anew));
            assert_eq!(factors, factors_anew, "row {row}");
            assert!(bytemuck::cast_slice::<_, u8>(&codes) == bytemuck::cast_slice::<_, u8>(&codes_anew));
        }
        let near = |a: f32, b: f32| (a - b).abs() <= b * 0.05;
        assert!(near(merged.table.error, anew.table.error) && near(merged.table.length, anew.table.length));
    }
}

#[test]
fn a_graph_of_which_little_stays_or_that_is_of_another_kind_is_not_used() {
    let pool = clustered(1_200, 20, 9);
    let options = GraphOptions { degree: 16, width: 40, ..GraphOptions::default() };
    let (rows, members) = part_of(&pool, |number| number < 600);
    let graph = build(&rows, Metric::L2, &options);
    let taken = |stays: &dyn Fn(u32) -> bool, metric, options: &GraphOptions| {
        let (next, next_members) = part_of(&pool, stays);
        let moved = moved(&members, &next_members);
        let hints = Hints { earlier: Some(Earlier { graph: &graph, moved: &moved }), ..Hints::default() };
        let graph = Graph::build_from(kernels(), &next, metric, options, 2, &|| false, &hints);
        let graph = graph.expect("nobody stops it");
        assert!(mean_recall(&graph, &next, metric, &next, 40) > 0.9);
        graph.taken_over()
    };
    assert_eq!(taken(&|number| number < 600, Metric::L2, &options), graph.vertices(), "all stay");
    assert!(taken(&|number| number >= 250, Metric::L2, &options) > 300, "more than half stay");
    assert_eq!(taken(&|number| number >= 350, Metric::L2, &options), 0, "less than half stay");
    assert_eq!(taken(&|number| number < 600, Metric::Cosine, &options), 0);
    for other in [
        GraphOptions { degree: 12, ..options },
        GraphOptions { seed: 1, ..options },
        GraphOptions { codes: Some(CodeWidth::Four), ..options },
    ] {
        assert_eq!(taken(&|number| number < 600, Metric::L2, &other), 0, "{other:?}");
    }
    let none = vec![GONE; rows.len()];
    let hints = Hints { earlier: Some(Earlier { graph: &graph, moved: &none }), ..Hints::default() };
    let stopped = Graph::build_from(kernels(), &rows, Metric::L2, &options, 2, &|| true, &hints);
    assert!(stopped.is_none());
}

#[test]
fn links_of_what_stays_are_repaired_alike_on_any_number_of_threads() {
    // Only rows go, so nothing is inserted by a walk that may meet others on their way.
    let pool = clustered(3_000, 32, 4);
    let options = GraphOptions::default();
    let (rows, members) = part_of(&pool, |_| true);
    let graph = build(&rows, Metric::L2, &options);
    let (next, next_members) = part_of(&pool, |number| number % 5 != 2);
    let moved = moved(&members, &next_members);
    let hints = Hints { earlier: Some(Earlier { graph: &graph, moved: &moved }), ..Hints::default() };
    let [one, two, three] = [1, 2, 3].map(|threads| {
        Graph::build_from(kernels(), &next, Metric::L2, &options, threads, &|| false, &hints)
            .expect("nobody stops it")
    });
    assert_eq!(one.taken_over(), one.vertices());
    assert!(one.links[..] == two.links[..] && one.links[..] == three.links[..]);
}
