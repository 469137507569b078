//! A child process that speaks MCP over its standard input and output.
//!
//! It is not sandboxed. It gets an environment of its own (nothing of the node's that is not named), an empty folder to
//! start in, a process group that ends with it, and a limit on what it says.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tracing::{info, warn};

use super::lines::Lines;
use super::words::Words;
use crate::scratch;

/// How long a process may take to end by itself when it is told to.
const GRACE: Duration = Duration::from_secs(2);
/// How long it is waited for what a process has to say that ended.
const LAST_WORDS_TIME_MAX: Duration = Duration::from_millis(500);
/// What is kept of one line that it writes to its standard error.
const COMPLAINT_BYTES_MAX: u64 = 1_000;
/// Lines of one process that go to the log; the rest is read and only its end is kept, so that it is never held up.
const COMPLAINTS_MAX: usize = 1_000;

pub(super) type Way = Lines<ChildStdout, ChildStdin>;

/// A process that ends, with all that it started, when this is dropped.
pub(super) struct Process {
    child: Mutex<Option<Child>>,
    words: Arc<Words>,
    /// Ends when its standard error does.
    heard: tokio::sync::Mutex<Option<oneshot::Receiver<()>>>,
    runtime: Handle,
    // Removed when the process is told to end.
    _folder: tempfile::TempDir,
}

impl Process {
    pub(super) fn start(
        name: &str,
        (command, args): (&str, &[String]),
        env: &BTreeMap<String, String>,
        folders: &Path,
        line_bytes_max: usize,
    ) -> std::io::Result<(Process, Way)> {
        let folder = scratch::for_process(folders)?;
        let mut child = Command::new(command)
            .args(args)
            .env_clear()
            .envs(env)
            .current_dir(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let taken = || std::io::Error::other("its standard streams are taken");
        let (input, output) = (child.stdin.take().ok_or_else(taken)?, child.stdout.take().ok_or_else(taken)?);
        let words = Arc::new(Words::new(env.values()));
        let (silent, heard) = oneshot::channel();
        if let Some(complaints) = child.stderr.take() {
            let (name, words) = (name.to_owned(), words.clone());
            tokio::spawn(async move {
                listen(name, complaints, &words).await;
                let _ = silent.send(());
            });
        }
        let way = Lines::new(output, input, line_bytes_max, words.clone());
        let (child, heard) = (Mutex::new(Some(child)), tokio::sync::Mutex::new(Some(heard)));
        Ok((Process { child, words, heard, runtime: Handle::current(), _folder: folder }, way))
    }

    /// How a process ended that the connection was lost to, and the last that it wrote.
    pub(super) async fn last_words(&self) -> String {
        let end = tokio::time::Instant::now() + LAST_WORDS_TIME_MAX;
        if let Some(heard) = self.heard.lock().await.take() {
            // What it started may hold its standard error open: then this is all that there is.
            let _ = tokio::time::timeout_at(end, heard).await;
        }
        let status = loop {
            let status = match &mut *self.child.lock().unwrap_or_else(PoisonError::into_inner) {
                Some(child) => child.try_wait().ok().flatten(),
                None => None,
            };
            if status.is_some() || tokio::time::Instant::now() >= end {
                break status;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        let ended = status.map(|status| format!("the process ended ({status})"));
        let parts: Vec<String> = ended.into_iter().chain(self.words.told()).collect();
        parts.join("; ")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let Some(mut child) = self.child.get_mut().unwrap_or_else(PoisonError::into_inner).take() else { return };
        let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        // It may have ended already, which is what is wanted.
        let tell = move |signal| group.map(|group| kill_process_group(group, signal));
        tell(Signal::TERM);
        self.runtime.spawn(async move {
            if tokio::time::timeout(GRACE, child.wait()).await.is_err() {
                tell(Signal::KILL);
                child.wait().await.ok();
            }
        });
    }
}

/// Puts what the process complains about into the log, without the values that it was given.
async fn listen(tool: String, complaints: ChildStderr, words: &Words) {
    let mut complaints = BufReader::new(complaints);
    let mut line = Vec::new();
    for number in 0_usize.. {
        line.clear();
        let read = (&mut complaints).take(COMPLAINT_BYTES_MAX).read_until(b'\n', &mut line).await;
        if !matches!(read, Ok(bytes) if bytes > 0) {
            return;
        }
        let line = words.keep(&line);
        if number < COMPLAINTS_MAX {
            info!(tool, "{line}");
        } else if number == COMPLAINTS_MAX {
            warn!(tool, lines_max = COMPLAINTS_MAX, "the tool logs too much: the rest of this process is dropped");
        }
    }
}
