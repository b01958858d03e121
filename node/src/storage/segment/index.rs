//! What finds the nearest rows of a segment.

use vectorsphere_index::Graph;
use vectorsphere_index::faiss::FaissIndex;

/// An index over the rows of a segment. Its candidates are rows; their scores come from the rows themselves.
#[derive(Debug)]
pub enum SegmentIndex {
    /// Our graph.
    Graph(Box<Graph>),
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
