//! A reader beside the owner, under many schedules of their steps and of the calls of the disk.

use std::panic::catch_unwind;

use shuttle::thread;

use super::*;
use crate::runtime::sync::explore;

const SCHEDULES: usize = 1_000;
/// Records up to here are released, those behind [`CUT`] are cut and written anew.
const RELEASED: Lsn = Lsn(2);
const CUT: Lsn = Lsn(4);
const END: u8 = 6;
/// Added to the body of a record that was written after the cut.
const ANEW: u8 = 100;

/// Releases the records that nobody needs.
type Release = fn(&mut Log, &MemoryDisk);

fn release(log: &mut Log, _disk: &MemoryDisk) {
    log.release(RELEASED, RELEASED, u64::MAX).expect("well");
}

/// Two records in each segment; then some go at the beginning, some at the end, and others take their places.
fn owner_and_reader(release: Release) {
    let disk = MemoryDisk::new(1);
    let mut log = new_log(&disk);
    let reader = log.reader();
    let reader = thread::spawn(move || read(reader));
    for body in 1..=END {
        batch(&mut log, &[body]).expect("well");
        log.sync().expect("well");
        if body % 2 == 0 {
            log.rotate().expect("well");
        }
    }
    release(&mut log, &disk);
    log.cut(CUT, EPOCH).expect("well");
    for body in CUT.0 as u8 + 1..=END {
        log.append(records_of(&log, Epoch(2), &[ANEW + body], true)).expect("well");
        log.sync().expect("well");
    }
    reader.join().expect("it found what there was");
    drop(log);
    let point = RecoveryPoint { checkpoint: RELEASED, durable: Lsn(END.into()) };
    let mut replayed = Vec::new();
    let count = &mut |record: Record| {
        replayed.push(record.body[0]);
        Ok(())
    };
    Log::scan(place(&disk), point, count).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(replayed, [3, 4, ANEW + 5, ANEW + 6]);
}

/// Reads one record at a time, up to the last one of all, and begins again where the log says that it was changed.
fn read(mut reader: LogReader) {
    let mut seen: Vec<Record> = Vec::new();
    let mut next = Lsn(1);
    while seen.last().is_none_or(|record| record.body[0] < ANEW + END) {
        // One who comes at this moment and begins at the start.
        let newcomer = reader.clone().read(Lsn(1), 1).expect("what is removed is no damage");
        assert!(newcomer == LogRead::Gone || matches!(newcomer, LogRead::Records(found) if found.len() <= 1));
        match reader.read(next, 1) {
            Ok(LogRead::Gone) => (seen, next) = (Vec::new(), RELEASED.next()),
            Ok(LogRead::Records(records)) => {
                for record in records {
                    assert_eq!(record.lsn, next, "in order");
                    assert_eq!(u64::from(record.body[0] % ANEW), next.0, "another record");
                    next = next.next();
                    seen.push(record);
                }
            }
            Err(error) => panic!("what is removed is no damage: {error}"),
        }
        let behind = seen.iter().filter(|record| record.lsn > CUT);
        let anew = behind.clone().filter(|record| record.body[0] > ANEW).count();
        assert!(anew == 0 || anew == behind.count(), "two histories in one");
    }
}

#[test]
fn a_reader_finds_one_history_whatever_the_owner_removes() {
    explore(SCHEDULES, || owner_and_reader(release));
}

#[test]
fn the_scenario_finds_an_owner_that_removes_files_before_it_says_so() {
    let found = catch_unwind(|| {
        explore(SCHEDULES, || {
            owner_and_reader(|log, disk| {
                disk.remove(&segment::path_of(Path::new("wal"), 1)).expect("well");
                release(log, disk);
            });
        });
    });
    let panic = found.expect_err("the mutant goes unnoticed");
    let said = panic.downcast_ref::<String>().cloned().unwrap_or_default();
    assert!(said.contains("no damage"), "{said}");
}
