//! What the kernel counts: bytes to the disk and over the loopback, time of the processor.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

/// Bytes that a process has caused to be written to the disk.
pub(super) fn disk_bytes(process: u32) -> Result<u64> {
    let counters = fs::read_to_string(format!("/proc/{process}/io"))?;
    let line = counters.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    Ok(line.context("no write_bytes")?.parse()?)
}

/// Bytes that have gone over the loopback, with their headers.
pub(super) fn loopback_bytes() -> Result<u64> {
    Ok(fs::read_to_string("/sys/class/net/lo/statistics/tx_bytes")?.trim().parse()?)
}

/// Time that a process has spent on processors, in the program and in the kernel.
pub(super) fn cpu_time(process: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name in parentheses may hold blanks. Fields 14 and 15 of proc(5) are the 12th and 13th behind it.
    let (_, fields) = stat.rsplit_once(") ").context("a malformed stat")?;
    let fields: Vec<&str> = fields.split(' ').collect();
    let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    // USER_HZ is 100 on every platform that Linux runs on today.
    Ok(Duration::from_millis(ticks * 10))
}

/// Bytes of all files below a folder, as they are allocated.
pub(super) fn allocated_bytes(folder: &Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt as _;
    let mut total = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        total += if metadata.is_dir() { allocated_bytes(&entry.path())? } else { metadata.blocks() * 512 };
    }
    Ok(total)
}
