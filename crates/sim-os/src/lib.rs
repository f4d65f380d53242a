//! Randomness and time of a simulated thread, in place of the operating system's: from a seed, and from the simulation.
//!
//! Rust's standard library, the crates that make keys and nonces, and C++ all ask the C library for random bytes and
//! for the time, some of them by `syscall`. A program that links this crate answers those calls itself. On a thread
//! that called [`enter`] the answers depend on the seed and on tokio's (paused) clock alone, so that a run can be
//! repeated: keys, nonces and the order of hash maps are the same every time. There `posix_fallocate` succeeds and
//! allocates nothing. On every other thread the answers are the system's.
//!
//! The program's build script has to export the symbols, or libraries that look them up while it runs
//! find the C library's: `cargo:rustc-link-arg=-Wl,--export-dynamic-symbol=getrandom`, and `clock_gettime` and `syscall`
//! likewise.

use std::cell::{Cell, RefCell};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::time::Duration;

use libc::{c_int, c_long, c_uint, c_void, clockid_t, off_t, size_t, ssize_t, time_t, timespec};
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use tokio::time::Instant;

thread_local! {
    static RANDOM: RefCell<Option<ChaCha12Rng>> = const { RefCell::new(None) };
    static CLOCK: Cell<Option<Clock>> = const { Cell::new(None) };
    /// Number of reads of the time: each adds a microsecond, so that a loop that waits for a time ends.
    static ASKED: Cell<u64> = const { Cell::new(0) };
    /// Set while the time is computed, which may itself read the time.
    static IS_ASKING: Cell<bool> = const { Cell::new(false) };
}

/// The beginning of a simulated thread's time.
#[derive(Clone, Copy)]
struct Clock {
    unix: Duration,
    began: Option<Instant>,
}

/// The time of monotonic clocks when a simulated thread begins.
const UP: Duration = Duration::from_secs(24 * 3600);

/// Makes this thread a simulated one: its randomness comes from `seed` from now on, and its clock stands at `unix`.
///
/// For a thread that has just begun: randomness that it has drawn before (such as the keys of its hash maps) stays.
pub fn enter(seed: u64, unix: Duration) {
    RANDOM.set(Some(ChaCha12Rng::seed_from_u64(seed)));
    CLOCK.set(Some(Clock { unix, began: None }));
}

/// Makes the clock follow tokio's from now on. Call it in the runtime, whose clock is paused.
pub fn follow_tokio() {
    let began = Instant::now();
    CLOCK.set(CLOCK.get().map(|clock| Clock {
        began: Some(began),
        ..clock
    }));
}

/// The simulated time; `None` on any other thread.
fn simulated(clock: clockid_t) -> Option<Duration> {
    let simulated = CLOCK.try_with(Cell::get).ok()??;
    let origin = match clock {
        libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_COARSE => simulated.unix,
        // Processor time is not simulated.
        libc::CLOCK_PROCESS_CPUTIME_ID | libc::CLOCK_THREAD_CPUTIME_ID => return None,
        _ => UP,
    };
    if IS_ASKING.replace(true) {
        return Some(origin);
    }
    let passed = simulated.began.map(|began| began.elapsed());
    IS_ASKING.set(false);
    ASKED.set(ASKED.get() + 1);
    let asked = Duration::from_micros(ASKED.get());
    Some(origin + passed.unwrap_or_default() + asked)
}

/// Replaces the C library's. See `clock_gettime(2)`.
///
/// # Safety
/// `time` is null or may be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: clockid_t, time: *mut timespec) -> c_int {
    let Some(now) = simulated(clock).filter(|_| !time.is_null()) else {
        // SAFETY: as asked, by the caller's promise.
        return unsafe {
            c_syscall(
                libc::SYS_clock_gettime,
                clock.into(),
                time as c_long,
                0,
                0,
                0,
                0,
            ) as c_int
        };
    };
    let now = timespec {
        tv_sec: now.as_secs() as time_t,
        tv_nsec: now.subsec_nanos() as c_long,
    };
    // SAFETY: it is not null, and may be written to by the caller's promise.
    unsafe { time.write(now) };
    0
}

/// Replaces the C library's. See `getrandom(2)`.
///
/// # Safety
/// `length` bytes may be written to at `bytes`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(bytes: *mut c_void, length: size_t, flags: c_uint) -> ssize_t {
    // SAFETY: as asked, by the caller's promise.
    let filled = unsafe { fill(bytes, length) };
    // SAFETY: as asked, by the caller's promise.
    filled.unwrap_or_else(|| unsafe {
        c_syscall(
            libc::SYS_getrandom,
            bytes as c_long,
            length as c_long,
            flags.into(),
            0,
            0,
            0,
        ) as ssize_t
    })
}

/// Fills `bytes` with a simulated thread's randomness; `None` on any other thread.
///
/// # Safety
/// `bytes` is null, or `length` bytes may be written to there.
unsafe fn fill(bytes: *mut c_void, length: size_t) -> Option<ssize_t> {
    let filled = RANDOM.try_with(|random| {
        let mut random = random.try_borrow_mut().ok()?;
        let random = random.as_mut().filter(|_| !bytes.is_null())?;
        // SAFETY: not null, and so many bytes may be written to by the caller's promise.
        let bytes = unsafe { std::slice::from_raw_parts_mut(bytes.cast::<u8>(), length) };
        random.fill_bytes(bytes);
        Some(length as ssize_t)
    });
    filled.ok().flatten()
}

/// Replaces the C library's, by which version 0.2 of the crate `getrandom` asks the kernel. See `syscall(2)`.
///
/// In C its parameters after the first vary. They are passed in the same places all the same (the calling conventions of
/// x86-64 and of AArch64), and those that the caller left out are passed on unread.
///
/// # Safety
/// As of the call that `number` names.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn syscall(
    number: c_long,
    a: c_long,
    b: c_long,
    c: c_long,
    d: c_long,
    e: c_long,
    f: c_long,
) -> c_long {
    if number == libc::SYS_getrandom {
        // SAFETY: as asked, by the caller's promise.
        if let Some(filled) = unsafe { fill(a as *mut c_void, b as size_t) } {
            return filled as c_long;
        }
    }
    // SAFETY: as asked, by the caller's promise.
    unsafe { c_syscall(number, a, b, c, d, e, f) }
}

/// Replaces the C library's. See `posix_fallocate(3)`.
///
/// A simulated chain allocates 16 MiB for each of its files before it writes a few kilobytes, which takes a tenth of a
/// run. There is always space for it.
#[unsafe(no_mangle)]
pub extern "C" fn posix_fallocate(file: c_int, offset: off_t, length: off_t) -> c_int {
    if matches!(CLOCK.try_with(Cell::get), Ok(Some(_))) {
        return 0;
    }
    // SAFETY: it takes three numbers, and touches nothing of this process.
    let failed = unsafe {
        c_syscall(
            libc::SYS_fallocate,
            file.into(),
            0,
            offset as c_long,
            length as c_long,
            0,
            0,
        )
    };
    match failed {
        0 => 0,
        _ => std::io::Error::last_os_error()
            .raw_os_error()
            .unwrap_or(libc::EIO),
    }
}

/// The C library's own.
///
/// # Safety
/// As of the call that `number` names.
unsafe fn c_syscall(
    number: c_long,
    a: c_long,
    b: c_long,
    c: c_long,
    d: c_long,
    e: c_long,
    f: c_long,
) -> c_long {
    type Syscall = unsafe extern "C" fn(c_long, ...) -> c_long;
    static NEXT: AtomicPtr<c_void> = AtomicPtr::new(null_mut());
    let mut next = NEXT.load(Ordering::Relaxed);
    if next.is_null() {
        // SAFETY: the name ends with a zero.
        next = unsafe { libc::dlsym(libc::RTLD_NEXT, c"syscall".as_ptr()) };
        NEXT.store(next, Ordering::Relaxed);
    }
    // SAFETY: a null pointer is `None`, and any other is this function of the C library.
    let next: Option<Syscall> = unsafe { std::mem::transmute(next) };
    match next {
        // SAFETY: as asked, by the caller's promise.
        Some(next) => unsafe { next(number, a, b, c, d, e, f) },
        None => std::process::abort(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::HashMap;
    use std::time::{Instant, SystemTime, UNIX_EPOCH};

    use super::*;

    /// Randomness and time of a thread, over an hour.
    fn hour(seed: u64) -> (Vec<u64>, Duration, Duration) {
        let thread = std::thread::spawn(move || {
            enter(seed, Duration::from_secs(1_800_000_000));
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .start_paused(true)
                .build()
                .unwrap();
            runtime.block_on(async {
                follow_tokio();
                let order: HashMap<u64, ()> = (0..100).map(|key| (key, ())).collect();
                let before = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
                let measured = Instant::now();
                tokio::time::sleep(Duration::from_secs(3600)).await;
                let after = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
                assert_eq!(measured.elapsed().as_secs(), 3600);
                (order.into_keys().collect(), before, after - before)
            })
        });
        thread.join().unwrap()
    }

    #[test]
    fn a_seed_decides_randomness_and_an_hour_passes_at_once() {
        let (order, began, passed) = hour(1);
        assert_eq!(hour(1), (order.clone(), began, passed));
        assert_ne!(hour(2).0, order);
        assert_eq!(began.as_secs(), 1_800_000_000);
        assert_eq!(passed.as_secs(), 3600);
    }

    /// Libraries call either `getrandom` or `syscall`.
    #[test]
    fn both_ways_to_ask_give_what_the_seed_decides() {
        let ask = |seed| {
            let thread = std::thread::spawn(move || {
                enter(seed, Duration::ZERO);
                let mut bytes = [[0_u8; 16]; 2];
                let [first, second] = &mut bytes;
                // SAFETY: both are 16 bytes long.
                unsafe {
                    let filled = libc::getrandom(first.as_mut_ptr().cast(), 16, 0);
                    assert_eq!(filled, 16);
                    let into = second.as_mut_ptr();
                    let filled = libc::syscall(libc::SYS_getrandom, into, 16_usize, 0);
                    assert_eq!(filled, 16);
                }
                bytes
            });
            thread.join().unwrap()
        };
        assert_eq!(ask(1), ask(1));
        assert_ne!(ask(1), ask(2));
        assert_ne!(ask(1)[0], ask(1)[1]);
    }

    #[test]
    fn room_is_set_aside_on_other_threads_only() {
        use std::os::fd::AsRawFd;
        let length_after = |is_simulated: bool| {
            let thread = std::thread::spawn(move || {
                if is_simulated {
                    enter(1, Duration::ZERO);
                }
                let file = tempfile::tempfile().unwrap();
                assert_eq!(posix_fallocate(file.as_raw_fd(), 0, 4096), 0);
                file.metadata().unwrap().len()
            });
            thread.join().unwrap()
        };
        assert_eq!(length_after(false), 4096);
        assert_eq!(length_after(true), 0);
        assert_eq!(posix_fallocate(-1, 0, 4096), libc::EBADF);
    }

    #[test]
    fn other_threads_have_the_systems() {
        let order = || {
            let order = std::thread::spawn(|| {
                let keys: HashMap<u64, ()> = (0..100).map(|key| (key, ())).collect();
                keys.into_keys().collect::<Vec<_>>()
            });
            order.join().unwrap()
        };
        assert_ne!(order(), order());
        assert_ne!(
            SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap()
                .as_secs(),
            1_800_000_000
        );
    }
}
