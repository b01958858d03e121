//! From a user's string to parts whose numbers are checked.

use super::{Codes, Core, Scalar, Transform};
use crate::Metric;

/// What a factory string can be made of, for messages.
const ALLOWED: &str = "allowed are OPQ<blocks>[_<dimension>], PCA<dimension>, PCAR<dimension> and RR[<dimension>] in front; then \
     Flat, SQ4, SQ6, SQ8, SQfp16, SQbf16, PQ<blocks>[x<bits>], PQ<blocks>x4fs or RaBitQ, alone or behind HNSW<links> or \
     IVF<lists>[_HNSW<links>]; and RFlat at the end";
/// Bytes of a string.
const LENGTH_MAX: usize = 128;
/// Values of a row that a transform takes: its matrix has the square of them.
const TRANSFORMED_MAX: usize = 4_096;
/// Transforms in a row.
const TRANSFORMS_MAX: usize = 3;
/// Bytes of the tables of a product quantiser: an index that nobody has filled takes them already.
const TABLE_BYTES_MAX: usize = 64 << 20;
const LINKS: std::ops::RangeInclusive<usize> = 4..=128;
const LISTS: std::ops::RangeInclusive<usize> = 1..=1 << 20;
const PRODUCT_BITS: std::ops::RangeInclusive<usize> = 4..=12;
/// The graph over product codes keeps the distances of all pairs of centroids.
const PRODUCT_BITS_IN_GRAPH: std::ops::RangeInclusive<usize> = 4..=8;

pub(super) fn parse(text: &str, dimension: usize, metric: Metric) -> Result<(Vec<Transform>, Core), String> {
    if text.len() > LENGTH_MAX {
        return Err(format!("it has more than {LENGTH_MAX} bytes"));
    }
    let mut parts: Vec<&str> = text.split(',').collect();
    let mut dimension = dimension;
    let mut transforms = Vec::new();
    while let Some(transform) = parts.first().map_or(Ok(None), |part| transform(part, dimension))? {
        dimension = transform.dimension();
        transforms.push(transform);
        parts.remove(0);
    }
    if transforms.len() > TRANSFORMS_MAX {
        return Err(format!("it has more than {TRANSFORMS_MAX} transforms"));
    }
    // Candidates are always scored anew from the rows, which is what this asks for.
    if parts.len() > 1 && parts.last() == Some(&"RFlat") {
        parts.pop();
    }
    Ok((transforms, core(&parts, dimension, metric)?))
}

/// None when the part is no transform.
fn transform(part: &str, dimension: usize) -> Result<Option<Transform>, String> {
    let transform = if let Some(rest) = part.strip_prefix("OPQ") {
        let (blocks, target) = rest.split_once('_').map_or((rest, None), |(blocks, to)| (blocks, Some(to)));
        let target = target.map_or(Ok(dimension), |target| number(part, target, 1..=dimension))?;
        let blocks = blocks_of(part, blocks, target)?;
        Transform::Opq { blocks, dimension: target }
    } else if let Some(rest) = part.strip_prefix("PCAR") {
        Transform::Pca { rotated: true, dimension: number(part, rest, 1..=dimension)? }
    } else if let Some(rest) = part.strip_prefix("PCA").filter(|rest| !rest.starts_with('W')) {
        Transform::Pca { rotated: false, dimension: number(part, rest, 1..=dimension)? }
    } else if let Some(rest) = part.strip_prefix("RR") {
        let target = if rest.is_empty() { dimension } else { number(part, rest, 1..=dimension)? };
        Transform::Rotation { dimension: target }
    } else {
        return Ok(None);
    };
    if dimension > TRANSFORMED_MAX {
        return Err(format!("{part} is for rows of at most {TRANSFORMED_MAX} values, not {dimension}"));
    }
    Ok(Some(transform))
}

fn core(parts: &[&str], dimension: usize, metric: Metric) -> Result<Core, String> {
    match parts {
        [graph] if graph.starts_with("HNSW") => {
            let (graph, stored) = graph.split_once('_').unwrap_or((graph, "Flat"));
            self::graph(graph, stored, dimension, metric)
        }
        [graph, stored] if graph.starts_with("HNSW") => self::graph(graph, stored, dimension, metric),
        [lists, stored] if lists.starts_with("IVF") => self::lists(lists, stored, dimension),
        [stored] => match codes(stored, dimension, PRODUCT_BITS)? {
            Some(codes) => Ok(Core::Scan(codes)),
            None => Err(format!("{stored:?} is unknown; {ALLOWED}")),
        },
        [first, ..] => Err(format!("{first:?} is not followed by what it needs; {ALLOWED}")),
        [] => Err(format!("an index is missing; {ALLOWED}")),
    }
}

fn graph(graph: &str, stored: &str, dimension: usize, metric: Metric) -> Result<Core, String> {
    let links = graph_links(graph, graph)?;
    match codes(stored, dimension, PRODUCT_BITS_IN_GRAPH)? {
        Some(Codes::Product { .. }) if metric == Metric::Dot => {
            Err(format!("{graph},{stored} compares by distance only, not by dot product"))
        }
        Some(codes @ (Codes::Flat | Codes::Scalar(_) | Codes::Product { .. })) => {
            fits(stored, &codes, Codes::pair_bytes)?;
            Ok(Core::Hnsw { links, codes })
        }
        Some(Codes::FastScan { .. } | Codes::RaBit) => {
            Err(format!("{stored} cannot be behind {graph}: a graph needs Flat, an SQ or a PQ"))
        }
        None => Err(format!("{stored:?} is unknown; {ALLOWED}")),
    }
}

fn lists(lists: &str, stored: &str, dimension: usize) -> Result<Core, String> {
    let (head, graph) = lists.split_once('_').map_or((lists, None), |(lists, graph)| (lists, Some(graph)));
    let links = graph.map(|graph| graph_links(lists, graph)).transpose()?;
    let count = head.strip_prefix("IVF").unwrap_or_default();
    let (digits, unit) = match count.strip_suffix('k') {
        Some(digits) => (digits, 1 << 10),
        None => count.strip_suffix('M').map_or((count, 1), |digits| (digits, 1 << 20)),
    };
    let count = number(lists, digits, 1..=*LISTS.end() / unit)? * unit;
    match codes(stored, dimension, PRODUCT_BITS)? {
        Some(codes) => Ok(Core::Ivf { lists: count, links, codes }),
        None => Err(format!("{stored:?} is unknown; {ALLOWED}")),
    }
}

/// Links of `HNSW<links>`, of which FAISS makes 32 when none are given.
fn graph_links(part: &str, graph: &str) -> Result<usize, String> {
    match graph.strip_prefix("HNSW") {
        Some("") => Ok(32),
        Some(links) => number(part, links, LINKS),
        None => Err(format!("{part:?} is unknown; {ALLOWED}")),
    }
}

/// None when the part is unknown.
fn codes(
    part: &str,
    dimension: usize,
    product_bits: std::ops::RangeInclusive<usize>,
) -> Result<Option<Codes>, String> {
    if let Some(scalar) = Scalar::ALL.into_iter().find(|scalar| scalar.name() == part) {
        return Ok(Some(Codes::Scalar(scalar)));
    }
    match part {
        "Flat" => return Ok(Some(Codes::Flat)),
        "RaBitQ" => return Ok(Some(Codes::RaBit)),
        _ => {}
    }
    let Some(rest) = part.strip_prefix("PQ") else { return Ok(None) };
    if rest.ends_with("fsr") {
        // With another number of lists than the index's own, FAISS 1.12 reads beyond its tables
        // (`IndexIVFPQFastScan::compute_LUT` takes the number of the index).
        return Err(format!("{part}: residuals cannot be scanned with look-up tables; use PQ<blocks>x4fs"));
    }
    if let Some(blocks) = rest.strip_suffix("x4fs") {
        return blocks_of(part, blocks, dimension).map(|blocks| Some(Codes::FastScan { blocks }));
    }
    let rest = rest.strip_suffix("np").unwrap_or(rest);
    let (blocks, bits) = rest.split_once('x').map_or((rest, None), |(blocks, bits)| (blocks, Some(bits)));
    let blocks = blocks_of(part, blocks, dimension)?;
    let bits = bits.map_or(Ok(8), |bits| number(part, bits, product_bits))?;
    let codes = Codes::Product { blocks, bits };
    fits(part, &codes, |codes| codes.table_bytes(dimension))?;
    Ok(Some(codes))
}

fn fits(part: &str, codes: &Codes, bytes: impl Fn(&Codes) -> usize) -> Result<(), String> {
    let (mebibytes, allowed) = (bytes(codes) >> 20, TABLE_BYTES_MAX >> 20);
    if bytes(codes) <= TABLE_BYTES_MAX {
        return Ok(());
    }
    Err(format!(
        "the tables of {part} would take {mebibytes} MiB, more than {allowed}; use fewer blocks or bits"
    ))
}

/// Blocks of a row, which all have the same size.
fn blocks_of(part: &str, blocks: &str, dimension: usize) -> Result<usize, String> {
    let blocks = number(part, blocks, 1..=dimension)?;
    divides(part, blocks, dimension)?;
    Ok(blocks)
}

fn divides(part: &str, blocks: usize, dimension: usize) -> Result<(), String> {
    if dimension.is_multiple_of(blocks) {
        return Ok(());
    }
    Err(format!("{part} needs blocks of equal size, and {dimension} values are no multiple of {blocks}"))
}

fn number(part: &str, digits: &str, allowed: std::ops::RangeInclusive<usize>) -> Result<usize, String> {
    // Seven digits are more than any limit has.
    let number = (1..=7)
        .contains(&digits.len())
        .then(|| digits.bytes().all(|byte| byte.is_ascii_digit()))
        .filter(|digits_only| *digits_only)
        .and_then(|_| digits.parse().ok());
    match number {
        Some(number) if allowed.contains(&number) => Ok(number),
        _ => Err(format!(
            "{part:?} has {digits:?} where a number from {} to {} belongs",
            allowed.start(),
            allowed.end()
        )),
    }
}
