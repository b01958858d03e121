//! Pages of rows that were read and verified, for the searches after: one cache for a node, with a bound.
//!
//! Sharded, so that searches seldom wait for one another. Each shard forgets by the clock algorithm: a page that was asked
//! for again since the hand came by stays for another round. So pages of files that are no more go in time; nobody looks for
//! them, since a file's number is never given again.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use vectorsphere_index::RowsView;

use crate::runtime::sync::Mutex;

/// Parts with a lock each, at most, and the least that one may hold.
const SHARDS_MAX: u64 = 16;
const SHARD_BYTES_MIN: u64 = 4 << 20;
/// What a page takes beside its rows: allocations, and its places in slots and map.
const PAGE_OVERHEAD_BYTES: u64 = 256;

/// Verified pages in memory. Clones are the same cache.
#[derive(Clone, Debug)]
pub struct RowCache(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    shards: Vec<Mutex<Shard>>,
    shard_bytes_max: u64,
    files: AtomicU64,
    metrics: RowCacheMetrics,
}

/// Metrics of a [`RowCache`]. Clones are the same metrics.
#[derive(Clone, Debug, Default)]
pub struct RowCacheMetrics {
    /// Pages that were in the cache.
    pub hits: Counter,
    /// Pages that were read from their files.
    pub misses: Counter,
    /// Bytes that scans read from files; they take nothing from the cache and leave nothing there.
    pub scanned_bytes: Counter,
    /// Bytes in the cache.
    pub bytes: Gauge,
}

impl RowCacheMetrics {
    /// New metrics, entered into `registry` (whose prefix is `vectorsphere`).
    pub fn register(registry: &mut Registry) -> RowCacheMetrics {
        let metrics = RowCacheMetrics::default();
        let registry = registry.sub_registry_with_prefix("row_cache");
        registry.register("hits", "Pages of rows found in the cache", metrics.hits.clone());
        registry.register("misses", "Pages of rows read from files", metrics.misses.clone());
        let scanned = "Rows read from files by scans, past the cache";
        registry.register_with_unit("scanned", scanned, Unit::Bytes, metrics.scanned_bytes.clone());
        registry.register_with_unit("held", "Rows in the cache", Unit::Bytes, metrics.bytes.clone());
        metrics
    }
}

/// A page of a file: the file's number in the cache, the page's in the file.
pub(super) type PageKey = (u64, u32);

#[derive(Debug, Default)]
struct Shard {
    places: HashMap<PageKey, usize>,
    slots: Vec<Option<Slot>>,
    free: Vec<usize>,
    hand: usize,
    bytes: u64,
}

#[derive(Debug)]
struct Slot {
    key: PageKey,
    page: RowsView,
    bytes: u64,
    was_used: bool,
}

impl RowCache {
    /// An empty cache of at most `bytes_max` bytes; 0: it keeps nothing.
    pub fn new(bytes_max: u64, metrics: RowCacheMetrics) -> RowCache {
        let count = (bytes_max / SHARD_BYTES_MIN).clamp(1, SHARDS_MAX);
        let shards = (0..count).map(|_| Mutex::new(Shard::default())).collect();
        let (shard_bytes_max, files) = (bytes_max / count, AtomicU64::new(0));
        RowCache(Arc::new(Inner { shards, shard_bytes_max, files, metrics }))
    }

    /// Its metrics.
    pub(super) fn metrics(&self) -> &RowCacheMetrics {
        &self.0.metrics
    }

    /// A number for the pages of one more file.
    pub(super) fn new_file(&self) -> u64 {
        self.0.files.fetch_add(1, Ordering::Relaxed)
    }

    /// A page, if it is here.
    pub(super) fn find(&self, key: PageKey) -> Option<RowsView> {
        self.shard(key).lock().expect("no panic under this lock").get(key)
    }

    /// The same for who reads the page, and keeps it, when it is not here.
    pub(super) fn get(&self, key: PageKey) -> Option<RowsView> {
        let page = self.find(key);
        match page {
            Some(_) => self.0.metrics.hits.inc(),
            None => self.0.metrics.misses.inc(),
        };
        page
    }

    /// Keeps a page, which was verified, and forgets others for it. One that has no room is not kept.
    pub(super) fn insert(&self, key: PageKey, page: RowsView) {
        let bytes = page.bytes() as u64 + PAGE_OVERHEAD_BYTES;
        if bytes > self.0.shard_bytes_max {
            return;
        }
        let mut shard = self.shard(key).lock().expect("no panic under this lock");
        let before = shard.bytes;
        shard.insert(Slot { key, page, bytes, was_used: false }, self.0.shard_bytes_max);
        self.0.metrics.bytes.inc_by(shard.bytes as i64 - before as i64);
    }

    fn shard(&self, (file, page): PageKey) -> &Mutex<Shard> {
        // Neighbours lie in different shards.
        let mixed = (file.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_add(u64::from(page));
        &self.0.shards[(mixed % self.0.shards.len() as u64) as usize]
    }
}

impl Shard {
    fn get(&mut self, key: PageKey) -> Option<RowsView> {
        let slot = self.slots[*self.places.get(&key)?].as_mut().expect("places name taken slots");
        slot.was_used = true;
        Some(slot.page.clone())
    }

    fn insert(&mut self, slot: Slot, bytes_max: u64) {
        if self.places.contains_key(&slot.key) {
            // Another search read it at the same time.
            return;
        }
        while self.bytes + slot.bytes > bytes_max {
            self.forget_one();
        }
        self.bytes += slot.bytes;
        let key = slot.key;
        let place = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.slots[place] = Some(slot);
        self.places.insert(key, place);
    }

    /// Turns the hand to the first page that was not used since it came by. There is a page.
    fn forget_one(&mut self) {
        loop {
            let place = self.hand % self.slots.len();
            self.hand = place + 1;
            match &mut self.slots[place] {
                Some(slot) if slot.was_used => slot.was_used = false,
                Some(_) => return self.clear(place),
                None => {}
            }
        }
    }

    fn clear(&mut self, place: usize) {
        let slot = self.slots[place].take().expect("a taken slot");
        self.bytes -= slot.bytes;
        self.places.remove(&slot.key);
        self.free.push(place);
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::SmallRng;
    use rand::{RngExt, SeedableRng};
    use vectorsphere_index::StorageType;

    use super::*;

    fn page(number: u32, values: usize) -> RowsView {
        let bytes: Vec<u8> = (0..values).flat_map(|_| (number as f32).to_le_bytes()).collect();
        RowsView::from_bytes(StorageType::F32, values, &bytes).expect("finite")
    }

    fn bytes_of(cache: &RowCache) -> u64 {
        let counted: u64 = cache.0.shards.iter().map(|shard| shard.lock().expect("whole").bytes).sum();
        assert_eq!(counted as i64, cache.metrics().bytes.get());
        counted
    }

    #[test]
    fn the_bound_holds_and_a_page_is_never_another_one() {
        for bytes_max in [0, 1_000, 100_000, 40 << 20] {
            let cache = RowCache::new(bytes_max, RowCacheMetrics::default());
            let mut random = SmallRng::seed_from_u64(bytes_max);
            let mut found = 0;
            for _ in 0..20_000 {
                let key = (random.random_range(0..3u64), random.random_range(0..500u32));
                // Of several sizes, the largest of which find no room in small caches.
                let values = 1 << (key.1 % 15);
                match cache.get(key) {
                    Some(kept) => {
                        found += 1;
                        assert_eq!((kept.row(0)[0], kept.dimension()), (key.1 as f32, values));
                    }
                    None => cache.insert(key, page(key.1, values)),
                }
                assert!(bytes_of(&cache) <= bytes_max);
            }
            let metrics = cache.metrics();
            assert!(metrics.hits.get() >= found && metrics.misses.get() > 0);
            assert_eq!(found > 0, bytes_max > 0, "{bytes_max} bytes keep something");
        }
    }

    #[test]
    fn what_is_used_again_outlives_what_is_read_once() {
        let one = page(0, 16).bytes() as u64 + PAGE_OVERHEAD_BYTES;
        let cache = RowCache::new(10 * one, RowCacheMetrics::default());
        cache.insert((0, 0), page(0, 16));
        for number in 1..1_000 {
            assert!(cache.get((0, 0)).is_some(), "forgotten after {number}");
            cache.insert((1, number), page(number, 16));
        }
        assert!(cache.get((1, 1)).is_none());
    }
}
