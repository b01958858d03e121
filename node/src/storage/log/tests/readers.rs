//! Reading beside the owner.

use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::*;
use crate::runtime::disk::{DiskReader, DiskSpace};

#[test]
fn a_reader_finds_every_record_from_everywhere() {
    let disk = MemoryDisk::new(1);
    let mut log = new_log(&disk);
    let mut reader = log.reader();
    for body in 1..=40u8 {
        let bodies: Vec<u8> = vec![body; usize::from(body % 3) + 1];
        batch(&mut log, &bodies).expect("appended");
        let unsynced = read_all(&mut reader, 1, 1 << 20).expect("there");
        assert_eq!(unsynced.len() as u64, log.durable().0, "only what is durable");
        log.sync().expect("synced");
        if body % 10 == 0 {
            log.rotate().expect("rotated");
        }
    }
    let all = read_all(&mut log.reader(), 1, usize::MAX).expect("there");
    assert_eq!(all.last().map(|record| record.lsn), Some(log.end()));
    for from in 1..=log.end().0 {
        for bytes in [0, 60, 1000, usize::MAX] {
            let found = read_all(&mut reader, from, bytes).expect("there");
            assert_eq!(found, all[from as usize - 1..], "from {from}, {bytes} bytes at once");
        }
    }
    assert_eq!(reader.read(log.end().next(), 1).expect("well"), LogRead::Records(Vec::new()));
    log.release(Lsn(30), Lsn(30), u64::MAX).expect("released");
    let first = log.first().0;
    assert!(first > 1);
    assert_eq!(reader.read(Lsn(first - 1), 1).expect("well"), LogRead::Gone);
    assert_eq!(read_all(&mut reader, first, 100).expect("there"), all[first as usize - 1..]);
    drop(log);
    assert_eq!(reader.read(Lsn(first), 1).expect("well"), LogRead::Gone, "the log is closed");
}

#[test]
fn a_reader_reads_records_of_every_size() {
    let disk = MemoryDisk::new(1);
    let mut log = new_log(&disk);
    let sizes = [0, 1, 5000, 3 << 20, 10, BODY_BYTES_MAX, 7];
    for (index, size) in sizes.into_iter().enumerate() {
        let mut records = records_of(&log, EPOCH, &[0], true);
        records[0].body = Bytes::from(vec![index as u8; size]);
        log.append(records).expect("appended");
    }
    log.sync().expect("synced");
    for bytes in [1, 1 << 16, 1 << 22] {
        let found = read_all(&mut log.reader(), 1, bytes).expect("there");
        assert_eq!(found.iter().map(|record| record.body.len()).collect::<Vec<_>>(), sizes);
    }
}

#[test]
fn a_reader_sees_damage() {
    let disk = MemoryDisk::new(1);
    let (path, bytes, _) = three_groups(&disk);
    let (log, _) = recover(&disk, 8).expect("whole");
    for offset in SEGMENT_HEADER_BYTES..bytes.len() {
        disk.flip_bit(&path, offset, 3);
        let mut reader = log.reader();
        let mut next = Lsn(1);
        let damaged = loop {
            match reader.read(next, 1) {
                Ok(LogRead::Records(records)) if !records.is_empty() => next = records[0].lsn.next(),
                outcome => break outcome.is_err_and(|error| error.is_lasting()),
            }
        };
        assert!(damaged, "byte {offset}");
        disk.flip_bit(&path, offset, 3);
    }
}

#[test]
fn a_reader_is_told_of_a_cut_once() {
    let disk = MemoryDisk::new(1);
    let mut log = new_log(&disk);
    for body in 1..=4 {
        batch(&mut log, &[body]).expect("appended");
    }
    log.sync().expect("synced");
    batch(&mut log, &[5]).expect("appended");
    let mut reader = log.reader();
    log.cut(Lsn(4), EPOCH).expect("cut");
    assert_eq!(bodies(&read_all(&mut reader, 1, 100).expect("nothing durable went")), [1, 2, 3, 4]);
    for from in [1, 3, 4, 9] {
        let (mut reader, made_before) = (log.reader(), log.reader());
        log.cut(Lsn(3), EPOCH).expect("cut");
        assert_eq!(reader.read(Lsn(from), 100).expect("well"), LogRead::Gone, "from {from}");
        for mut reader in [reader, made_before.clone()] {
            assert_eq!(bodies(&read_all(&mut reader, 1, 100).expect("there")), [1, 2, 3]);
        }
        batch(&mut log, &[4]).expect("appended");
        log.sync().expect("synced");
    }
}

/// A disk on which something happens right before the next file is opened.
struct Interrupted {
    disk: MemoryDisk,
    interruption: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Disk for Interrupted {
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskReader>> {
        if let Some(interruption) = self.interruption.lock().expect("no panic").take() {
            interruption();
        }
        self.disk.open(path)
    }

    fn create(&self, _: &Path) -> io::Result<Box<dyn DiskFile>> {
        unreachable!("a reader only reads")
    }

    fn reopen(&self, _: &Path) -> io::Result<Box<dyn DiskFile>> {
        unreachable!("a reader only reads")
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        unreachable!("a reader only reads")
    }

    fn remove(&self, _: &Path) -> io::Result<()> {
        unreachable!("a reader only reads")
    }

    fn remove_dir_all(&self, _: &Path) -> io::Result<()> {
        unreachable!("a reader only reads")
    }

    fn create_dir_all(&self, _: &Path) -> io::Result<()> {
        unreachable!("a reader only reads")
    }

    fn list(&self, _: &Path) -> io::Result<Vec<String>> {
        unreachable!("a reader only reads")
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        unreachable!("a reader only reads")
    }

    fn space(&self) -> io::Result<DiskSpace> {
        unreachable!("a reader only reads")
    }
}

#[test]
fn what_goes_while_it_is_read_is_gone_and_not_damaged() {
    type Interruption = fn(&mut Log);
    let interruptions: [Interruption; 3] = [
        |log| log.release(Lsn(2), Lsn(2), u64::MAX).expect("released"),
        |log| log.cut(Lsn(1), EPOCH).expect("cut"),
        |log| {
            log.cut(Lsn(0), Epoch(0)).expect("cut");
            batch(log, &[9, 9, 9]).expect("appended");
            log.sync().expect("synced");
        },
    ];
    for interruption in interruptions {
        let disk = MemoryDisk::new(1);
        let mut log = new_log(&disk);
        for body in 1..=3 {
            batch(&mut log, &[body]).expect("appended");
            log.sync().expect("synced");
            log.rotate().expect("rotated");
        }
        let (extent, log) = (log.extent.clone(), Arc::new(Mutex::new(log)));
        let owner = log.clone();
        let interruption: Box<dyn FnOnce() + Send> =
            Box::new(move || interruption(&mut owner.lock().expect("no panic")));
        let interruption = Mutex::new(Some(interruption));
        let interrupted = Interrupted { disk: disk.clone(), interruption };
        let mut reader = LogReader::new(LogPlace { disk: Arc::new(interrupted), ..place(&disk) }, extent);
        assert_eq!(reader.read(Lsn(2), 100).expect("no damage was done"), LogRead::Gone);
        drop(log);
    }
}

#[test]
fn a_reader_on_another_thread_never_sees_what_is_not_in_the_log() {
    let disk = MemoryDisk::new(1);
    let mut log = new_log(&disk);
    let mut reader = log.reader();
    let (read, cuts) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut next = (Lsn(1), Epoch(0));
            while !is_over.load(Ordering::Relaxed) {
                match reader.read(next.0, 200).expect("no damage was done") {
                    LogRead::Gone => {
                        cuts.fetch_add(1, Ordering::Relaxed);
                        next = (Lsn(1), Epoch(0));
                    }
                    LogRead::Records(records) => {
                        for record in &records {
                            assert!(record.lsn == next.0 && record.epoch >= next.1, "another history");
                            assert_eq!(u64::from(record.body[0]), record.epoch.0 % 256);
                            next = (record.lsn.next(), record.epoch);
                        }
                        read.fetch_add(records.len(), Ordering::Relaxed);
                    }
                }
            }
        });
        // A record's body is its epoch.
        for epoch in 1.. {
            let body = (epoch % 256) as u8;
            reign(&mut log, Epoch(epoch), body).expect("appended");
            batch(&mut log, &[body; 7]).expect("appended");
            log.sync().expect("synced");
            let to = log.end().0 - 8;
            if epoch % 3 == 0 && to > 0 {
                log.cut(Lsn(to), Epoch(epoch - 1)).expect("cut");
                reign(&mut log, Epoch(epoch), body).expect("appended");
                log.sync().expect("synced");
            }
            let seen = [&read, &cuts].map(|count| count.load(Ordering::Relaxed));
            if epoch > 300 && seen[0] > 1000 && seen[1] > 10 {
                break;
            }
        }
        is_over.store(true, Ordering::Relaxed);
    });
}
