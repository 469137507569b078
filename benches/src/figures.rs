//! How many in a second, and how long each took.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

/// What an entry of 256 bytes comes to with its headers.
const CONTROL_BYTES: usize = 350;

/// What a measurement found.
#[derive(Debug, Clone, Copy)]
pub struct Figures {
    /// How many in a second.
    pub rate: f64,
    /// The median.
    pub p50: Duration,
    /// 99 of 100 took no longer.
    pub p99: Duration,
}

impl Figures {
    /// The figures of what took `times`, all of it within `took`.
    pub fn of(mut times: Vec<Duration>, took: Duration) -> Result<Figures> {
        ensure!(!times.is_empty(), "nothing was measured");
        times.sort_unstable();
        let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
        Ok(Figures { rate: times.len() as f64 / took.as_secs_f64(), p50: at(0.5), p99: at(0.99) })
    }

    /// The median and the 99th percentile in milliseconds.
    pub fn ms(&self) -> (f64, f64) {
        (self.p50.as_secs_f64() * 1e3, self.p99.as_secs_f64() * 1e3)
    }
}

/// The control: how long each append with fdatasync takes somebody who does nothing else in `dir`.
pub fn bare_fdatasync(dir: &Path, seconds: Duration) -> Result<Vec<Duration>> {
    let mut file = File::create(dir.join("control"))?;
    let (start, mut times) = (Instant::now(), Vec::new());
    while start.elapsed() < seconds {
        let before = Instant::now();
        file.write_all(&[b'x'; CONTROL_BYTES])?;
        file.sync_data()?;
        times.push(before.elapsed());
    }
    Ok(times)
}

/// How long this thread has had a processor: what a measurement took, on a machine that others use too.
pub fn thread_time() -> Duration {
    let mut spent = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call fills the struct that it is given.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut spent) };
    assert_eq!(failed, 0, "there is no clock of the thread");
    Duration::new(spent.tv_sec.unsigned_abs(), u32::try_from(spent.tv_nsec).unwrap_or(0))
}

/// Lets `clients` do `call` for a while, each waiting for its answer before it calls again.
pub async fn drive<F, P>(clients: usize, seconds: Duration, call: F) -> Result<Figures>
where
    F: Fn(usize, u64) -> P + Clone + Send + 'static,
    P: Future<Output = Result<()>> + Send,
{
    let start = Instant::now();
    let tasks = (0..clients).map(|client| {
        let call = call.clone();
        tokio::spawn(async move {
            let mut times = Vec::new();
            while start.elapsed() < seconds {
                let before = Instant::now();
                call(client, times.len() as u64).await?;
                times.push(before.elapsed());
            }
            anyhow::Ok(times)
        })
    });
    let mut times = Vec::new();
    for task in tasks.collect::<Vec<_>>() {
        times.extend(task.await??);
    }
    Figures::of(times, start.elapsed())
}

/// What calls by the clock took.
#[derive(Debug, Clone, Copy)]
pub struct ByTheClock {
    /// From the moment at which each call was due: a server that stalls cannot hide it by being asked less, and neither
    /// can a client that comes late.
    pub due: Figures,
    /// From the moment at which each call was made.
    pub made: Figures,
}

/// Makes `rate` calls a second by the clock, from threads that take turns and sleep in between: an asynchronous timer
/// ticks in milliseconds. A thread whose answer is late makes its next call late, and that counts from when it was due.
pub fn drive_at<C>(rate: f64, seconds: Duration, callers: Vec<C>) -> Result<ByTheClock>
where
    C: FnMut(u64) -> Result<()> + Send + 'static,
{
    let start = Instant::now() + Duration::from_millis(20);
    let (threads, calls) = (callers.len() as u64, (rate * seconds.as_secs_f64()) as u64);
    let running = callers.into_iter().enumerate().map(|(thread, mut call)| {
        std::thread::spawn(move || {
            let (mut due_times, mut made_times) = (Vec::new(), Vec::new());
            for number in (thread as u64..calls).step_by(threads as usize) {
                let due = start + Duration::from_secs_f64(number as f64 / rate);
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                let made = Instant::now();
                call(number)?;
                made_times.push(made.elapsed());
                due_times.push(due.elapsed());
            }
            anyhow::Ok((due_times, made_times))
        })
    });
    let (mut due, mut made) = (Vec::new(), Vec::new());
    for thread in running.collect::<Vec<_>>() {
        let times = thread.join().map_err(|_| anyhow::anyhow!("a client panicked"))??;
        due.extend(times.0);
        made.extend(times.1);
    }
    let took = start.elapsed();
    Ok(ByTheClock { due: Figures::of(due, took)?, made: Figures::of(made, took)? })
}
