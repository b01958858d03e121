//! Clocks and random bytes of the C library, replaced on the thread of a world: so all dependencies live in its time and
//! draw from its seed. Other threads have the real ones.
//!
//! After the idea of the crate mad-turmoil, which stops the clocks of all other threads instead.
#![expect(unsafe_code, reason = "functions of the C library are replaced")]

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use nix::libc::{
    CLOCK_REALTIME, CLOCK_REALTIME_COARSE, SYS_clock_gettime, SYS_getrandom, c_int, c_long, c_uint, c_void,
    clockid_t, size_t, ssize_t, syscall, timespec,
};
use rand::rngs::SmallRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};

/// What clocks show on the world's thread outside of all hosts, where no time passes.
const STILL: Duration = Duration::from_secs(1_000_000);
/// The date of the beginning of each world, since 1970.
const EPOCH: Duration = Duration::from_secs(1_800_000_000);

thread_local! {
    static RANDOM: RefCell<Option<SmallRng>> = const { RefCell::new(None) };
    /// The instant that is [`STILL`].
    static ZERO: Cell<Option<Instant>> = const { Cell::new(None) };
    static IS_WORLD: Cell<bool> = const { Cell::new(false) };
}

/// This thread is a world's from here on.
pub(crate) fn begin(seed: u64) {
    RANDOM.set(Some(SmallRng::seed_from_u64(seed)));
    IS_WORLD.set(true);
    ZERO.set(Some(Instant::now()));
}

/// Some duration below `limit`, as the seed has it.
pub(crate) fn some_time(limit: Duration) -> Duration {
    RANDOM.with_borrow_mut(|random| {
        limit.mul_f64(random.as_mut().expect("a world's thread").random_range(0.0..1.0))
    })
}

/// Time since some moment before the world began, by the clock of the host that runs.
fn monotonic() -> Duration {
    match ZERO.get() {
        Some(zero) if tokio::runtime::Handle::try_current().is_ok() => {
            STILL + tokio::time::Instant::now().into_std().duration_since(zero)
        }
        _ => STILL,
    }
}

#[unsafe(no_mangle)]
extern "C" fn clock_gettime(clock: clockid_t, time: *mut timespec) -> c_int {
    if !IS_WORLD.get() {
        // SAFETY: the arguments are the caller's, whose duties are those of the system call.
        return unsafe { syscall(SYS_clock_gettime, c_long::from(clock), time) } as c_int;
    }
    let now = match clock {
        CLOCK_REALTIME | CLOCK_REALTIME_COARSE => EPOCH + turmoil::sim_elapsed().unwrap_or_default(),
        _ => monotonic(),
    };
    let now = timespec { tv_sec: now.as_secs() as i64, tv_nsec: now.subsec_nanos().into() };
    // SAFETY: callers of clock_gettime give a place for a time.
    unsafe { time.write(now) };
    0
}

#[unsafe(no_mangle)]
extern "C" fn getrandom(buffer: *mut c_void, length: size_t, flags: c_uint) -> ssize_t {
    let is_drawn = RANDOM.with_borrow_mut(|random| {
        let Some(random) = random else { return false };
        // SAFETY: callers of getrandom give a place for so many bytes.
        let bytes = unsafe { std::slice::from_raw_parts_mut(buffer.cast::<u8>(), length) };
        random.fill_bytes(bytes);
        true
    });
    match is_drawn {
        true => length as ssize_t,
        // SAFETY: the arguments are the caller's, whose duties are those of the system call.
        false => unsafe { syscall(SYS_getrandom, buffer, length, flags) as ssize_t },
    }
}
