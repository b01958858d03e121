//! A set and its truth on disk, so that engines in other languages read the same bytes.
//!
//! All numbers are little-endian. `base.fbin` and `queries.fbin`: rows and dimension as u32, then f32 row by row.
//! `truth[-FILTER].bin`: queries and neighbours a query as u32, then the row numbers as u32, then their exact scores as
//! f64. `mask-FILTER.bin`: bitmaps (one for all queries or one each) and rows as u32, then the bitmaps, each in whole
//! bytes, the lowest bit first.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use vectorsphere_index::{Kernels, Metric, Ranked, Rows};

use crate::sets::{Kind, SEED, Set, VERSION};
use crate::truth::{DEPTH, Mask, neighbours};

/// Exact neighbours: for each query their row numbers and scores, best first.
#[derive(Default)]
pub(crate) struct Truth {
    pub(crate) scores: Vec<Vec<f64>>,
}

/// Writes the set's folder under `root` unless it is there, and returns it.
pub(crate) fn prepare(kind: Kind, quick: bool, data: &Path, root: &Path) -> Result<PathBuf> {
    let folder = root.join(format!("{}-{}-s{SEED}-v{VERSION}", kind.name(), kind.rows(quick)));
    if folder.is_dir() {
        return Ok(folder);
    }
    let unfinished = folder.with_extension("unfinished");
    std::fs::create_dir_all(&unfinished)
        .with_context(|| format!("cannot create the folder {}", unfinished.display()))?;
    let set = kind.load(quick, data)?;
    let kernels = Kernels::detect(None)?;
    write_rows(&unfinished.join("base.fbin"), &set.base)?;
    write_rows(&unfinished.join("queries.fbin"), &set.queries)?;
    write_truth(&unfinished.join("truth.bin"), &neighbours(kernels, &set, None))?;
    if kind == Kind::Debian {
        write_filters(&unfinished, kernels, &set)?;
    }
    std::fs::rename(&unfinished, &folder)
        .with_context(|| format!("cannot rename {} to {}", unfinished.display(), folder.display()))?;
    Ok(folder)
}

fn write_filters(folder: &Path, kernels: Kernels, set: &Set) -> Result<()> {
    let rows = set.base.len();
    for mask in [Mask::random(rows, 1), Mask::random(rows, 10), Mask::random(rows, 50), Mask::far(set)] {
        write_mask(&folder.join(format!("mask-{}.bin", mask.name)), &mask)?;
        let best = neighbours(kernels, set, Some(&mask));
        write_truth(&folder.join(format!("truth-{}.bin", mask.name)), &best)?;
    }
    Ok(())
}

/// Reads what [`prepare`] wrote, the truth being that of `filter` where there is one.
pub(crate) fn read(
    folder: &Path,
    metric: Metric,
    filter: Option<&str>,
) -> Result<(Set, Truth, Option<Mask>)> {
    let base = read_rows(&folder.join("base.fbin"))?;
    let queries = read_rows(&folder.join("queries.fbin"))?;
    let suffix = filter.map(|name| format!("-{name}")).unwrap_or_default();
    let truth = read_truth(&folder.join(format!("truth{suffix}.bin")))?;
    let mask = filter.map(|name| read_mask(&folder.join(format!("mask-{name}.bin")), name)).transpose()?;
    Ok((Set { metric, base, queries }, truth, mask))
}

fn write_rows(path: &Path, rows: &Rows) -> Result<()> {
    write(path, [rows.len() as u32, rows.dimension() as u32], |file| {
        (0..rows.len() as u32).try_for_each(|row| file.write_all(bytemuck::cast_slice(&rows.row(row))))
    })
}

fn read_rows(path: &Path) -> Result<Rows> {
    let ([count, dimension], mut file) = open(path)?;
    let mut rows = Rows::new(dimension as usize);
    let mut row = vec![0.0f32; dimension as usize];
    for _ in 0..count {
        file.read_exact(bytemuck::cast_slice_mut(&mut row))
            .with_context(|| format!("{} ends early", path.display()))?;
        rows.push(&row);
    }
    Ok(rows)
}

/// Queries with fewer matches than `DEPTH` are filled up with a row number and a score that nothing has.
fn write_truth(path: &Path, best: &[Vec<Ranked<u32>>]) -> Result<()> {
    let filled = |query: &[Ranked<u32>]| -> (Vec<u32>, Vec<f64>) {
        let ranked = (0..DEPTH).map(|rank| query.get(rank));
        ranked.map(|hit| hit.map_or((u32::MAX, f64::NAN), |hit| (hit.key, hit.score))).unzip()
    };
    write(path, [best.len() as u32, DEPTH as u32], |file| {
        best.iter().try_for_each(|query| file.write_all(bytemuck::cast_slice(&filled(query).0)))?;
        best.iter().try_for_each(|query| file.write_all(bytemuck::cast_slice(&filled(query).1)))
    })
}

fn read_truth(path: &Path) -> Result<Truth> {
    let ([queries, depth], mut file) = open(path)?;
    let mut ids = vec![0u32; queries as usize * depth as usize];
    let mut scores = vec![0f64; ids.len()];
    file.read_exact(bytemuck::cast_slice_mut(&mut ids))
        .and_then(|()| file.read_exact(bytemuck::cast_slice_mut(&mut scores)))
        .with_context(|| format!("{} ends early", path.display()))?;
    let known = |query: &[f64]| query.iter().copied().filter(|score| !score.is_nan()).collect();
    Ok(Truth { scores: scores.chunks_exact(depth as usize).map(known).collect() })
}

fn write_mask(path: &Path, mask: &Mask) -> Result<()> {
    write(path, [mask.bitmaps.len() as u32, mask.rows as u32], |file| {
        mask.bitmaps.iter().try_for_each(|bitmap| file.write_all(bitmap))
    })
}

fn read_mask(path: &Path, name: &str) -> Result<Mask> {
    let ([count, rows], mut file) = open(path)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).with_context(|| format!("cannot read {}", path.display()))?;
    let bitmaps: Vec<Vec<u8>> = bytes.chunks_exact((rows as usize).div_ceil(8)).map(<[u8]>::to_vec).collect();
    ensure!(bitmaps.len() == count as usize, "{} holds {} bitmaps of {count}", path.display(), bitmaps.len());
    Ok(Mask { name: name.to_owned(), rows: rows as usize, bitmaps })
}

fn write(
    path: &Path,
    header: [u32; 2],
    body: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>,
) -> Result<()> {
    let written = File::create(path).map(BufWriter::new).and_then(|mut file| {
        file.write_all(bytemuck::cast_slice(&header))?;
        body(&mut file)?;
        file.flush()
    });
    written.with_context(|| format!("cannot write {}", path.display()))
}

fn open(path: &Path) -> Result<([u32; 2], BufReader<File>)> {
    let mut header = [0u32; 2];
    let mut file =
        File::open(path).map(BufReader::new).with_context(|| format!("cannot open {}", path.display()))?;
    file.read_exact(bytemuck::bytes_of_mut(&mut header))
        .with_context(|| format!("{} has no header", path.display()))?;
    Ok((header, file))
}
