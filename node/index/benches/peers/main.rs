//! Our engine beside its peers, one process a measurement. `make bench-index` starts this and `scripts/peers`.
//!
//! `prepare SET DATA ROOT [quick]` writes a set and its truth into a folder below ROOT and prints the folder;
//! `measure --folder FOLDER ...` builds our index over it and prints a JSON line for each setting.

#![allow(clippy::print_stdout)] // a benchmark prints

mod engine;
mod files;
mod measure;
mod sets;
mod truth;

use std::path::Path;

use anyhow::{Result, bail};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["prepare", set, data, root, rest @ ..] => {
            let kind = sets::Kind::parse(set)?;
            let folder = files::prepare(kind, rest == ["quick"], Path::new(data), Path::new(root))?;
            println!("{}", folder.display());
            Ok(())
        }
        ["measure", ..] => measure::Task::parse(&arguments[1..])?.run(),
        // Under `cargo test --benches` and `cargo bench` there is nothing to measure: scripts/bench passes a command.
        [] | ["--bench" | "--test", ..] => Ok(()),
        _ => bail!("usage: peers prepare SET DATA ROOT [quick] | measure --folder FOLDER [OPTION VALUE]..."),
    }
}
