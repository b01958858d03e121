//! One process, one index, one setting after the other: recall and queries a second, a JSON line each.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use serde_json::json;
use vectorsphere_index::{CodeWidth, GraphOptions, Kernels, Metric, RowMask, Scratch};

use crate::engine::{Engine, Gathered};
use crate::files::{self, Truth};
use crate::truth::{Mask, matches, recall};

/// Hits that a search returns.
const K: usize = 10;
/// Queries whose matching rows are copied, to be read.
const GATHERED_MAX: usize = 60;
/// Queries between two looks at the clock.
const STRIDE: usize = 16;
/// Efforts that are tried where none are given; those of `scripts/peers/peers.py`.
const EFFORTS: [usize; 34] = [
    10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30, 32, 36, 40, 44, 48, 56, 64, 72, 80, 88, 96, 112, 128, 160,
    192, 224, 256, 320, 400, 512, 640, 800, 1024,
];

/// What to measure, as the command line tells it.
pub(crate) struct Task {
    folder: PathBuf,
    tier: Option<String>,
    options: GraphOptions,
    settings: Vec<usize>,
    /// First query of the half that is used; every second one follows.
    first: usize,
    filter: Option<String>,
    /// Read all matching rows instead of searching.
    scan: bool,
    threads: usize,
    build_threads: usize,
    seconds: f64,
    /// Recall at which higher efforts are left out.
    enough: f64,
}

impl Task {
    pub(crate) fn parse(arguments: &[String]) -> Result<Task> {
        let mut task = Task {
            folder: PathBuf::new(),
            tier: None,
            options: GraphOptions::default(),
            settings: EFFORTS.to_vec(),
            first: 1,
            filter: None,
            scan: false,
            threads: 1,
            build_threads: 2,
            seconds: 2.0,
            enough: 2.0,
        };
        let (pairs, rest) = arguments.as_chunks::<2>();
        ensure!(rest.is_empty(), "{:?} has no value", rest[0]);
        for [key, value] in pairs {
            let wrong = || format!("{key} cannot be {value:?}");
            match key.as_str() {
                "--folder" => task.folder = PathBuf::from(value),
                "--tier" => task.tier = Some(value.clone()).filter(|tier| !tier.is_empty()),
                "--code-bits" => {
                    let width = CodeWidth::of_bits(value.parse().with_context(wrong)?);
                    task.options.codes = Some(width.with_context(wrong)?);
                }
                "--settings" => task.settings = serde_json::from_str(value).with_context(wrong)?,
                "--half" => task.first = usize::from(value != "tune"),
                "--filter" => task.filter = Some(value.clone()),
                "--plan" => task.scan = value == "scan",
                "--threads" => task.threads = value.parse().with_context(wrong)?,
                "--build-threads" => task.build_threads = value.parse().with_context(wrong)?,
                "--seconds" => task.seconds = value.parse().with_context(wrong)?,
                "--enough" => task.enough = value.parse().with_context(wrong)?,
                _ => bail!("unknown option {key}"),
            }
        }
        Ok(task)
    }

    pub(crate) fn run(&self) -> Result<()> {
        let name = self.folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let metric = if name.starts_with("clustered") { Metric::L2 } else { Metric::Cosine };
        let (set, truth, mask) = files::read(&self.folder, metric, self.filter.as_deref())?;
        let kernels = Kernels::detect(self.tier.as_deref())?;
        let rows_bytes = set.base.len() * set.base.dimension() * size_of::<f32>();
        let started = Instant::now();
        let engine = Engine::build(kernels, set.base, metric, &self.options, self.build_threads);
        let build_s = started.elapsed().as_secs_f64();
        let numbers = (self.first..set.queries.len()).step_by(2);
        let vectors: Vec<_> = numbers.map(|number| (number, set.queries.row(number as u32))).collect();
        let queries: Vec<(usize, &[f32])> =
            vectors.iter().map(|(number, vector)| (*number, &**vector)).collect();
        let probe = Probe::new(self, &engine, metric, &queries, &truth, mask.as_ref());
        for setting in &self.settings {
            let recall = probe.recall(*setting);
            let (qps, processor_qps) = probe.rates(self, *setting);
            let line = json!({
                "name": Engine::NAME,
                "data": name.split('-').next(),
                "tier": kernels.name(),
                "threads": self.threads,
                "variant": self.options.codes.map_or(json!({}), |width| json!({"code_bits": width.bits()})),
                "setting": setting,
                "recall": recall,
                "qps": qps,
                "cpu_qps": processor_qps,
                "build_s": build_s,
                "build_threads": self.build_threads,
                "bytes": engine.bytes(),
                "rows_bytes": rows_bytes,
            });
            println!("{line}");
            if recall >= self.enough {
                break;
            }
        }
        Ok(())
    }
}

struct Probe<'a> {
    engine: &'a Engine,
    metric: Metric,
    queries: &'a [(usize, &'a [f32])],
    truth: &'a Truth,
    /// Of each query, or the same for all, or none.
    masks: Vec<RowMask>,
    /// Their rows, where these are read instead of searched.
    gathered: Vec<Gathered>,
}

impl<'a> Probe<'a> {
    fn new(
        task: &Task,
        engine: &'a Engine,
        metric: Metric,
        queries: &'a [(usize, &'a [f32])],
        truth: &'a Truth,
        mask: Option<&Mask>,
    ) -> Probe<'a> {
        let queries = if task.scan { &queries[..queries.len().min(GATHERED_MAX)] } else { queries };
        let bitmaps: Vec<&[u8]> = match mask {
            None => Vec::new(),
            Some(mask) if mask.bitmaps.len() == 1 => vec![&mask.bitmaps[0]],
            Some(mask) => queries.iter().map(|(number, _)| mask.bitmaps[*number].as_slice()).collect(),
        };
        let rows = engine.rows().len() as u32;
        let masks: Vec<RowMask> =
            bitmaps.iter().map(|bitmap| RowMask::of(rows, |row| matches(bitmap, row))).collect();
        let gathered = masks.iter().filter(|_| task.scan).map(|mask| engine.gather(mask)).collect();
        Probe { engine, metric, queries, truth, masks, gathered }
    }

    fn search(&self, setting: usize, query: usize, scratch: &mut Scratch) -> Vec<u32> {
        let (_, vector) = self.queries[query];
        if let Some(gathered) = of_query(&self.gathered, query) {
            return self.engine.scan(vector, K, gathered);
        }
        self.engine.search(vector, K, setting, of_query(&self.masks, query), scratch)
    }

    fn recall(&self, setting: usize) -> f64 {
        let mut scratch = Scratch::default();
        let mut sum = 0.0;
        for (query, (number, vector)) in self.queries.iter().enumerate() {
            let found = self.search(setting, query, &mut scratch);
            let best = &self.truth.scores[*number];
            sum += recall(self.metric, self.engine.rows(), vector, &found, best, K);
        }
        sum / self.queries.len() as f64
    }

    /// Queries a second of all threads together, by the clock and by the processor time they got; each thread takes its
    /// own share of the queries over and over.
    fn rates(&self, task: &Task, setting: usize) -> (f64, f64) {
        let started = Instant::now();
        let deadline = started + Duration::from_secs_f64(task.seconds);
        let parts: Vec<(u64, f64)> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..task.threads)
                .map(|thread| scope.spawn(move || self.repeat(task, setting, thread, deadline)))
                .collect();
            threads.into_iter().map(|thread| thread.join().expect("no search panics")).collect()
        });
        let done = parts.iter().map(|(count, _)| *count as f64).sum::<f64>();
        let processor_s = parts.iter().map(|(_, seconds)| seconds).sum::<f64>() / task.threads as f64;
        (done / started.elapsed().as_secs_f64(), done / processor_s)
    }

    fn repeat(&self, task: &Task, setting: usize, thread: usize, deadline: Instant) -> (u64, f64) {
        pin(if task.threads == 1 { 1 } else { thread });
        let mut scratch = Scratch::default();
        let share: Vec<usize> = (thread..self.queries.len()).step_by(task.threads).collect();
        let before = processor_seconds();
        let mut count = 0;
        for part in share.chunks(STRIDE).cycle() {
            for query in part {
                std::hint::black_box(self.search(setting, *query, &mut scratch));
            }
            count += part.len() as u64;
            if Instant::now() >= deadline {
                break;
            }
        }
        (count, processor_seconds() - before)
    }
}

/// What belongs to a query among what each has, or all share, or none has.
fn of_query<T>(items: &[T], query: usize) -> Option<&T> {
    if items.len() == 1 { items.first() } else { items.get(query) }
}

/// Keeps this thread on one core, where there is such a core: one thread goes to the second, as the first serves most
/// interrupts.
fn pin(core: usize) {
    let mut cores = CpuSet::new();
    if cores.set(core).is_ok() {
        // A machine with fewer cores refuses; the thread then runs where it may.
        let _ = sched_setaffinity(Pid::from_raw(0), &cores);
    }
}

/// Processor time that this thread has had.
fn processor_seconds() -> f64 {
    let times = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = times.split(' ').next().and_then(|number| number.parse::<f64>().ok());
    nanoseconds.unwrap_or(f64::NAN) / 1e9
}
