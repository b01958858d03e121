//! How much memory this process may have.

use std::fs;

/// Bytes that this process may have: of its control group, or of the machine. `None`: the system does not say.
pub fn machine_memory() -> Option<u64> {
    let number = |path: &str| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let group =
        number("/sys/fs/cgroup/memory.max").or_else(|| number("/sys/fs/cgroup/memory/memory.limit_in_bytes"));
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| total(&text));
    group.into_iter().chain(machine).min()
}

/// The total of `/proc/meminfo`, bytes.
fn total(text: &str) -> Option<u64> {
    let kib = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    kib.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_is_read_from_its_line() {
        assert_eq!(total("MemTotal:       24576 kB\nMemFree: 1 kB\n"), Some(24 << 20));
        assert_eq!(total("MemFree: 1 kB\n"), None);
    }
}
