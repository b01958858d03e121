//! The newest records of a log, in memory, for copies that follow closely.

use std::collections::VecDeque;

use crate::ids::Lsn;
use crate::storage::Record;

/// Bytes that are kept beyond what a copy in sync still needs.
const BYTES_MAX: usize = 8 << 20;

/// Consecutive records up to the end of the log. Bodies are shared.
#[derive(Debug, Default)]
pub(super) struct Tail {
    records: VecDeque<Record>,
    bytes: usize,
}

impl Tail {
    /// Adds records at the end. What does not follow makes everything before it useless.
    pub(super) fn push(&mut self, records: impl IntoIterator<Item = Record>) {
        for record in records {
            if self.records.back().is_some_and(|last| last.lsn.next() != record.lsn) {
                self.clear();
            }
            self.bytes += record.stored_bytes();
            self.records.push_back(record);
        }
        while self.bytes > BYTES_MAX && self.records.len() > 1 {
            self.forget_oldest();
        }
    }

    /// Removes what lies behind `to`.
    pub(super) fn cut(&mut self, to: Lsn) {
        while let Some(record) = self.records.pop_back_if(|record| record.lsn > to) {
            self.bytes -= record.stored_bytes();
        }
    }

    /// Forgets what every copy has.
    pub(super) fn release(&mut self, to: Lsn) {
        while self.records.front().is_some_and(|record| record.lsn <= to) {
            self.forget_oldest();
        }
    }

    /// Records from `first` on to `last`, as many as fit `bytes_max` but at least one; `None`: `first` is not here.
    pub(super) fn get(&self, first: Lsn, last: Lsn, bytes_max: usize) -> Option<Vec<Record>> {
        let start = self.records.front()?.lsn;
        let from = usize::try_from(first.0.checked_sub(start.0)?).ok()?;
        let mut bytes = 0;
        let fits = |record: &&Record| {
            bytes += record.stored_bytes();
            record.lsn <= last && (bytes <= bytes_max || record.lsn == first)
        };
        let records: Vec<Record> = self.records.iter().skip(from).take_while(fits).cloned().collect();
        (!records.is_empty()).then_some(records)
    }

    fn clear(&mut self) {
        (self.records, self.bytes) = (VecDeque::new(), 0);
    }

    fn forget_oldest(&mut self) {
        if let Some(record) = self.records.pop_front() {
            self.bytes -= record.stored_bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::ids::Epoch;
    use crate::storage::RecordKind;
    use crate::storage::op_window::OpKey;

    fn record(lsn: u64) -> Record {
        let body = Bytes::from(vec![0; 1000]);
        Record {
            kind: RecordKind::Noop,
            batch_end: true,
            epoch: Epoch(1),
            lsn: Lsn(lsn),
            op: OpKey::NONE,
            body,
        }
    }

    fn lsns(records: Option<Vec<Record>>) -> Vec<u64> {
        records.unwrap_or_default().iter().map(|record| record.lsn.0).collect()
    }

    #[test]
    fn the_newest_records_are_kept_and_found() {
        let mut tail = Tail::default();
        tail.push((5..10).map(record));
        assert_eq!(lsns(tail.get(Lsn(6), Lsn(8), usize::MAX)), [6, 7, 8]);
        assert_eq!(lsns(tail.get(Lsn(6), Lsn(9), 2_500)), [6, 7], "as many as fit");
        assert_eq!(lsns(tail.get(Lsn(6), Lsn(9), 1)), [6], "at least one");
        assert!(tail.get(Lsn(4), Lsn(9), 1).is_none() && tail.get(Lsn(10), Lsn(12), 1).is_none());
        tail.cut(Lsn(7));
        tail.push([record(8)]);
        tail.release(Lsn(6));
        assert_eq!(lsns(tail.get(Lsn(7), Lsn(9), usize::MAX)), [7, 8]);
        tail.push([record(20)]);
        assert!(tail.get(Lsn(8), Lsn(20), usize::MAX).is_none(), "a gap");
        tail.push((21..21 + 2 * BYTES_MAX as u64 / 1000).map(record));
        assert!(tail.bytes <= BYTES_MAX);
    }
}
