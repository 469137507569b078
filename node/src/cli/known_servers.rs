//! The servers that this person's tokens may go to because the person named them once: a file of origins, one a line.
//!
//! It says yes, and never no: without it, or with one that cannot be written, people are asked again.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The file's name in the folder of this person's settings.
const FILE: &str = "known-servers";
/// More than this are not kept: the oldest go.
const SERVERS_MAX: usize = 256;
/// A longer address is not kept, in bytes.
const URL_BYTES_MAX: usize = 512;

/// The list, as it is on disk.
pub struct KnownServers(Option<PathBuf>);

impl KnownServers {
    /// The list in this folder; with none, nothing is known and nothing is kept.
    pub fn in_folder(folder: Option<&Path>) -> KnownServers {
        KnownServers(folder.map(|folder| folder.join(FILE)))
    }

    /// Whether each of the addresses, which have commas between them, was named before.
    pub fn holds(&self, urls: &str) -> bool {
        let known = self.lines();
        urls.split(',').all(|url| known.iter().any(|line| *line == plain(url)))
    }

    /// Keeps the addresses. Where that fails, the person is asked again.
    pub fn remember(&self, urls: &str) {
        let Some(file) = &self.0 else { return };
        let mut known = self.lines();
        let new = urls.split(',').map(plain).filter(|url| !url.is_empty() && url.len() <= URL_BYTES_MAX);
        let before = known.len();
        for url in new {
            if !known.contains(&url) {
                known.push(url);
            }
        }
        if known.len() == before {
            return;
        }
        known.drain(..known.len().saturating_sub(SERVERS_MAX));
        // A home that cannot be written is no reason to refuse what was asked for.
        _ = write(file, &known);
    }

    fn lines(&self) -> Vec<String> {
        let text = self.0.as_ref().and_then(|file| fs::read_to_string(file).ok()).unwrap_or_default();
        text.lines().map(str::to_owned).filter(|line| !line.is_empty()).collect()
    }
}

fn plain(url: &str) -> String {
    url.trim().trim_end_matches('/').to_ascii_lowercase()
}

fn write(file: &Path, lines: &[String]) -> std::io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let new = folder.join(format!("{FILE}.{}", std::process::id()));
    let mut out = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    out.write_all(lines.join("\n").as_bytes())?;
    out.write_all(b"\n")?;
    fs::rename(&new, file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_address_that_was_named_is_known() {
        let dir = tempfile::tempdir().expect("a folder");
        let known = KnownServers::in_folder(Some(dir.path()));
        assert!(!known.holds("https://a.example:7411"));
        known.remember("https://A.example:7411/,https://b.example");
        assert!(known.holds("https://a.example:7411") && known.holds("https://b.example,https://a.example:7411/"));
        assert!(!known.holds("https://a.example:7412") && !known.holds("http://a.example:7411"));
        assert!(!known.holds("https://a.example:7411,https://c.example"), "all have to be known");
        for number in 0..2 * SERVERS_MAX {
            known.remember(&format!("https://{number}.example"));
        }
        assert_eq!(known.lines().len(), SERVERS_MAX);
        assert!(!KnownServers::in_folder(None).holds("https://a.example:7411"));
    }
}
