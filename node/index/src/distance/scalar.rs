//! The kernels in plain Rust: what the others mean, and what runs where they cannot.

const LANES: usize = 8;

/// See [`super::Kernels::dots`].
pub(super) fn dots(query: &[f32], rows: &[f32], out: &mut [f32]) {
    each_row(query, rows, out, |a, b| a * b);
}

/// See [`super::Kernels::squared_distances`].
pub(super) fn squared_distances(query: &[f32], rows: &[f32], out: &mut [f32]) {
    each_row(query, rows, out, |a, b| (a - b) * (a - b));
}

#[inline(always)]
fn each_row(query: &[f32], rows: &[f32], out: &mut [f32], term: impl Fn(f32, f32) -> f32) {
    for (row, estimate) in rows.chunks_exact(query.len()).zip(out) {
        let mut sums = [0.0; LANES];
        let (a_blocks, a_rest) = query.as_chunks::<LANES>();
        let (b_blocks, b_rest) = row.as_chunks::<LANES>();
        for (a, b) in a_blocks.iter().zip(b_blocks) {
            for lane in 0..LANES {
                sums[lane] += term(a[lane], b[lane]);
            }
        }
        let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| term(*a, *b)).sum();
        *estimate = sums.iter().sum::<f32>() + rest;
    }
}
