//! Metrics of this node's shards.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// Metrics of this node's shards. Clones are the same metrics.
#[derive(Clone, Debug)]
pub struct ShardMetrics {
    /// Replicas that serve.
    pub open: Gauge,
    /// Replicas that are refused because their data is damaged.
    pub damaged: Gauge,
    /// Reigns begun here.
    pub epochs: Counter,
    /// Copies that differ, disks that lied: a person should look.
    pub alarms: Counter,
    /// Time to open a replica.
    pub open_seconds: Histogram,
    /// Records replayed while opening.
    pub replayed_records: Counter,
    /// Time of one group: log, sync, apply.
    pub commit_seconds: Histogram,
    /// Batches of one group.
    pub commit_batches: Histogram,
    /// Checkpoints that took effect.
    pub checkpoints: Counter,
    /// Checkpoints that failed.
    pub checkpoint_failures: Counter,
    /// Time to write a checkpoint.
    pub checkpoint_seconds: Histogram,
    /// Segments merged away.
    pub merged_segments: Counter,
    /// Graphs that were built.
    pub index_builds: Counter,
    /// Time to build and write a graph.
    pub index_build_seconds: Histogram,
    /// Time of one shard's part of a search.
    pub search_seconds: Histogram,
    /// Bytes of metadata indexes in memory.
    pub metadata_index_bytes: Gauge,
    /// Bytes of memory that shards may hold.
    pub memory_limit_bytes: Gauge,
    /// Bytes of rows, metadata and indexes in memory.
    pub memory_held_bytes: Gauge,
    /// Bytes set aside for indexes and segments that are being made.
    pub memory_reserved_bytes: Gauge,
    /// Bytes free on the data volume.
    pub disk_free_bytes: Gauge,
    /// 0 normal, 1 warning, 2 no new copies are taken, 3 upserts are refused.
    pub disk_stage: Gauge,
}

impl ShardMetrics {
    /// New metrics, entered into `registry` (whose prefix is `vectorsphere`).
    pub fn register(registry: &mut Registry) -> ShardMetrics {
        let seconds = || Histogram::new(exponential_buckets(0.000_05, 2.0, 20));
        let metrics = ShardMetrics {
            open: Gauge::default(),
            damaged: Gauge::default(),
            epochs: Counter::default(),
            alarms: Counter::default(),
            open_seconds: seconds(),
            replayed_records: Counter::default(),
            commit_seconds: seconds(),
            commit_batches: Histogram::new(exponential_buckets(1.0, 2.0, 10)),
            checkpoints: Counter::default(),
            checkpoint_failures: Counter::default(),
            checkpoint_seconds: seconds(),
            merged_segments: Counter::default(),
            index_builds: Counter::default(),
            index_build_seconds: seconds(),
            search_seconds: seconds(),
            metadata_index_bytes: Gauge::default(),
            memory_limit_bytes: Gauge::default(),
            memory_held_bytes: Gauge::default(),
            memory_reserved_bytes: Gauge::default(),
            disk_free_bytes: Gauge::default(),
            disk_stage: Gauge::default(),
        };
        metrics.enter(registry.sub_registry_with_prefix("shard"));
        metrics
    }

    fn enter(&self, registry: &mut Registry) {
        registry.register("open", "Replicas that serve", self.open.clone());
        registry.register("damaged", "Replicas refused because of damage", self.damaged.clone());
        registry.register("epochs", "Reigns begun here", self.epochs.clone());
        registry.register("alarms", "Copies that differ, and disks that lied", self.alarms.clone());
        registry.register("replayed_records", "Log records replayed", self.replayed_records.clone());
        registry.register("commit_batches", "Batches of one group commit", self.commit_batches.clone());
        registry.register("checkpoints", "Checkpoints that took effect", self.checkpoints.clone());
        registry.register("checkpoint_failures", "Checkpoints that failed", self.checkpoint_failures.clone());
        registry.register("index_builds", "Graphs built", self.index_builds.clone());
        registry.register("merged_segments", "Segments merged away", self.merged_segments.clone());
        registry.register(
            "disk_stage",
            "0 normal, 1 warning, 2 taking no new copies, 3 refusing upserts",
            self.disk_stage.clone(),
        );
        let timers = [
            ("open", "Time to open a replica", &self.open_seconds),
            ("commit", "Time of one group commit", &self.commit_seconds),
            ("checkpoint", "Time to write a checkpoint", &self.checkpoint_seconds),
            ("index_build", "Time to build and write a graph", &self.index_build_seconds),
            ("search", "Time of one shard's part of a search", &self.search_seconds),
        ];
        for (name, help, timer) in timers {
            registry.register_with_unit(name, help, Unit::Seconds, timer.clone());
        }
        let indexes = self.metadata_index_bytes.clone();
        registry.register_with_unit(
            "metadata_index",
            "Bytes of metadata indexes in memory",
            Unit::Bytes,
            indexes,
        );
        let sizes = [
            ("memory_limit", "Memory that shards may hold", &self.memory_limit_bytes),
            ("memory_held", "Rows, metadata and indexes in memory", &self.memory_held_bytes),
            ("memory_reserved", "Set aside for what is being made", &self.memory_reserved_bytes),
        ];
        for (name, help, size) in sizes {
            registry.register_with_unit(name, help, Unit::Bytes, size.clone());
        }
        let free = self.disk_free_bytes.clone();
        registry.register_with_unit("disk_free", "Free bytes of the data volume", Unit::Bytes, free);
    }
}
