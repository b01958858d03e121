//! What finds the nearest rows of a segment.

use std::sync::Arc;

use vectorsphere_index::faiss::FaissIndex;
use vectorsphere_index::{Earlier, GONE, Graph};

use super::SegmentView;

/// An index over the rows of a segment. Its candidates are rows; their scores come from the rows themselves.
#[derive(Debug)]
pub enum SegmentIndex {
    /// Our graph.
    Graph(Arc<Graph>),
    /// An index of the FAISS library.
    Faiss(FaissIndex),
}

impl SegmentIndex {
    /// What it is, for people: `graph`, or a factory string of FAISS.
    pub fn kind(&self) -> String {
        match self {
            SegmentIndex::Graph(_) => "graph".to_owned(),
            SegmentIndex::Faiss(index) => index.factory().to_string(),
        }
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        match self {
            SegmentIndex::Graph(graph) => graph.bytes(),
            SegmentIndex::Faiss(index) => index.bytes(),
        }
    }
}

/// A graph of a segment that was merged into another one, from which that one's is built: kept until it is.
#[derive(Debug)]
pub(in crate::storage) struct Ancestor {
    graph: Arc<Graph>,
    /// For each row of the graph the one that is a copy of it, or [`GONE`].
    moved: Vec<u32>,
}

impl Ancestor {
    /// Of a segment whose rows are copies of others: of the inputs' graphs the one of which most rows stay, if it is
    /// worth to be kept. An input that has none yet hands on the one that its own was to be built from. `origins` gives
    /// for each copy the input's place among them and the row there.
    pub(in crate::storage) fn of(inputs: &[SegmentView], origins: &[(usize, u32)]) -> Option<Ancestor> {
        let mut stay = vec![0usize; inputs.len()];
        origins.iter().for_each(|(input, _)| stay[*input] += 1);
        let candidates = inputs.iter().enumerate().filter_map(|(place, input)| Some((place, source(input)?)));
        let (place, source) = candidates.max_by_key(|(place, _)| stay[*place])?;
        let mut copies = vec![GONE; inputs[place].len() as usize];
        for (copy, (_, row)) in origins.iter().enumerate().filter(|(_, origin)| origin.0 == place) {
            copies[*row as usize] = copy as u32;
        }
        let ancestor = match source {
            Source::Own(graph) => Ancestor { graph, moved: copies },
            Source::Inherited(ancestor) => {
                let copy_of = |row: &u32| copies.get(*row as usize).copied().unwrap_or(GONE);
                Ancestor {
                    graph: ancestor.graph.clone(),
                    moved: ancestor.moved.iter().map(copy_of).collect(),
                }
            }
        };
        ancestor.earlier().is_worth(origins.len()).then_some(ancestor)
    }

    /// As the index takes it.
    pub(in crate::storage) fn earlier(&self) -> Earlier<'_> {
        Earlier { graph: &self.graph, moved: &self.moved }
    }

    /// Bytes in memory.
    pub(super) fn bytes(&self) -> usize {
        self.graph.bytes() + self.moved.len() * size_of::<u32>()
    }
}

enum Source {
    Own(Arc<Graph>),
    Inherited(Arc<Ancestor>),
}

fn source(segment: &SegmentView) -> Option<Source> {
    match segment.index() {
        Some(SegmentIndex::Graph(graph)) => Some(Source::Own(graph.clone())),
        Some(SegmentIndex::Faiss(_)) => None,
        None => segment.ancestor().map(Source::Inherited),
    }
}
