//! Assertions of a replica that a mutant breaks are findings, not noise.

use std::cell::Cell;
use std::panic::{UnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;
use std::thread;

thread_local! {
    static IS_QUIET: Cell<bool> = const { Cell::new(false) };
}

static HOOK: Once = Once::new();

/// Runs `step`; a panic inside is returned and not printed. Panics elsewhere are printed as ever.
pub(super) fn catch<T>(step: impl FnOnce() -> T + UnwindSafe) -> thread::Result<T> {
    HOOK.call_once(|| {
        let print = take_hook();
        set_hook(Box::new(move |info| {
            if !IS_QUIET.get() {
                print(info);
            }
        }));
    });
    IS_QUIET.set(true);
    let outcome = catch_unwind(step);
    IS_QUIET.set(false);
    outcome
}
