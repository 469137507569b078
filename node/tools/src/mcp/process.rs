//! A child process that speaks MCP over its standard input and output.
//!
//! It is not sandboxed. It gets an environment of its own (nothing of the node's that is not named), an empty folder to
//! start in, a process group that ends with it, and a line-length limit on what it says.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use rmcp::RoleClient;
use rmcp::transport::async_rw::AsyncRwTransport;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::runtime::Handle;
use tracing::{info, warn};

/// How long a process may take to end by itself when it is told to.
const GRACE: Duration = Duration::from_secs(2);
/// What is kept of one line that it writes to its standard error.
const COMPLAINT_BYTES_MAX: u64 = 1_000;
/// Lines of one process that are kept; the rest is read and dropped, so that it is never held up.
const COMPLAINTS_MAX: usize = 1_000;
/// Values of its environment shorter than this are not looked for in its complaints.
const SECRET_BYTES_MIN: usize = 6;

pub(super) type Transport = AsyncRwTransport<RoleClient, ChildStdout, ChildStdin>;

/// A process that ends, with all that it started, when this is dropped.
pub(super) struct Process {
    child: Option<Child>,
    runtime: Handle,
    // Removed when the process is told to end.
    _folder: tempfile::TempDir,
}

impl Process {
    pub(super) fn start(
        name: &str,
        command: &str,
        args: &[String],
        env: &BTreeMap<String, String>,
        line_bytes_max: usize,
    ) -> std::io::Result<(Process, Transport)> {
        let folder = tempfile::Builder::new().prefix("caxton-mcp-").tempdir()?;
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
        if let Some(complaints) = child.stderr.take() {
            let hidden = env.values().filter(|value| value.len() >= SECRET_BYTES_MIN).cloned().collect();
            tokio::spawn(listen(name.to_owned(), complaints, hidden));
        }
        let transport = AsyncRwTransport::new(output, input).with_max_line_length(line_bytes_max);
        Ok((Process { child: Some(child), runtime: Handle::current(), _folder: folder }, transport))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
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
async fn listen(tool: String, complaints: ChildStderr, hidden: Vec<String>) {
    let mut complaints = BufReader::new(complaints);
    let mut line = Vec::new();
    for number in 0_usize.. {
        line.clear();
        let read = (&mut complaints).take(COMPLAINT_BYTES_MAX).read_until(b'\n', &mut line).await;
        if !matches!(read, Ok(bytes) if bytes > 0) {
            return;
        }
        if number == COMPLAINTS_MAX {
            warn!(tool, lines_max = COMPLAINTS_MAX, "the tool logs too much: the rest of this process is dropped");
        }
        if number >= COMPLAINTS_MAX {
            continue;
        }
        let mut text = String::from_utf8_lossy(&line).trim_end().to_owned();
        for value in &hidden {
            text = text.replace(value, "[hidden]");
        }
        // A line break or an escape sequence would forge other lines, or play with the operator's terminal.
        let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        info!(tool, "{line}");
    }
}
