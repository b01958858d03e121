//! Quick look at the graph on the Debian set or a clustered set: recall and queries a second by width.
#![allow(clippy::print_stdout, clippy::unwrap_used, missing_docs)]
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::time::Instant;
use vectorsphere_index::*;

fn debian() -> (Rows, Vec<Vec<f32>>, Metric) {
    let path = std::env::var("DATA").unwrap_or("/work/shared/data/debian/debian-minilm-f16.npy".into());
    let bytes = std::fs::read(path).unwrap();
    let start = 10 + u16::from_le_bytes([bytes[8], bytes[9]]) as usize;
    let mut rows = Rows::new(384);
    let mut queries = Vec::new();
    for (i, row) in bytes[start..].chunks_exact(768).enumerate() {
        let v: Vec<f32> = row.chunks_exact(2).map(|b| f16(u16::from_le_bytes([b[0], b[1]]))).collect();
        let n = (v.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>()).sqrt();
        let v: Vec<f32> = v.iter().map(|x| (f64::from(*x) / n) as f32).collect();
        if i < 62_666 {
            rows.push(&v);
        } else {
            queries.push(v)
        }
    }
    (rows, queries, Metric::Cosine)
}
fn f16(h: u16) -> f32 {
    let (s, e, m) = (h >> 15, (h >> 10) & 31, h & 1023);
    let v = if e == 0 {
        f32::from(m) * 2f32.powi(-24)
    } else {
        (1.0 + f32::from(m) / 1024.0) * 2f32.powi(i32::from(e) - 15)
    };
    if s == 1 { -v } else { v }
}
fn normal(r: &mut ChaCha8Rng) -> f32 {
    let (a, b): (f32, f32) = (r.random_range(1e-7..1.0), r.random_range(0.0..1.0));
    (-2.0 * a.ln()).sqrt() * (std::f32::consts::TAU * b).cos()
}
fn clustered(n: usize, d: usize) -> (Rows, Vec<Vec<f32>>, Metric) {
    let mut r = ChaCha8Rng::seed_from_u64(7);
    let centres: Vec<Vec<f32>> = (0..2000).map(|_| (0..d).map(|_| normal(&mut r)).collect()).collect();
    let mut point = |r: &mut ChaCha8Rng| -> Vec<f32> {
        let c = &centres[r.random_range(0..centres.len())];
        let s = 0.5;
        c.iter().map(|x| x + s * normal(r)).collect()
    };
    let mut rows = Rows::new(d);
    for _ in 0..n {
        let p = point(&mut r);
        rows.push(&p);
    }
    let q = (0..1000).map(|_| point(&mut r)).collect();
    (rows, q, Metric::L2)
}
fn main() {
    if !std::env::args().any(|a| a == "--bench") {
        return;
    }
    let e = |k: &str, d: f64| std::env::var(k).ok().and_then(|v| v.parse().ok()).unwrap_or(d);
    let (rows, queries, metric) = match std::env::var("SET").as_deref() {
        Ok("clustered") => clustered(e("N", 1e6) as usize, 128),
        _ => debian(),
    };
    let kernels = Kernels::detect(std::env::var("TIER").ok().as_deref()).unwrap();
    let threads = e("THREADS", 2.0) as usize;
    let options = GraphOptions {
        degree: e("R", 32.0) as usize,
        width: e("L", 128.0) as usize,
        alpha: e("A", 1.2) as f32,
        codes: if e("BITS", 4.0) == 4.0 { CodeWidth::Four } else { CodeWidth::Eight },
        seed: 1,
    };
    let t = Instant::now();
    let graph = Graph::build(kernels, &rows, metric, &options, threads, &|| false).unwrap();
    println!(
        "{} {options:?} build {:.2} s, mean degree {:.1}, bytes/row {:.0} of {}",
        kernels.name(),
        t.elapsed().as_secs_f64(),
        graph.mean_degree(),
        graph.bytes() as f64 / rows.len() as f64,
        4 * rows.dimension()
    );
    let percent = e("PERCENT", 100.0) as u32;
    let mask = RowMask::of(rows.len() as u32, |r| (r.wrapping_mul(2654435761) >> 8) % 100 < percent);
    let sel = if percent == 100 { Selection::All } else { Selection::Mask(&mask) };
    let t = Instant::now();
    let truth: Vec<f64> = queries
        .iter()
        .map(|q| {
            let mut top = TopK::new(metric, 10);
            scan(
                kernels,
                &rows,
                0..rows.len() as u32,
                &Query::new(metric, q, None),
                |r| mask.contains(r),
                |r| r,
                &mut top,
            );
            top.into_sorted().last().unwrap().score
        })
        .collect();
    println!("scan {:.0} QPS", queries.len() as f64 / t.elapsed().as_secs_f64());
    let seconds = e("SECONDS", 1.0);
    let entries: Vec<usize> =
        std::env::var("E").unwrap_or("1,4".into()).split(',').map(|x| x.parse().unwrap()).collect();
    let widths: Vec<usize> = std::env::var("W")
        .unwrap_or("12,16,20,24,32,40,56,80,120,160".into())
        .split(',')
        .map(|x| x.parse().unwrap())
        .collect();
    let mut scratch = Scratch::default();
    for e in entries {
        for w in &widths {
            let (mut hits, mut hops, mut vertices, mut scored) = (0, 0, 0, 0);
            for (q, t) in queries.iter().zip(&truth) {
                let mut top = TopK::new(metric, 10);
                let x = graph.search(
                    kernels,
                    &rows,
                    &Query::new(metric, q, None),
                    (*w, e),
                    sel,
                    |_| true,
                    |r| r,
                    &mut top,
                    &mut scratch,
                );
                hops += x.hops;
                vertices += x.vertices;
                scored += x.rows;
                let sign = if metric.higher_is_better() { 1.0 } else { -1.0 };
                hits += top.into_sorted().iter().filter(|h| sign * h.score >= sign * t - 1e-6).count();
            }
            let cpu = || {
                nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID
                    .now()
                    .map(|t| t.tv_sec() as f64 + t.tv_nsec() as f64 * 1e-9)
                    .unwrap()
            };
            let t = cpu();
            let mut n = 0;
            while cpu() - t < seconds {
                for q in queries.iter() {
                    let mut top = TopK::new(metric, 10);
                    graph.search(
                        kernels,
                        &rows,
                        &Query::new(metric, q, None),
                        (*w, e),
                        sel,
                        |_| true,
                        |r| r,
                        &mut top,
                        &mut scratch,
                    );
                    std::hint::black_box(top.into_sorted());
                }
                n += queries.len();
            }
            let us = (cpu() - t) / n as f64 * 1e6;
            let m = queries.len() as f64;
            println!(
                "E {e} W {w:4} recall {:.4} {:8.0} QPS {us:6.1} us hops {:5.1} vertices {:6.0} scored {:.1}",
                hits as f64 / m / 10.0,
                1e6 / us,
                hops as f64 / m,
                vertices as f64 / m,
                scored as f64 / m
            );
        }
    }
}
