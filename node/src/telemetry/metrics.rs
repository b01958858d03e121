//! The metrics of one node, in the OpenMetrics text format.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

/// A node's registry. Cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    process: Process,
}

/// What the kernel says of this process, read when metrics are asked for.
#[derive(Clone, Default)]
struct Process {
    resident_bytes: Gauge<i64>,
    open_files: Gauge<i64>,
    cpu_seconds: Gauge<f64, AtomicU64>,
}

impl Metrics {
    /// A registry with the process's own metrics.
    pub fn new() -> Metrics {
        let mut registry = Registry::with_prefix("vectorsphere");
        let process = Process::default();
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "Version of the program", version);
        registry.register("process_resident_bytes", "Memory of the process", process.resident_bytes.clone());
        registry.register(
            "process_open_files",
            "Open files and sockets of the process",
            process.open_files.clone(),
        );
        registry.register(
            "process_cpu_seconds",
            "Processor time of the process",
            process.cpu_seconds.clone(),
        );
        Metrics { registry: Arc::new(Mutex::new(registry)), process }
    }

    /// Lets a part of the node add its metrics; names get the prefix `vectorsphere_`.
    pub fn register(&self, add: impl FnOnce(&mut Registry)) {
        add(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// All metrics as text.
    pub fn encode(&self) -> String {
        self.process.read();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        encode(&mut text, &registry).expect("writing to a string does not fail");
        text
    }
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new()
    }
}

impl Process {
    fn read(&self) {
        if let Ok(status) = std::fs::read_to_string("/proc/self/status") {
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
            let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<i64>().ok());
            self.resident_bytes.set(kib.unwrap_or(0) * 1024);
        }
        if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
            self.open_files.set(files.count() as i64);
        }
        if let Ok(usage) = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF) {
            let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
            self.cpu_seconds.set(seconds(usage.user_time()) + seconds(usage.system_time()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_nodes_of_one_process_count_apart() {
        let (first, second) = (Metrics::new(), Metrics::new());
        let counter = prometheus_client::metrics::counter::Counter::<u64>::default();
        first.register(|registry| registry.register("things", "Things", counter.clone()));
        counter.inc();
        assert!(first.encode().contains("vectorsphere_things_total 1"));
        assert!(!second.encode().contains("vectorsphere_things"));
        assert!(second.encode().contains("vectorsphere_process_resident_bytes"));
    }
}
