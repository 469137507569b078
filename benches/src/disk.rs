//! Whether the disk stood still: a machine that shares its disk with others has moments in which it completes nothing, and whoever
//! waits for an fsync then waits as long. It is read from the kernel's counters, so that it costs the disk nothing
//! (<https://docs.kernel.org/block/stat.html>).

use std::fs;
use std::os::linux::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

/// How often the counters are read.
const BEAT: Duration = Duration::from_millis(10);
/// A disk that completed nothing for less long than this was only busy.
const STOOD: Duration = Duration::from_millis(50);

/// From when until when the disk completed nothing, though something waited for it.
#[derive(Debug, Clone, Copy)]
pub struct Standstill {
    /// When the last thing before it was completed.
    pub from: Instant,
    /// When the next one was.
    pub until: Instant,
}

/// Watches the disk that holds a folder, until it is asked what it saw.
pub struct Watch {
    done: Arc<AtomicBool>,
    thread: JoinHandle<Result<Vec<Standstill>>>,
}

/// What the kernel counts of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Counters {
    /// Reads, writes and flushes that were completed since the machine started.
    completed: [u64; 3],
    /// Whether something is under way.
    waits: bool,
}

/// What was seen since the disk completed something.
struct Looks {
    last: Counters,
    from: Instant,
    /// When nothing more had been completed yet: a look that came late proves nothing by itself.
    seen: Instant,
}

impl Watch {
    /// Begins. A folder that no disk of its own holds, as one in memory, gives `None`.
    pub fn start(dir: &Path) -> Result<Option<Watch>> {
        let device = fs::metadata(dir)?.st_dev();
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        let file = PathBuf::from(format!("/sys/dev/block/{major}:{minor}/stat"));
        if !fs::exists(&file)? {
            return Ok(None);
        }
        read(&file)?;
        let done = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&done);
        Ok(Some(Watch { done, thread: thread::Builder::new().name("disk".into()).spawn(move || watch(&file, &stop))? }))
    }

    /// Ends, and says when the disk stood still.
    pub fn end(self) -> Result<Vec<Standstill>> {
        self.done.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow!("watching the disk panicked"))?
    }
}

fn watch(file: &Path, done: &AtomicBool) -> Result<Vec<Standstill>> {
    let (mut stills, mut looks) = (Vec::new(), Looks::begin(read(file)?, Instant::now()));
    while !done.load(Ordering::Relaxed) {
        thread::sleep(BEAT);
        stills.extend(looks.next(read(file)?, Instant::now()));
    }
    Ok(stills)
}

impl Looks {
    fn begin(counters: Counters, now: Instant) -> Looks {
        Looks { last: counters, from: now, seen: now }
    }

    /// The standstill that ended before this look.
    fn next(&mut self, counters: Counters, now: Instant) -> Option<Standstill> {
        if self.last.waits && counters == self.last {
            self.seen = now;
            return None;
        }
        let stood = (self.seen - self.from >= STOOD).then_some(Standstill { from: self.from, until: now });
        *self = Looks::begin(counters, now);
        stood
    }
}

fn read(file: &Path) -> Result<Counters> {
    parse(&fs::read_to_string(file)?).with_context(|| format!("{} is not a disk's counters", file.display()))
}

fn parse(text: &str) -> Option<Counters> {
    let fields: Vec<u64> = text.split_ascii_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
    // Kernels before 5.5 do not count flushes.
    let completed = [*fields.first()?, *fields.get(4)?, fields.get(15).copied().unwrap_or(0)];
    Some(Counters { completed, waits: *fields.get(8)? > 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(writes: u64, under_way: u64) -> Counters {
        parse(&format!("10 0 0 0 {writes} 0 0 0 {under_way} 0 0 0 0 0 0 7 0\n")).expect("counters")
    }

    /// What is seen when the disk is looked at after so many milliseconds each time.
    fn seen(looks: &[(u64, Counters)]) -> Vec<Duration> {
        let began = Instant::now();
        let mut all = Looks::begin(counters(0, 0), began);
        let at = |ms: &u64| began + Duration::from_millis(*ms);
        let stills = looks.iter().filter_map(|(ms, counters)| all.next(*counters, at(ms)));
        stills.map(|still| still.until - still.from).collect()
    }

    #[test]
    fn a_disk_stands_still_while_something_waits_and_nothing_is_completed() {
        let waits = counters(1, 2);
        let looks = [(10, waits), (20, waits), (70, waits), (80, counters(2, 2)), (90, counters(3, 0))];
        assert_eq!(seen(&looks), [Duration::from_millis(70)]);
    }

    #[test]
    fn an_idle_disk_a_busy_one_and_a_late_look_are_no_standstill() {
        let idle = counters(1, 0);
        assert_eq!(seen(&[(10, idle), (200, idle), (210, counters(2, 1))]), []);
        assert_eq!(seen(&[(10, counters(1, 3)), (40, counters(2, 3)), (70, counters(3, 3)), (100, idle)]), []);
        assert_eq!(seen(&[(10, counters(1, 1)), (20, counters(1, 1)), (200, counters(2, 1))]), []);
    }

    #[test]
    fn what_is_no_counters_is_refused() {
        assert_eq!(parse("1 2 3"), None);
        assert_eq!(parse("1 2 3 4 5 6 7 8 nine"), None);
    }
}
