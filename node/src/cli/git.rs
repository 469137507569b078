//! Who deploys, and from which commit: what git says, asked while the files are being hashed.
//!
//! A deployment never waits long for git and never fails because of it.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use crate::api::{Author, Git};
use crate::config::environment;

/// A repository that takes longer than this to look at is not looked at.
const GIT_TIMEOUT: Duration = Duration::from_secs(2);

/// Where a deployment comes from.
#[derive(Debug, Clone, Default)]
pub struct Origin {
    /// Who makes it: the author that a git commit would have, else the user of this machine.
    pub author: Author,
    /// The commit that the workspace is at.
    pub git: Option<Git>,
}

impl Origin {
    /// Asks git about the workspace at `root`.
    pub async fn find(root: &Path) -> Origin {
        let (author, git) = tokio::join!(author(root), state(root));
        Origin { author, git }
    }
}

/// The author alone.
pub async fn author(root: &Path) -> Author {
    let mut author = Author { name: variable("GIT_AUTHOR_NAME"), email: variable("GIT_AUTHOR_EMAIL") };
    if author.name.is_empty() || author.email.is_empty() {
        let config = run(root, &["config", "--get-regexp", "^user\\.(name|email)$"]).await.unwrap_or_default();
        // A later line is from a closer file (the repository's own after the user's).
        for line in config.lines() {
            match line.split_once(' ') {
                Some(("user.name", name)) if variable("GIT_AUTHOR_NAME").is_empty() => author.name = name.to_owned(),
                Some(("user.email", email)) if variable("GIT_AUTHOR_EMAIL").is_empty() => {
                    author.email = email.to_owned();
                }
                _ => {}
            }
        }
    }
    if author.name.is_empty() {
        author.name = [variable("USER"), variable("LOGNAME")]
            .into_iter()
            .find(|name| !name.is_empty())
            .unwrap_or_else(|| format!("uid {}", rustix::process::getuid().as_raw()));
    }
    author
}

/// The commit, the branch, and whether the workspace's files differ from the commit.
async fn state(root: &Path) -> Option<Git> {
    if !root.ancestors().any(|folder| folder.join(".git").exists()) {
        return None;
    }
    let args = ["--no-optional-locks", "status", "--porcelain=v2", "--branch", "--untracked-files=normal", "--", "."];
    parse_status(&run(root, &args).await?)
}

/// Reads `git status --porcelain=v2 --branch`; nothing before the first commit.
fn parse_status(text: &str) -> Option<Git> {
    let mut git = Git { commit: String::new(), branch: String::new(), dirty: false };
    for line in text.lines() {
        if let Some(commit) = line.strip_prefix("# branch.oid ") {
            git.commit = commit.to_owned();
        } else if let Some(branch) = line.strip_prefix("# branch.head ") {
            git.branch = if branch == "(detached)" { String::new() } else { branch.to_owned() };
        } else if !line.starts_with('#') {
            git.dirty = true;
        }
    }
    let whole = matches!(git.commit.len(), 40 | 64) && git.commit.bytes().all(|b| b.is_ascii_hexdigit());
    whole.then_some(git)
}

/// What a git command prints; nothing when it fails, is not there, or takes too long.
async fn run(root: &Path, args: &[&str]) -> Option<String> {
    let child = Command::new("git")
        .args(args)
        .current_dir(root)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(GIT_TIMEOUT, child).await.ok()?.ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn variable(name: &str) -> String {
    environment::variable(name).and_then(|value| value.into_string().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_gives_the_commit_and_what_differs() {
        let oid = "a".repeat(40);
        let clean = format!("# branch.oid {oid}\n# branch.head main\n# branch.ab +0 -0\n");
        let git = parse_status(&clean).expect("a commit");
        assert_eq!((git.commit.as_str(), git.branch.as_str(), git.dirty), (oid.as_str(), "main", false));
        let dirty = parse_status(&format!("{clean}? agents/new.toml\n")).expect("a commit");
        assert!(dirty.dirty);
        let detached = parse_status(&format!("# branch.oid {oid}\n# branch.head (detached)\n")).expect("a commit");
        assert_eq!(detached.branch, "");
        assert_eq!(parse_status("# branch.oid (initial)\n# branch.head main\n"), None);
    }
}
