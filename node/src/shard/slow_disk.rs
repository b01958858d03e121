//! Whether the disk of a copy has become slow: then another copy should lead. Pure.

use std::time::Duration;

/// A sync that takes longer is a slow one.
const SLOW: Duration = Duration::from_millis(500);
/// A disk that has had slow syncs for so long is slow.
const PATIENCE: Duration = Duration::from_secs(10);
/// A disk that has had no slow sync for so long is well.
const RECOVERY: Duration = Duration::from_secs(2);
/// Pause between two tries to hand over.
const TRY_AGAIN: Duration = Duration::from_secs(60);

/// What is known of a disk's syncs. Times are on a clock that never goes back.
#[derive(Debug, Default)]
pub(super) struct SlowDisk {
    /// The first and the last slow sync of a row.
    slow: Option<(Duration, Duration)>,
    told: Option<Duration>,
}

impl SlowDisk {
    /// A sync ended. True when another copy should lead: said once, and again after a while.
    pub(super) fn synced(&mut self, took: Duration, now: Duration) -> bool {
        self.slow = match self.slow {
            Some((_, last)) if took < SLOW && now.saturating_sub(last) >= RECOVERY => None,
            slow if took < SLOW => slow,
            Some((first, _)) => Some((first, now)),
            None => Some((now, now)),
        };
        let is_slow = self.slow.is_some_and(|(first, last)| last.saturating_sub(first) >= PATIENCE);
        let is_news = self.told.is_none_or(|told| now >= told + TRY_AGAIN);
        if is_slow && is_news {
            self.told = Some(now);
        }
        is_slow && is_news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ends of syncs and how long they took, milliseconds; the ends at which it was said to be slow.
    fn said(syncs: impl IntoIterator<Item = (u64, u64)>) -> Vec<u64> {
        let mut disk = SlowDisk::default();
        let ms = Duration::from_millis;
        syncs.into_iter().filter(|(end, took)| disk.synced(ms(*took), ms(*end))).map(|(end, _)| end).collect()
    }

    #[test]
    fn a_disk_is_slow_when_slow_syncs_go_on() {
        assert_eq!(said((1..200).map(|second| (second * 1_000, 900))), [11_000, 71_000, 131_000, 191_000]);
        assert!(said((1..200).map(|second| (second * 1_000, 499))).is_empty());
        assert_eq!(said([(1_000, 900), (12_000, 900)]), [12_000], "quiet in between says nothing");
        // One slow sync in a hundred.
        let rare = (1..30_000).map(|sync| (sync * 10, if sync % 100 == 0 { 700 } else { 5 }));
        assert_eq!(said(rare).first(), Some(&11_000));
        let hiccups = (1..30_000).map(|sync| (sync * 10, if sync % 400 == 0 { 700 } else { 5 }));
        assert!(said(hiccups).is_empty(), "well for two seconds and more, again and again");
    }
}
