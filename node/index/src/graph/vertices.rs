//! Which rows have the vector of a vertex.

use xxhash_rust::xxh3::xxh3_64;

use crate::RowsView;
use crate::memory::HugeSlice;

/// Set when an entry names a group of rows, not a row.
const GROUP: u32 = 1 << 31;

/// Rows of vertices. Nearly all have one; those of the others lie in groups.
#[derive(Debug)]
pub(super) struct VertexRows {
    entries: HugeSlice<u32>,
    groups: Vec<Vec<u32>>,
    /// The vertex of each row.
    vertices: HugeSlice<u32>,
}

impl VertexRows {
    /// One vertex for each distinct vector of `rows`.
    pub(super) fn of(rows: &RowsView) -> VertexRows {
        let mut hashes: Vec<(u64, u32)> = (0..rows.len() as u32)
            .map(|row| (xxh3_64(bytemuck::cast_slice(rows.lines_of(row))), row))
            .collect();
        hashes.sort_unstable();
        let mut vertices: Vec<Vec<u32>> = Vec::new();
        let mut singles = Vec::with_capacity(rows.len());
        for same_hash in hashes.chunk_by(|a, b| a.0 == b.0) {
            if let [(_, row)] = same_hash {
                singles.push(*row);
                continue;
            }
            let first = vertices.len();
            for (_, row) in same_hash {
                let same = |other: &&mut Vec<u32>| bits(rows, other[0]) == bits(rows, *row);
                match vertices[first..].iter_mut().find(same) {
                    Some(vertex) => vertex.push(*row),
                    None => vertices.push(vec![*row]),
                }
            }
        }
        vertices.extend(singles.into_iter().map(|row| vec![row]));
        // In the order of rows, which may group what is alike.
        vertices.sort_unstable_by_key(|rows| rows[0]);
        VertexRows::from_lists(vertices, rows.len())
    }

    fn from_lists(lists: Vec<Vec<u32>>, rows: usize) -> VertexRows {
        let mut entries = HugeSlice::zeroed(lists.len());
        let mut groups = Vec::new();
        for (entry, rows) in entries.iter_mut().zip(lists) {
            if let [row] = rows[..] {
                *entry = row;
            } else {
                *entry = GROUP | groups.len() as u32;
                groups.push(rows);
            }
        }
        VertexRows::new(entries, groups, rows)
    }

    fn new(entries: HugeSlice<u32>, groups: Vec<Vec<u32>>, rows: usize) -> VertexRows {
        let mut vertex_rows = VertexRows { entries, groups, vertices: HugeSlice::zeroed(0) };
        let mut vertices = HugeSlice::zeroed(rows);
        for vertex in 0..vertex_rows.len() as u32 {
            for row in vertex_rows.rows(vertex) {
                vertices[*row as usize] = vertex;
            }
        }
        vertex_rows.vertices = vertices;
        vertex_rows
    }

    /// The same with vertex i being `order[i]` of these.
    pub(super) fn reordered(self, order: &[u32]) -> VertexRows {
        let mut entries = HugeSlice::zeroed(order.len());
        for (entry, vertex) in entries.iter_mut().zip(order) {
            *entry = self.entries[*vertex as usize];
        }
        VertexRows::new(entries, self.groups, self.vertices.len())
    }

    /// Number of vertices.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Number of rows.
    pub(super) fn row_count(&self) -> usize {
        self.vertices.len()
    }

    /// The vertex of a row.
    #[inline(always)]
    pub(super) fn vertex(&self, row: u32) -> u32 {
        self.vertices[row as usize]
    }

    /// Rows of a vertex, ascending, one at least.
    #[inline(always)]
    pub(super) fn rows(&self, vertex: u32) -> &[u32] {
        let entry = &self.entries[vertex as usize];
        if *entry & GROUP == 0 {
            std::slice::from_ref(entry)
        } else {
            &self.groups[(*entry & !GROUP) as usize]
        }
    }

    /// The first row of a vertex.
    #[inline(always)]
    pub(super) fn first(&self, vertex: u32) -> u32 {
        self.rows(vertex)[0]
    }

    /// Bytes in memory.
    pub(super) fn bytes(&self) -> usize {
        let rows: usize = self.groups.iter().map(|rows| size_of_val(rows) + rows.capacity() * 4).sum();
        self.entries.bytes() + self.vertices.bytes() + rows
    }
}

impl VertexRows {
    /// Numbers that say which rows a vertex has.
    pub(super) fn entries(&self) -> &[u32] {
        &self.entries
    }

    /// The groups, one after the other: how many rows, then those.
    pub(super) fn flat_groups(&self) -> Vec<u32> {
        self.groups
            .iter()
            .flat_map(|rows| std::iter::once(rows.len() as u32).chain(rows.iter().copied()))
            .collect()
    }

    /// From what was stored, of `rows` rows. `None` unless each row has one vertex and each vertex a row.
    pub(super) fn from_stored(entries: HugeSlice<u32>, flat: &[u32], rows: usize) -> Option<VertexRows> {
        let mut groups = Vec::new();
        let mut rest = flat;
        while let Some((len, tail)) = rest.split_first() {
            let group = tail.get(..*len as usize).filter(|group| group.len() > 1)?;
            groups.push(group.to_vec());
            rest = &tail[*len as usize..];
        }
        let mut seen = vec![false; rows];
        let mut mark = |row: u32| {
            let seen = seen.get_mut(row as usize)?;
            (!std::mem::replace(seen, true)).then_some(())
        };
        let mut seen_groups = vec![false; groups.len()];
        for entry in &*entries {
            if entry & GROUP == 0 {
                mark(*entry)?;
                continue;
            }
            let index = (entry & !GROUP) as usize;
            if std::mem::replace(seen_groups.get_mut(index)?, true) {
                return None;
            }
            groups[index].iter().try_for_each(|row| mark(*row))?;
        }
        seen.into_iter().all(|seen| seen).then(|| VertexRows::new(entries, groups, rows))
    }
}

/// Zeros of both signs are two vectors: they read back as they were written.
fn bits(rows: &RowsView, row: u32) -> &[u32] {
    bytemuck::cast_slice(rows.lines_of(row))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rows;

    #[test]
    fn identical_vectors_share_a_vertex() {
        let mut rows = Rows::new(2);
        for row in
            [[1.0, 2.0], [3.0, 4.0], [1.0, 2.0], [5.0, 6.0], [1.0, 2.0], [3.0, 4.0], [0.0, -0.0], [0.0, 0.0]]
        {
            rows.push(&row);
        }
        let vertices = VertexRows::of(&rows);
        let lists: Vec<&[u32]> = (0..vertices.len() as u32).map(|vertex| vertices.rows(vertex)).collect();
        assert_eq!(lists, [&[0, 2, 4][..], &[1, 5], &[3], &[6], &[7]]);
        let reordered = VertexRows::of(&rows).reordered(&[2, 0, 1, 3, 4]);
        assert_eq!((reordered.rows(0), reordered.rows(1)), (&[3][..], &[0, 2, 4][..]));
    }
}
