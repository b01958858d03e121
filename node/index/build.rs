//! Tells the crate which processors the FAISS library was compiled for: it chooses no code at run time.

use std::env;
use std::fs;
use std::path::Path;

/// Processor levels that can be checked when a program starts.
const LEVELS: [&str; 4] = ["x86-64", "x86-64-v2", "x86-64-v3", "x86-64-v4"];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if env::var_os("CARGO_FEATURE_FAISS").is_none() {
        return;
    }
    let level = match env::var_os("CARGO_CFG_TARGET_ARCH") {
        Some(arch) if arch == "x86_64" => compiled_for(),
        _ => "portable".to_owned(),
    };
    println!("cargo::rustc-env=FAISS_CPU_LEVEL={level}");
}

/// The level that FAISS was compiled for, as its build recorded it. The environment of this build says nothing: a library
/// that was built earlier is kept when the variable changes.
fn compiled_for() -> String {
    let folder = env::var_os("DEP_FAISS_C_ROOT").expect("faiss-sys tells its dependents where it was built");
    let cache = Path::new(&folder).join("build/CMakeCache.txt");
    println!("cargo::rerun-if-changed={}", cache.display());
    let cache = fs::read_to_string(cache).expect("the build of FAISS records its settings");
    let flags = cache
        .lines()
        .find_map(|line| line.strip_prefix("CMAKE_CXX_FLAGS:STRING="))
        .expect("the build of FAISS records its compiler flags");
    level_of(flags)
}

/// The level that compiler flags ask for. The last `-march` counts, as it does for the compiler.
fn level_of(flags: &str) -> String {
    let mut level = LEVELS[0];
    for flag in flags.split_ascii_whitespace().filter(|flag| flag.starts_with("-m")) {
        match flag.strip_prefix("-march=") {
            Some(wanted) => {
                let known = LEVELS.into_iter().find(|known| *known == wanted);
                level = known.unwrap_or_else(|| {
                    panic!("FAISS was compiled with {flag}, which no start can check: use one of {LEVELS:?}")
                });
            }
            None if flag == "-m64" || flag.starts_with("-mtune=") => {}
            None => panic!("FAISS was compiled with {flag}, which no start can check: use -march=<level>"),
        }
    }
    level.to_owned()
}
