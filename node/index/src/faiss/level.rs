//! The processor that the FAISS library was compiled for.
//!
//! FAISS chooses no code at run time: compiled for a higher level than the processor has, it ends the program with an
//! illegal instruction, and this even before `main`, since its global tables are filled by such code. So the check is the
//! first thing that a program does which has this module in it.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicBool, Ordering};

/// The level: `x86-64`, `x86-64-v2`, `x86-64-v3`, `x86-64-v4`, or `portable` on other processors.
pub const CPU_LEVEL: &str = env!("FAISS_CPU_LEVEL");

/// True once the check has run.
static CHECKED: AtomicBool = AtomicBool::new(false);

/// The loader calls initialisers of a lower number first; those of C++ objects have no number and come last.
// SAFETY: the section holds pointers to functions that the C library's start calls once, with arguments that may be ignored.
#[cfg(target_os = "linux")]
#[unsafe(link_section = ".init_array.00100")]
#[used]
static CHECK: extern "C" fn() = refuse_lesser_processors;

extern "C" fn refuse_lesser_processors() {
    CHECKED.store(true, Ordering::Relaxed);
    let missing = missing_features();
    if !missing.is_empty() {
        refuse(&missing.join(", "));
    }
}

#[expect(clippy::print_stderr, reason = "nothing is there yet that could log")]
#[expect(
    clippy::disallowed_methods,
    clippy::exit,
    reason = "the next initialiser would end it with a signal"
)]
fn refuse(missing: &str) -> ! {
    eprintln!(
        "this program is built for processors of level {CPU_LEVEL} or better, and this one lacks {missing}; \
         use a build for level x86-64, or one without the feature `faiss`"
    );
    std::process::exit(1)
}

/// What this processor lacks of the level.
#[cfg(target_arch = "x86_64")]
fn missing_features() -> Vec<&'static str> {
    let features = match CPU_LEVEL {
        "x86-64-v2" => v2(),
        "x86-64-v3" => [v2(), v3()].concat(),
        "x86-64-v4" => [v2(), v3(), v4()].concat(),
        _ => Vec::new(),
    };
    features.into_iter().filter(|(_, there)| !there).map(|(name, _)| name).collect()
}

#[cfg(not(target_arch = "x86_64"))]
fn missing_features() -> Vec<&'static str> {
    Vec::new()
}

/// Features that a level adds to the one before, as far as they can be asked for (x86-64 psABI, 3.1.1), and whether the
/// processor has them.
#[cfg(target_arch = "x86_64")]
fn v2() -> Vec<(&'static str, bool)> {
    vec![
        ("cmpxchg16b", is_x86_feature_detected!("cmpxchg16b")),
        ("popcnt", is_x86_feature_detected!("popcnt")),
        ("sse3", is_x86_feature_detected!("sse3")),
        ("sse4.1", is_x86_feature_detected!("sse4.1")),
        ("sse4.2", is_x86_feature_detected!("sse4.2")),
        ("ssse3", is_x86_feature_detected!("ssse3")),
    ]
}

#[cfg(target_arch = "x86_64")]
fn v3() -> Vec<(&'static str, bool)> {
    vec![
        ("avx", is_x86_feature_detected!("avx")),
        ("avx2", is_x86_feature_detected!("avx2")),
        ("bmi1", is_x86_feature_detected!("bmi1")),
        ("bmi2", is_x86_feature_detected!("bmi2")),
        ("f16c", is_x86_feature_detected!("f16c")),
        ("fma", is_x86_feature_detected!("fma")),
        ("lzcnt", is_x86_feature_detected!("lzcnt")),
        ("movbe", is_x86_feature_detected!("movbe")),
    ]
}

#[cfg(target_arch = "x86_64")]
fn v4() -> Vec<(&'static str, bool)> {
    vec![
        ("avx512bw", is_x86_feature_detected!("avx512bw")),
        ("avx512cd", is_x86_feature_detected!("avx512cd")),
        ("avx512dq", is_x86_feature_detected!("avx512dq")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
        ("avx512vl", is_x86_feature_detected!("avx512vl")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn the_check_has_run_before_the_program() {
        assert!(CHECKED.load(Ordering::Relaxed));
    }

    #[test]
    fn the_processor_that_runs_this_has_the_level() {
        assert_eq!(missing_features(), Vec::<&str>::new(), "{CPU_LEVEL}");
    }
}
