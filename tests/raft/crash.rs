//! kill -9 and failing fsyncs, on a real process: the test binary runs itself again as the node.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use caxton_raft::{ProposeError, ReadError, Timers};

use crate::support::{groups, numbers, open_journal, snapshots_every};

/// Names the folder of the process that [`child`] is to be.
const CHILD_DIR: &str = "CAXTON_TEST_CHILD_DIR";
const KILLS: u64 = 12;

/// Not a test by itself: the process that the others kill. It puts numbers and prints each that was acknowledged.
#[tokio::test]
async fn child() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else {
        return;
    };
    let groups = groups(Path::new(&dir), snapshots_every(50)).unwrap();
    let (group, _) = open_journal(&groups, 1).await.unwrap();
    let from = group.read_index().await.unwrap();
    for number in from.. {
        match group.propose(number.to_string().into()).await {
            Ok(_) => println!("\nacknowledged {number}"),
            Err(error) => {
                println!("\nrefused {error}");
                let again = group.propose("again".into()).await.unwrap_err();
                assert!(matches!(again, ProposeError::Fatal { .. }), "{again:?}");
                let read = group.read_index().await.unwrap_err();
                assert!(matches!(read, ReadError::Fatal { .. }), "{read:?}");
                println!("\nstopped {}", group.status().borrow().fatal.is_some());
                return;
            }
        }
    }
}

fn spawn(mut command: Command, dir: &Path) -> (Child, impl Iterator<Item = String> + use<>) {
    command.env(CHILD_DIR, dir).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    (child, lines)
}

fn node(command: &mut Command) -> &mut Command {
    command.args(["--exact", "crash::child", "--nocapture", "--test-threads=1"])
}

#[tokio::test]
async fn what_was_acknowledged_before_a_kill_is_there() {
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos() as u64;
    println!("seed {seed}");
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = 0;
    for kill in 0..KILLS {
        let mut command = Command::new(std::env::current_exe().unwrap());
        node(&mut command);
        let (mut child, lines) = spawn(command, dir.path());
        // A random number of acknowledgements, and then the time of a fraction of one more.
        let until = (seed >> kill) % 97;
        let mut numbers = lines.filter_map(|line| line.strip_prefix("acknowledged ")?.parse::<u64>().ok());
        acknowledged = acknowledged.max(numbers.nth(until as usize).expect("an acknowledgement") + 1);
        std::thread::sleep(Duration::from_micros((seed >> kill) % 499));
        child.kill().unwrap();
        child.wait().unwrap();
        // What the process still said before it died counts as well.
        acknowledged = numbers.fold(acknowledged, |most, number| most.max(number + 1));
    }
    let groups = groups(dir.path(), Timers::default()).unwrap();
    let (group, journal) = open_journal(&groups, 1).await.unwrap();
    let index = group.read_index().await.unwrap();
    // The command under way may or may not have made it.
    assert!((acknowledged..=acknowledged + 1).contains(&index), "{index} of {acknowledged}");
    assert_eq!(journal.commands(), numbers(index));
}

/// Runs the node under strace, which lets fsyncs fail from the `nth` on.
fn with_failing_fsyncs(dir: &Path, nth: u32) -> Vec<String> {
    let mut command = Command::new("strace");
    command.args(["-f", "-q", "-o", "/dev/null", "-e", "trace=fdatasync,fsync"]);
    command.args(["-e", &format!("inject=fdatasync:error=EIO:when={nth}")]);
    command.arg(std::env::current_exe().unwrap());
    node(&mut command);
    let (mut child, lines) = spawn(command, dir);
    let lines = lines.collect();
    child.wait().unwrap();
    lines
}

#[tokio::test]
async fn a_failed_fsync_stops_the_group_and_is_not_tried_again() {
    if Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_err() {
        eprintln!("skipped: this test needs strace (apt-get install strace)");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    // strace counts by thread: only one fdatasync of the thread that syncs fails, and a second try would succeed.
    let lines = with_failing_fsyncs(dir.path(), 30);
    let refused: Vec<_> = lines.iter().filter(|line| line.starts_with("refused ")).collect();
    assert_eq!(refused.len(), 1, "{lines:?}");
    assert!(refused[0].contains("fsync failed"), "{refused:?}");
    assert!(lines.iter().any(|line| line == "stopped true"), "{lines:?}");
    let acknowledged = lines.iter().filter(|line| line.starts_with("acknowledged ")).count() as u64;
    assert!(acknowledged > 0, "{lines:?}");
    let groups = groups(dir.path(), Timers::default()).unwrap();
    let (group, journal) = open_journal(&groups, 1).await.unwrap();
    assert!(group.read_index().await.unwrap() >= acknowledged);
    assert_eq!(journal.commands()[..acknowledged as usize], numbers(acknowledged));
}
