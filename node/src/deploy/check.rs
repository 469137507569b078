//! Whether a whole workspace can run: every manifest is right, and whatever one file names in another is there.
//!
//! Pure: the files come through a closure, the same on a person's machine (`caxton validate`) and on a node before it
//! proposes a deployment. All problems are found at once. What did not change since a tree that was checked before is
//! not read again, so a check costs what the change costs; warnings about unchanged files are then not repeated.

mod advice;

mod agents;

mod keys;

mod layout;

mod providers;

mod tools;

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use caxton_proto::diagnostic::{self, Diagnostic, Place, Severity, Source, code};
use caxton_proto::manifest::workspace::WORKSPACE_FILE;
use caxton_proto::manifest::{AgentManifest, TEXT_BYTES_MAX, ToolManifest, WorkspaceManifest, locate};
use caxton_proto::tree::{File, Tree, TreePath};
use caxton_proto::{AgentName, Digest, ToolName};

use crate::tools::Unfit;
pub use advice::advice;
use layout::Layout;

/// The most problems that one check reports.
pub const PROBLEMS_MAX: usize = 1_000;
/// The largest WebAssembly module, in bytes.
pub const MODULE_BYTES_MAX: u64 = 128 << 20;

/// Why a file could not be read.
pub type ReadError = Box<dyn Error + Send + Sync>;

/// Gives a file's content.
pub type Read<'a> = &'a dyn Fn(&TreePath, &File) -> Result<Bytes, ReadError>;

/// Loads a tool for a trial and gives the names of its functions. A tool without a module has no bytes; of one that runs
/// elsewhere the functions are not known.
pub type Prove<'a> = &'a dyn Fn(&ToolManifest, Option<Bytes>) -> Result<Vec<String>, Unfit>;

/// Loads the program of an agent for a trial; the error says what is wrong with it.
pub type ProveAgent<'a> = &'a dyn Fn(&AgentManifest, Bytes) -> Result<(), String>;

/// What is checked.
#[derive(Clone, Copy)]
pub struct Workspace<'a> {
    pub tree: &'a Tree,
    pub read: Read<'a>,
    /// A tree of the same workspace that passed this check before.
    pub before: Option<Before<'a>>,
    /// Tries the sandboxed tools that are new or changed, and all those that are processes; nothing where tools do not
    /// run.
    pub prove: Option<Prove<'a>>,
    /// Tries the programs of agents that are new or changed; nothing where they do not run.
    pub prove_agent: Option<ProveAgent<'a>>,
}

/// What is known from an earlier check.
#[derive(Clone, Copy)]
pub struct Before<'a> {
    /// The files that passed.
    pub tree: &'a Tree,
    /// The manifest of an agent of that tree, by its file and digest, where it is at hand.
    pub agent: &'a dyn Fn(&TreePath, &Digest) -> Option<Arc<AgentManifest>>,
}

/// A workspace that can run.
#[derive(Debug, Clone, Default)]
pub struct CheckedWorkspace {
    /// Its own file.
    pub workspace: Arc<WorkspaceManifest>,
    pub agents: BTreeMap<AgentName, CheckedFile<AgentManifest>>,
    pub tools: BTreeMap<ToolName, CheckedFile<ToolManifest>>,
    /// What someone should look at.
    pub warnings: Vec<Diagnostic>,
}

/// A manifest and where it came from.
#[derive(Debug, Clone)]
pub struct CheckedFile<T> {
    pub path: TreePath,
    /// The file's digest.
    pub digest: Digest,
    /// What it says.
    pub manifest: Arc<T>,
}

/// A workspace that cannot run.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// Its files have mistakes; there is at least one error, and warnings may be among them.
    #[error("the workspace has mistakes: {}", diagnostic::count(.0))]
    Problems(Vec<Diagnostic>),
    /// A file could not be read.
    #[error("{path} could not be read")]
    Read {
        path: TreePath,
        #[source]
        source: ReadError,
    },
}

pub fn check(input: Workspace<'_>) -> Result<CheckedWorkspace, CheckError> {
    let mut check = Check {
        input,
        workspace: None,
        found: Vec::new(),
        scanned: BTreeSet::new(),
        functions: BTreeMap::new(),
        models: Vec::new(),
        checked: CheckedWorkspace::default(),
    };
    let layout = Layout::of(input.tree, &mut check.found);
    check.workspace()?;
    check.tools(&layout)?;
    check.providers()?;
    check.agents(&layout)?;
    check.models()?;
    check.secrets()?;
    check.finish()
}

/// In the place of what a tool stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ToolPlace {
    /// Of a language model.
    Model,
    /// Of a memory backend.
    MemoryBackend,
}

/// A tool in the place of a language model or of a memory backend, and the key that names it.
struct ToolModel {
    tool: ToolName,
    path: TreePath,
    keys: Vec<String>,
    item: Option<String>,
    /// In the place of what it stands.
    place: ToolPlace,
}

/// A check under way.
struct Check<'a> {
    input: Workspace<'a>,
    /// The workspace's own file; nothing when it is wrong, so that its mistakes are not blamed on others.
    workspace: Option<Arc<WorkspaceManifest>>,
    found: Vec<Diagnostic>,
    /// The files in which keys were looked for.
    scanned: BTreeSet<TreePath>,
    /// What the tools have that were tried.
    functions: BTreeMap<ToolName, Vec<String>>,
    /// The tools that are asked as language models, and where.
    models: Vec<ToolModel>,
    checked: CheckedWorkspace,
}

impl<'a> Check<'a> {
    fn workspace(&mut self) -> Result<(), CheckError> {
        let Some((path, file)) = self.input.tree.files().get_key_value(WORKSPACE_FILE) else {
            self.workspace = Some(Arc::default());
            return Ok(());
        };
        let Some(text) = self.text(path, file)? else { return Ok(()) };
        match WorkspaceManifest::parse(path, &text) {
            Ok(manifest) => self.workspace = Some(Arc::new(manifest)),
            Err(found) => self.found.extend(found),
        }
        Ok(())
    }

    /// Keys that somebody wrote into any file that is deployed, whether something reads it or not: all of them are kept and
    /// shown. What is larger than any text of ours is data, and what is no text has no keys that anybody wrote.
    fn secrets(&mut self) -> Result<(), CheckError> {
        let tree = self.input.tree;
        for (path, file) in tree.files() {
            if file.bytes > TEXT_BYTES_MAX || self.unchanged(path, file) || self.scanned.contains(path) {
                continue;
            }
            let bytes = self.read(path, file)?;
            if let Ok(text) = std::str::from_utf8(&bytes) {
                self.scan(path, text);
            }
        }
        Ok(())
    }

    fn scan(&mut self, path: &TreePath, text: &str) {
        if self.scanned.insert(path.clone()) {
            self.found.extend(keys::keys(path, text));
        }
    }

    fn finish(mut self) -> Result<CheckedWorkspace, CheckError> {
        diagnostic::sort(&mut self.found);
        if self.found.len() > PROBLEMS_MAX {
            // Errors come first when not everything is shown.
            self.found.sort_by_key(|problem| problem.severity);
            let more = self.found.len() - PROBLEMS_MAX;
            self.found.truncate(PROBLEMS_MAX);
            diagnostic::sort(&mut self.found);
            let last = self.found.last().map_or_else(String::new, |problem| problem.path.clone());
            let message = format!("there are {more} more problems than the {PROBLEMS_MAX} shown");
            self.found.push(Diagnostic::error(code::TOO_MANY_PROBLEMS, last, message).help("put these right first"));
        }
        if self.found.iter().any(|problem| problem.severity == Severity::Error) {
            return Err(CheckError::Problems(self.found));
        }
        let workspace = self.workspace.unwrap_or_default();
        Ok(CheckedWorkspace { workspace, warnings: self.found, ..self.checked })
    }

    /// A text file's content; what is wrong with it as a whole is noted.
    fn text(&mut self, path: &TreePath, file: &File) -> Result<Option<String>, CheckError> {
        if file.bytes > TEXT_BYTES_MAX {
            let message = format!("the file has {} bytes, and {TEXT_BYTES_MAX} is the most", file.bytes);
            let help = "keep manifests and prompts short; data belongs into a tool";
            self.found.push(Diagnostic::error(code::TOO_LARGE, path, message).help(help));
            return Ok(None);
        }
        let bytes = self.read(path, file)?;
        match std::str::from_utf8(&bytes) {
            Ok(text) => {
                self.scan(path, text);
                Ok(Some(text.to_owned()))
            }
            Err(error) => {
                self.found.push(not_utf8(path, &bytes, error.valid_up_to()));
                Ok(None)
            }
        }
    }

    fn read(&self, path: &TreePath, file: &File) -> Result<Bytes, CheckError> {
        (self.input.read)(path, file).map_err(|source| CheckError::Read { path: path.clone(), source })
    }

    /// Whether a file was in the tree that passed before.
    fn unchanged(&self, path: &TreePath, file: &File) -> bool {
        self.input.before.is_some_and(|before| before.tree.files().get(path) == Some(file))
    }

    /// Puts a problem at a key of a file (or at the item of its list), for which the file is read once more.
    fn note_at(&mut self, problem: Diagnostic, path: &TreePath, keys: &[&str], item: Option<&str>, label: String) {
        self.found.push(match self.place(path, keys, item) {
            Some(place) => problem.at(place, label),
            None => problem,
        });
    }

    fn place(&self, path: &TreePath, keys: &[&str], item: Option<&str>) -> Option<Place> {
        let bytes = self.read(path, self.input.tree.files().get(path)?).ok()?;
        let text = std::str::from_utf8(&bytes).ok()?;
        let span: Range<usize> = locate(text, keys, item)?;
        Some(Source { path, text }.place(span))
    }
}

fn not_utf8(path: &TreePath, bytes: &[u8], valid: usize) -> Diagnostic {
    let line = bytes[..valid].iter().filter(|byte| **byte == b'\n').count() + 1;
    let message = format!("the file is not UTF-8 text (byte {valid}, in line {line})");
    Diagnostic::error(code::NOT_UTF8, path, message).help("save it as UTF-8")
}

#[cfg(test)]
mod mistakes;

#[cfg(test)]
mod tests;
