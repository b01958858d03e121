//! Graphs of immutable segments: read from their files, or built and written there. Beside the store: nothing here
//! touches the log, and a search finds a graph as soon as it is set.

use std::path::PathBuf;
use std::sync::Arc;

use vectorsphere_index::{Graph, GraphOptions, Kernels, Metric};

use super::StorageError;
use super::segment::{SegmentView, graph_file};
use super::store::{Store, StoreReader};
use crate::runtime::disk::Disk;

/// Where the graphs of a replica's segments lie.
#[derive(Clone)]
pub struct IndexPlace {
    disk: Arc<dyn Disk>,
    home: PathBuf,
    reader: StoreReader,
}

/// What a segment's graph is to be like.
#[derive(Clone, Copy, Debug)]
pub struct IndexPlan {
    /// Kernels of this processor.
    pub kernels: Kernels,
    /// The table's.
    pub metric: Metric,
    /// How it is built.
    pub options: GraphOptions,
    /// Segments with fewer bytes of vectors are scanned.
    pub bytes_min: usize,
    /// Threads of a build.
    pub threads: usize,
}

impl IndexPlan {
    fn is_worth(&self, segment: &SegmentView) -> bool {
        let rows = segment.rows();
        let bytes = rows.len() * rows.dimension() * rows.storage_type().value_bytes();
        segment.awaits_graph() && bytes >= self.bytes_min.max(1)
    }
}

impl Store {
    /// For the graphs of its segments.
    pub fn index_place(&self) -> IndexPlace {
        IndexPlace { disk: self.place.disk.clone(), home: self.home.clone(), reader: self.reader() }
    }
}

impl IndexPlace {
    /// The largest segment that should have a graph and has none.
    pub fn next(&self, plan: &IndexPlan) -> Option<SegmentView> {
        let snapshot = self.reader.snapshot();
        let without = snapshot.segments.iter().filter(|segment| plan.is_worth(segment));
        without.max_by_key(|segment| segment.len()).cloned()
    }

    /// Takes a segment's graph from its file. False when there is none.
    ///
    /// # Errors
    /// When it is damaged: it has to be built.
    pub fn load(&self, segment: &SegmentView, plan: &IndexPlan) -> Result<bool, StorageError> {
        let graph = graph_file::read(self.disk.as_ref(), &self.home, segment, plan.metric)?;
        Ok(graph.map(|graph| segment.set_graph(Some(graph))).is_some())
    }

    /// Builds a segment's graph, unless its rows can have none. `None` when `stop` became true meanwhile.
    /// [`IndexPlace::save`] writes it to its file.
    pub fn build(
        &self,
        segment: &SegmentView,
        plan: &IndexPlan,
        stop: &(dyn Fn() -> bool + Sync),
    ) -> Option<()> {
        let IndexPlan { kernels, metric, options, threads, .. } = plan;
        let rows = segment.rows();
        let graph = match Graph::fits(rows, *metric) {
            true => Some(Graph::build(*kernels, rows, *metric, options, *threads, stop)?),
            false => None,
        };
        segment.set_graph(graph);
        Some(())
    }

    /// Lets a segment be scanned for good: its graph could not be built.
    pub fn give_up(&self, segment: &SegmentView) {
        segment.set_graph(None);
    }

    /// Writes a segment's graph to its file, unless the segment is not in use any more. Returns its size.
    ///
    /// # Errors
    /// The graph serves searches all the same, until the replica is opened again.
    pub fn save(&self, segment: &SegmentView) -> Result<u64, StorageError> {
        let Some(graph) = segment.graph() else { return Ok(0) };
        let disk = self.disk.as_ref();
        let bytes = graph_file::write(disk, &self.home, segment.id(), graph)?;
        let is_in_use = self.reader.snapshot().segments.iter().any(|other| other.id() == segment.id());
        if !is_in_use {
            // A merge took its rows meanwhile, and looked for the file before it was there.
            let path = graph_file::path_of(&self.home, segment.id());
            disk.remove(&path).map_err(StorageError::write(&path))?;
        }
        Ok(bytes)
    }
}
