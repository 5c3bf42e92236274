//! A small spin-then-park thread pool for the parallel regions of a forward pass.
//!
//! A decode step of a small model has some 150 regions of 5 to 30 µs each, so that waking threads through the kernel
//! for each would cost more than the work. Idle workers therefore spin for a moment, then yield, then park.
//! A worker *joins* a region; the caller waits only for those that did, so that a worker which the operating system
//! has put aside never holds up a region that the others have finished.
//!
//! The indices of a region are cut into as many shares as there are threads. A thread works through its own share first
//! and then helps with the others', index by index: neighbouring indices stay on one thread, whose core reads one
//! stretch of memory ahead, and a thread that is slow still takes fewer.

use std::any::Any;
use std::cell::UnsafeCell;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Set in the region word while workers may join.
const OPEN: u64 = 1 << 16;
/// The workers that have joined and not left.
const JOINED: u64 = OPEN - 1;
/// The region word counts regions from this bit on.
const EPOCH_SHIFT: u32 = 32;
/// Idle threads burn their core this long for the fastest dispatch …
const SPIN: Duration = Duration::from_micros(60);
/// … then offer it to others until this long after they became idle, then park.
const YIELD: Duration = Duration::from_millis(2);

/// A fixed set of threads that run parallel regions together with their caller.
///
/// A region started while another one runs, from inside a task or from another thread, runs on its caller alone.
pub struct ThreadPool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

/// Keeps what one thread writes often off the cache lines (and their prefetched neighbours) of the rest.
#[repr(align(128))]
struct Apart<T>(T);

struct Shared {
    /// Epoch, [`OPEN`] and the number of joined workers, in one word so that joining and closing exclude each other.
    region: Apart<AtomicU64>,
    /// Next index of each share to hand out, by thread.
    next: Box<[Apart<AtomicUsize>]>,
    /// Written by the caller only while the region is closed and no worker is joined.
    job: UnsafeCell<Job>,
    busy: AtomicBool,
    sleepers: AtomicUsize,
    stop: AtomicBool,
    door: Mutex<()>,
    wake: Condvar,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

#[derive(Clone, Copy)]
struct Job {
    task: *const (dyn Fn(usize) + Sync),
    count: usize,
}

// SAFETY: `job` is the only part that is not thread-safe by itself. The caller writes it while `region` is closed with
// nobody joined, opens the region with release ordering, and workers read it only after joining with acquire ordering.
unsafe impl Sync for Shared {}
// SAFETY: the task behind the pointer is `Sync`, and the pointer is dereferenced only while its owner waits in `run`.
unsafe impl Send for Shared {}

impl ThreadPool {
    /// A pool of `threads` threads, the caller of [`ThreadPool::run`] being one of them; at least one.
    ///
    /// Where the system refuses a thread the pool makes do with those it got, see [`ThreadPool::threads`].
    pub fn new(threads: usize) -> Self {
        let threads = threads.clamp(1, JOINED as usize);
        let nothing: &'static (dyn Fn(usize) + Sync) = &|_| {};
        let shared = Arc::new(Shared {
            region: Apart(AtomicU64::new(0)),
            next: (0..threads).map(|_| Apart(AtomicUsize::new(0))).collect(),
            job: UnsafeCell::new(Job { task: nothing, count: 0 }),
            busy: AtomicBool::new(false),
            sleepers: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            door: Mutex::new(()),
            wake: Condvar::new(),
            panic: Mutex::new(None),
        });
        let workers = (1..threads)
            .map_while(|index| {
                let shared = Arc::clone(&shared);
                let builder = std::thread::Builder::new().name(format!("sketchkv-{index}"));
                builder.spawn(move || shared.serve(index)).ok()
            })
            .collect();
        ThreadPool { shared, workers }
    }

    /// Number of threads, the caller included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs `task(i)` once for every `i` in `0..count` and returns when all are done.
    ///
    /// Neighbouring indices go to one thread as far as all are equally fast; see the module.
    ///
    /// # Panics
    /// When a task panics: with the payload of one that did, after the region has ended on all threads. Indices not
    /// begun by then are skipped.
    pub fn run(&self, count: usize, task: &(dyn Fn(usize) + Sync)) {
        let alone = count <= 1 || self.workers.is_empty();
        if alone || self.shared.busy.swap(true, Ordering::Acquire) {
            return (0..count).for_each(task);
        }
        let job = self.shared.open(count, task);
        self.shared.work(job, 0);
        self.shared.close();
        let panic = self.shared.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.shared.busy.store(false, Ordering::Release);
        if let Some(payload) = panic {
            resume_unwind(payload);
        }
    }

    /// Runs `task` over `0..len` cut into ranges of `grain` (the last may be shorter).
    pub fn run_ranges(&self, len: usize, grain: usize, task: &(dyn Fn(Range<usize>) + Sync)) {
        let grain = grain.max(1);
        self.run(len.div_ceil(grain), &|i| task(i * grain..len.min((i + 1) * grain)));
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.wake_all();
        for worker in self.workers.drain(..) {
            // A worker catches the panics of its tasks, so there is nothing to learn from its result.
            let _ = worker.join();
        }
    }
}

impl Shared {
    /// Publishes a region; the caller holds `busy`.
    fn open(&self, count: usize, task: &(dyn Fn(usize) + Sync)) -> Job {
        // SAFETY: only the lifetime is erased; `close` returns, before the borrow ends, once no worker is joined.
        let task = unsafe {
            std::mem::transmute::<*const (dyn Fn(usize) + Sync + '_), *const (dyn Fn(usize) + Sync + 'static)>(
                task,
            )
        };
        let job = Job { task, count };
        // SAFETY: the region is closed and nobody is joined, see `job`.
        unsafe { *self.job.get() = job };
        for share in 0..self.shares(count) {
            self.next[share].0.store(self.share(count, share).start, Ordering::Relaxed);
        }
        let epoch = (self.region.0.load(Ordering::Relaxed) >> EPOCH_SHIFT).wrapping_add(1) << EPOCH_SHIFT;
        // Sequentially consistent with the sleeper's count: either it sees the region or we see the sleeper.
        self.region.0.store(epoch | OPEN, Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            self.wake_all();
        }
        job
    }

    /// Ends the region: lets nobody join any more and waits for those that have.
    fn close(&self) {
        let mut state = self.region.0.fetch_and(!OPEN, Ordering::AcqRel);
        let mut patience = Patience::new();
        while state & JOINED != 0 {
            patience.wait();
            state = self.region.0.load(Ordering::Acquire);
        }
    }

    /// Number of shares that `count` indices are cut into.
    fn shares(&self, count: usize) -> usize {
        self.next.len().min(count)
    }

    /// The indices of share `share`.
    fn share(&self, count: usize, share: usize) -> Range<usize> {
        let shares = self.shares(count);
        share * count / shares..(share + 1) * count / shares
    }

    /// Takes indices of the region, those of thread `thread` first, until none are left.
    fn work(&self, job: Job, thread: usize) {
        let shares = self.shares(job.count);
        let result = catch_unwind(AssertUnwindSafe(|| {
            // SAFETY: `run` keeps the task alive until every thread that works on it has left the region.
            let task = unsafe { &*job.task };
            for turn in 0..shares {
                let share = (thread + turn) % shares;
                let end = self.share(job.count, share).end;
                loop {
                    let index = self.next[share].0.fetch_add(1, Ordering::Relaxed);
                    if index >= end {
                        break;
                    }
                    task(index);
                }
            }
        }));
        if let Err(payload) = result {
            self.next[..shares].iter().for_each(|next| next.0.store(job.count, Ordering::Relaxed));
            *self.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(payload);
        }
    }

    /// The life of worker `thread`.
    fn serve(&self, thread: usize) {
        let mut seen = 0;
        while let Some(epoch) = self.join(seen) {
            seen = epoch;
            // SAFETY: this thread is joined, so the caller does not write the job.
            let job = unsafe { *self.job.get() };
            self.work(job, thread);
            self.region.0.fetch_sub(1, Ordering::Release);
        }
    }

    /// Joins the next open region that is not `seen` and returns its epoch, or `None` when the pool ends.
    fn join(&self, seen: u64) -> Option<u64> {
        let mut patience = Patience::new();
        loop {
            let state = self.region.0.load(Ordering::Acquire);
            if self.is_new(state, seen) {
                let joined = self.region.0.compare_exchange_weak(
                    state,
                    state + 1,
                    Ordering::AcqRel,
                    Ordering::Relaxed,
                );
                if joined.is_ok() {
                    return Some(state >> EPOCH_SHIFT);
                }
            } else if self.stop.load(Ordering::Relaxed) {
                return None;
            } else if patience.is_over() {
                self.sleep(seen);
                patience = Patience::new();
            } else {
                patience.wait();
            }
        }
    }

    fn is_new(&self, state: u64, seen: u64) -> bool {
        state & OPEN != 0 && state >> EPOCH_SHIFT != seen
    }

    /// Parks until a region opens or the pool ends. May return early: the caller looks again anyway.
    fn sleep(&self, seen: u64) {
        let door = self.door.lock().unwrap_or_else(PoisonError::into_inner);
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        let nothing_to_do =
            !self.is_new(self.region.0.load(Ordering::SeqCst), seen) && !self.stop.load(Ordering::SeqCst);
        if nothing_to_do {
            drop(self.wake.wait(door));
        }
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }

    fn wake_all(&self) {
        // Through the door, so that a thread between its last look and its wait is not missed.
        drop(self.door.lock().unwrap_or_else(PoisonError::into_inner));
        self.wake.notify_all();
    }
}

/// How a thread waits: ever more politely.
struct Patience {
    rounds: u32,
    since: Option<Instant>,
    waited: Duration,
}

impl Patience {
    /// Pauses between two looks at the clock, which costs as much as a few pauses.
    const ROUNDS_PER_LOOK: u32 = 16;

    fn new() -> Self {
        Patience { rounds: 0, since: None, waited: Duration::ZERO }
    }

    fn wait(&mut self) {
        if self.waited > SPIN {
            std::thread::yield_now();
            self.look();
            return;
        }
        std::hint::spin_loop();
        self.rounds += 1;
        if self.rounds.is_multiple_of(Self::ROUNDS_PER_LOOK) {
            self.look();
        }
    }

    fn look(&mut self) {
        self.waited = self.since.get_or_insert_with(Instant::now).elapsed();
    }

    fn is_over(&self) -> bool {
        self.waited > YIELD
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum_of_indices(pool: &ThreadPool, count: usize) -> usize {
        let sum = AtomicUsize::new(0);
        pool.run(count, &|i| {
            sum.fetch_add(i + 1, Ordering::Relaxed);
        });
        sum.into_inner()
    }

    #[test]
    fn every_index_runs_once() {
        for threads in [1, 2, 3, 8] {
            let pool = ThreadPool::new(threads);
            assert_eq!(pool.threads(), threads);
            for count in [0, 1, 2, 7, 1000] {
                let hits: Vec<AtomicUsize> = (0..count).map(|_| AtomicUsize::new(0)).collect();
                pool.run(count, &|i| {
                    hits[i].fetch_add(1, Ordering::Relaxed);
                });
                assert!(hits.iter().all(|h| h.load(Ordering::Relaxed) == 1));
            }
        }
    }

    #[test]
    fn ranges_cover_the_length() {
        let pool = ThreadPool::new(2);
        for (len, grain) in [(0, 3), (10, 3), (9, 3), (5, 100), (4, 0)] {
            let seen = Mutex::new(vec![0; len]);
            pool.run_ranges(len, grain, &|range| {
                seen.lock().unwrap()[range].iter_mut().for_each(|s| *s += 1)
            });
            assert!(seen.into_inner().unwrap().iter().all(|&s| s == 1));
        }
    }

    #[test]
    fn many_small_regions_with_pauses() {
        let pool = ThreadPool::new(3);
        for round in 0..30_000_usize {
            let count = round % 5;
            assert_eq!(sum_of_indices(&pool, count), count * (count + 1) / 2);
            if round % 3000 == 0 {
                // Long enough to park.
                std::thread::sleep(2 * YIELD);
            }
        }
    }

    #[test]
    fn callers_on_many_threads_and_more_threads_than_cores() {
        let pool = ThreadPool::new(8);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..2000).for_each(|_| assert_eq!(sum_of_indices(&pool, 10), 55)));
            }
        });
    }

    #[test]
    fn nested_regions_run_inline() {
        let pool = ThreadPool::new(2);
        let total = AtomicUsize::new(0);
        pool.run(10, &|_| {
            total.fetch_add(sum_of_indices(&pool, 4), Ordering::Relaxed);
        });
        assert_eq!(total.into_inner(), 100);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
        let pool = ThreadPool::new(3);
        for bad in 0..50 {
            let result = catch_unwind(AssertUnwindSafe(|| {
                pool.run(50, &|i| assert_ne!(i, bad, "task {i}"));
            }));
            let message = *result.unwrap_err().downcast::<String>().unwrap();
            assert!(message.contains(&format!("task {bad}")), "{message}");
            assert_eq!(sum_of_indices(&pool, 100), 5050);
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn idle_workers_use_no_processor() {
        let busy = |pool: &ThreadPool| -> u64 {
            // Time of the worker threads in clock ticks, from /proc/self/task/*/stat, found by their name.
            let _ = pool;
            let tasks = std::fs::read_dir("/proc/self/task").unwrap();
            let stats =
                tasks.filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("stat")).ok());
            stats
                .filter(|stat| stat.contains("(sketchkv-41)"))
                .map(|stat| {
                    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
                    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
                })
                .sum()
        };
        // Only this test makes a pool with a 41st worker.
        let pool = ThreadPool::new(42);
        sum_of_indices(&pool, 1000);
        std::thread::sleep(Duration::from_millis(100));
        let before = busy(&pool);
        std::thread::sleep(Duration::from_millis(500));
        assert!(busy(&pool) <= before + 1, "a parked worker ran for more than a clock tick in half a second");
    }
}
