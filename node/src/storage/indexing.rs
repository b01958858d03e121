//! Indexes of immutable segments: read from their files, or built and written there. Beside the store: nothing here
//! touches the log, and a search finds an index as soon as it is set.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use vectorsphere_index::faiss::{Factory, FaissError, FaissIndex};
use vectorsphere_index::{Graph, GraphOptions, Hints, Kernels, Metric};

use super::StorageError;
use super::segment::{SegmentIndex, SegmentRows, SegmentView, faiss_file, graph_file, index_paths};
use super::store::{Store, StoreReader};
use crate::filter::{KeyPath, only_text};
use crate::runtime::disk::Disk;

/// Where the indexes of a replica's segments lie.
#[derive(Clone)]
pub struct IndexPlace {
    disk: Arc<dyn Disk>,
    home: PathBuf,
    reader: StoreReader,
}

/// What a segment's index is to be like.
#[derive(Clone, Debug)]
pub struct IndexPlan {
    /// Kernels of this processor.
    pub kernels: Kernels,
    /// The table's.
    pub metric: Metric,
    /// What is built.
    pub recipe: Recipe,
    /// The table's: vectors of a tenant lie together in a graph.
    pub tenant_key: Option<KeyPath>,
    /// Segments with fewer bytes of vectors are scanned.
    pub bytes_min: usize,
    /// Threads of a build of a graph; FAISS takes one.
    pub threads: usize,
}

/// What an index is built as.
#[derive(Clone, Debug)]
pub enum Recipe {
    /// Our graph.
    Graph(GraphOptions),
    /// Inverted lists of FAISS, as many as suit the rows.
    Ivf,
    /// What a factory string of FAISS says.
    Faiss(Factory),
}

/// Why there is no index.
#[derive(Debug, thiserror::Error)]
pub enum BuildFailure {
    /// The replica is being closed.
    #[error("nobody waits for it any more")]
    Stopped,
    /// Its rows could not be read.
    #[error(transparent)]
    Rows(StorageError),
    /// FAISS did not build it.
    #[error(transparent)]
    Faiss(FaissError),
}

impl IndexPlan {
    /// Bytes that a build of a segment's index takes, about.
    pub fn build_bytes(&self, segment: &SegmentView) -> usize {
        let rows = segment.rows();
        let row_bytes = rows.storage_type().row_bytes(rows.dimension());
        // Rows in a file are in memory for the time of the build.
        let loaded = if rows.is_on_disk() { rows.len() * row_bytes } else { 0 };
        self.recipe.build_bytes(rows, self.metric) + loaded
    }

    fn is_worth(&self, segment: &SegmentView) -> bool {
        let rows = segment.rows();
        let bytes = rows.len() * rows.dimension() * rows.storage_type().value_bytes();
        segment.awaits_index() && bytes >= self.bytes_min.max(1) && self.recipe.takes(rows, self.metric)
    }
}

impl Recipe {
    /// Bytes that a build takes, about: for a graph what is left of it and as much again on the way.
    fn build_bytes(&self, rows: &SegmentRows, metric: Metric) -> usize {
        match (self, self.factory(rows, metric)) {
            (_, Some(factory)) => factory.bytes_to_build(rows.len()),
            (Recipe::Graph(options), _) => 2 * rows.len() * options.bytes_per_vertex(rows.dimension()),
            (Recipe::Ivf | Recipe::Faiss(_), None) => 0,
        }
    }

    /// True when a build ends soon after it is told to stop.
    pub fn can_stop(&self) -> bool {
        match self {
            Recipe::Graph(_) => true,
            Recipe::Ivf | Recipe::Faiss(_) => false,
        }
    }

    /// True when there are enough rows.
    fn takes(&self, rows: &SegmentRows, metric: Metric) -> bool {
        self.factory(rows, metric).is_none_or(|factory| rows.len() >= factory.rows_needed())
    }

    /// What FAISS is to build.
    fn factory(&self, rows: &SegmentRows, metric: Metric) -> Option<Factory> {
        match self {
            Recipe::Graph(_) => None,
            Recipe::Ivf => Some(Factory::trained(rows.len(), rows.dimension(), metric)),
            Recipe::Faiss(factory) => Some(factory.clone()),
        }
    }
}

/// For each row the number of its tenant; 0 for those without one.
fn groups(segment: &SegmentView, tenant_key: &KeyPath) -> Vec<u32> {
    let mut numbers: HashMap<Box<str>, u32> = HashMap::new();
    let group = |row| {
        let Some(tenant) = only_text(tenant_key, segment.metadata_json(row)) else { return 0 };
        let next = numbers.len() as u32 + 1;
        *numbers.entry(tenant).or_insert(next)
    };
    (0..segment.len()).map(group).collect()
}

impl Store {
    /// For the indexes of its segments.
    pub fn index_place(&self) -> IndexPlace {
        IndexPlace { disk: self.place.disk.clone(), home: self.home.clone(), reader: self.reader() }
    }
}

impl IndexPlace {
    /// The largest segment that should have an index and has none.
    pub fn next(&self, plan: &IndexPlan) -> Option<SegmentView> {
        let snapshot = self.reader.snapshot();
        let without = snapshot.segments.iter().filter(|segment| plan.is_worth(segment));
        without.max_by_key(|segment| segment.len()).cloned()
    }

    /// Takes a segment's index from its file. False when there is none.
    ///
    /// # Errors
    /// When it is damaged, or not what the plan says: it has to be built.
    pub fn load(&self, segment: &SegmentView, plan: &IndexPlan) -> Result<bool, StorageError> {
        let (disk, home) = (self.disk.as_ref(), &self.home);
        let index = match &plan.recipe {
            Recipe::Graph(_) => graph_file::read(disk, home, segment, plan.metric)?
                .map(|graph| SegmentIndex::Graph(Arc::new(graph))),
            // Another version may have chosen other lists: any that fit the rows serve.
            Recipe::Ivf => faiss_file::read(disk, home, segment, plan.metric)?.map(SegmentIndex::Faiss),
            Recipe::Faiss(factory) => {
                let index = faiss_file::read(disk, home, segment, plan.metric)?;
                if let Some(index) = &index
                    && index.factory() != factory
                {
                    let path = faiss_file::path_of(home, segment.id());
                    let reason = format!("is an index \"{}\", not \"{factory}\"", index.factory());
                    return Err(StorageError::damaged(&path, reason));
                }
                index.map(SegmentIndex::Faiss)
            }
        };
        Ok(index.map(|index| segment.set_index(Some(index))).is_some())
    }

    /// Builds a segment's index, unless its rows can have none; from that of a segment that was merged into it, where most of
    /// it stays. [`IndexPlace::save`] writes it to its file.
    ///
    /// # Errors
    /// When `stop` became true meanwhile, which FAISS does not look at, or FAISS refuses.
    pub fn build(
        &self,
        segment: &SegmentView,
        plan: &IndexPlan,
        stop: &(dyn Fn() -> bool + Sync),
    ) -> Result<(), BuildFailure> {
        let IndexPlan { kernels, metric, recipe, threads, tenant_key, .. } = plan;
        // Rows in a file are in memory while the index is built, which looks at them at random.
        let rows = &segment.rows().load().map_err(BuildFailure::Rows)?;
        let index = match recipe {
            Recipe::Graph(options) if Graph::fits(rows, *metric) => {
                let ancestor = segment.ancestor();
                let groups = tenant_key.as_ref().map(|key| groups(segment, key));
                let hints = Hints {
                    earlier: ancestor.as_ref().map(|ancestor| ancestor.earlier()),
                    groups: groups.as_deref(),
                };
                let graph = Graph::build_from(*kernels, rows, *metric, options, *threads, stop, &hints);
                let mut graph = graph.ok_or(BuildFailure::Stopped)?;
                graph.calibrate(*kernels, rows, *threads, stop).ok_or(BuildFailure::Stopped)?;
                Some(SegmentIndex::Graph(Arc::new(graph)))
            }
            Recipe::Graph(_) => None,
            Recipe::Ivf | Recipe::Faiss(_) => {
                let factory = recipe.factory(segment.rows(), *metric).expect("of FAISS");
                Some(SegmentIndex::Faiss(FaissIndex::build(rows, &factory).map_err(BuildFailure::Faiss)?))
            }
        };
        segment.set_index(index);
        Ok(())
    }

    /// Lets a segment be scanned for good: its index could not be built.
    pub fn give_up(&self, segment: &SegmentView) {
        segment.set_index(None);
    }

    /// Writes a segment's index to its file, unless the segment is not in use any more. Returns its size.
    ///
    /// # Errors
    /// The index serves searches all the same, until the replica is opened again.
    pub fn save(&self, segment: &SegmentView) -> Result<u64, StorageError> {
        let disk = self.disk.as_ref();
        let bytes = match segment.index() {
            None => return Ok(0),
            Some(SegmentIndex::Graph(graph)) => graph_file::write(disk, &self.home, segment.id(), graph)?,
            Some(SegmentIndex::Faiss(index)) => faiss_file::write(disk, &self.home, segment.id(), index)?,
        };
        let is_in_use = self.reader.snapshot().segments.iter().any(|other| other.id() == segment.id());
        if !is_in_use {
            // A merge took its rows meanwhile, and looked for the file before it was there.
            for path in index_paths(&self.home, segment.id()) {
                match disk.remove(&path) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    removed => removed.map_err(StorageError::write(&path))?,
                }
            }
        }
        Ok(bytes)
    }
}
