//! Numbers for the vertices so that neighbours lie near each other, and that all are reached.

use std::collections::VecDeque;

use super::build::NONE;

/// Vertices in the order of a breadth-first walk from `roots`. Vertices that no walk reaches are linked from a neighbour
/// of theirs. The second list has a vertex of each island without any link to it: further roots.
pub(super) fn breadth_first(links: &mut [u32], degree: usize, roots: &[u32]) -> (Vec<u32>, Vec<u32>) {
    let count = links.len() / degree;
    let mut order = Vec::with_capacity(count);
    let mut reached = vec![false; count];
    let mut queue: VecDeque<u32> = VecDeque::new();
    let mut in_degrees: Vec<u32> = Vec::new();
    // From one root on, so that the others are met on the way, where they belong; then from those that were not met.
    for root in roots.iter().copied() {
        if !std::mem::replace(&mut reached[root as usize], true) {
            queue.push_back(root);
        }
        drain(links, degree, &mut queue, &mut reached, &mut order);
    }
    let mut progress = order.len() < count;
    while std::mem::take(&mut progress) {
        for vertex in 0..count as u32 {
            if reached[vertex as usize] {
                continue;
            }
            if in_degrees.is_empty() {
                in_degrees = count_in(links, count);
            }
            if attach(links, degree, vertex, &reached, &mut in_degrees) {
                reached[vertex as usize] = true;
                queue.push_back(vertex);
                drain(links, degree, &mut queue, &mut reached, &mut order);
                progress = true;
            }
        }
    }
    let mut islands = Vec::new();
    for vertex in 0..count as u32 {
        if !std::mem::replace(&mut reached[vertex as usize], true) {
            islands.push(vertex);
            queue.push_back(vertex);
            drain(links, degree, &mut queue, &mut reached, &mut order);
        }
    }
    (order, islands)
}

fn drain(
    links: &[u32],
    degree: usize,
    queue: &mut VecDeque<u32>,
    reached: &mut [bool],
    order: &mut Vec<u32>,
) {
    while let Some(vertex) = queue.pop_front() {
        order.push(vertex);
        for neighbour in list(links, degree, vertex) {
            if !std::mem::replace(&mut reached[*neighbour as usize], true) {
                queue.push_back(*neighbour);
            }
        }
    }
}

fn list(links: &[u32], degree: usize, vertex: u32) -> &[u32] {
    let list = &links[vertex as usize * degree..][..degree];
    &list[..list.iter().position(|link| *link == NONE).unwrap_or(degree)]
}

fn count_in(links: &[u32], count: usize) -> Vec<u32> {
    let mut in_degrees = vec![0; count];
    for link in links.iter().filter(|link| **link != NONE) {
        in_degrees[*link as usize] += 1;
    }
    in_degrees
}

/// Lets a reached neighbour of `vertex` link to it: one with room, or one that can spare a link.
fn attach(links: &mut [u32], degree: usize, vertex: u32, reached: &[bool], in_degrees: &mut [u32]) -> bool {
    let mut spare: Option<(usize, u32)> = None;
    for neighbour in list(links, degree, vertex) {
        if !reached[*neighbour as usize] {
            continue;
        }
        let start = *neighbour as usize * degree;
        let taken = list(links, degree, *neighbour).len();
        if taken < degree {
            links[start + taken] = vertex;
            in_degrees[vertex as usize] += 1;
            return true;
        }
        for slot in start..start + degree {
            let popularity = in_degrees[links[slot] as usize];
            if popularity > spare.map_or(2, |(_, most)| most) {
                spare = Some((slot, popularity));
            }
        }
    }
    let Some((slot, _)) = spare else { return false };
    in_degrees[links[slot] as usize] -= 1;
    in_degrees[vertex as usize] += 1;
    links[slot] = vertex;
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_vertex_is_in_the_order_once_and_reached() {
        // A ring of ten, a vertex that only points into it, and an island of two.
        let mut links = vec![NONE; 13 * 2];
        for vertex in 0..10 {
            links[vertex * 2] = (vertex as u32 + 1) % 10;
        }
        links[20] = 3;
        (links[22], links[24]) = (12, 11);
        let (mut order, islands) = breadth_first(&mut links, 2, &[4]);
        assert_eq!(islands, [11]);
        assert_eq!(order[0], 4);
        order.sort_unstable();
        assert_eq!(order, (0..13).collect::<Vec<u32>>());
        assert_eq!(links[3 * 2 + 1], 10, "the ring links to what only pointed into it");
    }
}
