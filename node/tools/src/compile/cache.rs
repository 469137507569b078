//! Machine code by the hash of the module it was made of, the engine's settings and version.
//!
//! An entry is `HMAC-SHA256(key, name || code) || code`. The key is this installation's own: an entry that somebody
//! else wrote, that was changed, or that belongs to another module is made again, and never run.

use super::child::{self, CompileFailure, Compiler};
use super::inspect::inspect;
use crate::engine::Space;
use crate::limits::CompileLimits;
use crate::tool::Kind;
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use sha2::{Digest as _, Sha256};
use std::hash::{Hash, Hasher};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};
use std::time::SystemTime;
use std::{fs, io};
use tracing::{debug, info, warn};
use wasmtime::Engine;

const KEY_BYTES: usize = 32;
const TAG_BYTES: usize = 32;
const SUFFIX: &str = "cwasm";
/// What all entries may take; the oldest go first.
const CACHE_BYTES_MAX: u64 = 2 << 30;

/// Compiles modules, and keeps what came out.
pub struct Cache {
    folder: Option<PathBuf>,
    compiler: Compiler,
    limits: CompileLimits,
    key: OnceLock<hmac::Key>,
    /// How many compile now, and how many wait for that.
    busy: Mutex<Busy>,
    free: Condvar,
}

#[derive(Default)]
struct Busy {
    compiling: usize,
    waiting: usize,
}

/// Why a module has no code.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// It is too large.
    #[error("it has {bytes} bytes; the limit is {limit}")]
    TooLarge {
        /// The module's size, in bytes.
        bytes: u64,
        /// The most bytes of a module.
        limit: u64,
    },
    /// It is invalid, or extreme.
    #[error("{why}")]
    Refused {
        /// What is invalid or extreme about it.
        why: String,
    },
    /// It would take too much time or memory.
    #[error("compiling it takes too much: {what}")]
    TooMuch {
        /// What it took too much of.
        what: String,
    },
    /// Too many modules wait to be compiled.
    #[error("{waiting} modules wait to be compiled already; try again later")]
    Busy {
        /// How many modules there are.
        waiting: usize,
    },
    /// The compiler itself did not work.
    #[error("the compiler did not work: {why}")]
    Broken {
        /// What went wrong in the compiler.
        why: String,
    },
}

impl From<CompileFailure> for CompileError {
    fn from(failed: CompileFailure) -> CompileError {
        match failed {
            CompileFailure::Refused(why) => CompileError::Refused { why },
            CompileFailure::TooMuch(what) => CompileError::TooMuch { what },
            CompileFailure::Broken(why) => CompileError::Broken { why },
        }
    }
}

impl Cache {
    /// A cache in a folder; without one, everything is compiled anew.
    pub fn new(folder: Option<PathBuf>, compiler: Compiler, limits: CompileLimits) -> Cache {
        Cache { folder, compiler, limits, key: OnceLock::new(), busy: Mutex::default(), free: Condvar::new() }
    }

    /// The code of a module, from the cache or compiled now.
    pub fn compiled(&self, engine: &Engine, space: Space, kind: Kind, wasm: &[u8]) -> Result<Vec<u8>, CompileError> {
        let (bytes, limit) = (wasm.len() as u64, self.limits.module_bytes);
        if bytes > limit {
            return Err(CompileError::TooLarge { bytes, limit });
        }
        let name = name(engine, kind, wasm);
        if let Some(code) = self.read(&name) {
            return Ok(code);
        }
        let started = std::time::Instant::now();
        let code = self.compile(space, kind, wasm)?;
        info!(module = name, bytes, took_ms = started.elapsed().as_millis() as u64, "tool compiled");
        if let Err(error) = self.write(&name, &code) {
            warn!(%error, "compiled code could not be kept; it is compiled again at the next start");
        }
        Ok(code)
    }

    /// The code of a module, if it is in the cache.
    pub fn kept(&self, engine: &Engine, kind: Kind, wasm: &[u8]) -> Option<Vec<u8>> {
        self.folder.as_ref()?;
        self.read(&name(engine, kind, wasm))
    }

    fn compile(&self, space: Space, kind: Kind, wasm: &[u8]) -> Result<Vec<u8>, CompileError> {
        let _place = self.place()?;
        Ok(match &self.compiler {
            Compiler::Inline => child::inline(wasm, kind, space, &self.limits)?,
            Compiler::Process { program, arguments } => {
                // The limits of this node, which may be stricter than those that the child knows.
                inspect(wasm, &self.limits).map_err(CompileFailure::Refused)?;
                let folder = self.folder().map_err(|error| CompileFailure::Broken(error.to_string()))?;
                child::process((program, arguments), wasm, kind, space, &self.limits, &folder)?
            }
        })
    }

    /// Waits for its turn, unless too many do already.
    fn place(&self) -> Result<Place<'_>, CompileError> {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        if busy.compiling >= self.limits.processes.max(1) {
            if busy.waiting >= self.limits.queue {
                return Err(CompileError::Busy { waiting: busy.waiting });
            }
            busy.waiting += 1;
            while busy.compiling >= self.limits.processes.max(1) {
                busy = self.free.wait(busy).unwrap_or_else(PoisonError::into_inner);
            }
            busy.waiting -= 1;
        }
        busy.compiling += 1;
        Ok(Place(self))
    }

    /// The folder, made if need be, readable by this user only.
    fn folder(&self) -> io::Result<PathBuf> {
        let folder = self.folder.clone().unwrap_or_else(|| std::env::temp_dir().join("caxton-compile"));
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        Ok(folder)
    }

    fn read(&self, name: &str) -> Option<Vec<u8>> {
        let path = self.folder.as_ref()?.join(format!("{name}.{SUFFIX}"));
        let mut entry = fs::read(&path).ok()?;
        if entry.len() >= TAG_BYTES {
            let code = entry.split_off(TAG_BYTES);
            let key = self.key().ok()?;
            let mut signed = Vec::with_capacity(name.len() + code.len());
            signed.extend_from_slice(name.as_bytes());
            signed.extend_from_slice(&code);
            if hmac::verify(key, &signed, &entry).is_ok() {
                debug!(module = name, "compiled code found");
                return Some(code);
            }
        }
        warn!(path = %path.display(), "compiled code was changed by somebody else: it is removed and made again");
        let _ = fs::remove_file(&path);
        None
    }

    fn write(&self, name: &str, code: &[u8]) -> io::Result<()> {
        if self.folder.is_none() {
            return Ok(());
        }
        let folder = self.folder()?;
        let mut context = hmac::Context::with_key(self.key()?);
        context.update(name.as_bytes());
        context.update(code);
        let tag = context.sign();
        let mut file = tempfile::Builder::new().prefix("new-").tempfile_in(&folder)?;
        file.write_all(tag.as_ref())?;
        file.write_all(code)?;
        file.persist(folder.join(format!("{name}.{SUFFIX}")))?;
        evict(&folder, CACHE_BYTES_MAX)
    }

    /// This installation's key, drawn when it is first needed.
    fn key(&self) -> io::Result<&hmac::Key> {
        if let Some(key) = self.key.get() {
            return Ok(key);
        }
        let path = self.folder()?.join("key");
        let bytes = match fs::read(&path) {
            Ok(bytes) if bytes.len() == KEY_BYTES => bytes,
            Ok(_) | Err(_) => draw_key(&path)?,
        };
        Ok(self.key.get_or_init(|| hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
    }
}

struct Place<'a>(&'a Cache);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.busy.lock().unwrap_or_else(PoisonError::into_inner).compiling -= 1;
        self.0.free.notify_one();
    }
}

/// Everything that the code depends on.
fn name(engine: &Engine, kind: Kind, wasm: &[u8]) -> String {
    struct Sha(Sha256);
    impl Hasher for Sha {
        fn write(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }
        fn finish(&self) -> u64 {
            0
        }
    }
    let mut settings = Sha(Sha256::new());
    engine.precompile_compatibility_hash().hash(&mut settings);
    let mut whole = Sha256::new();
    whole.update(b"caxton tool 1\0");
    whole.update(env!("CARGO_PKG_VERSION"));
    whole.update([u8::from(kind == Kind::Component)]);
    whole.update(settings.0.finalize());
    whole.update(wasm);
    hex::encode(whole.finalize())
}

fn draw_key(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; KEY_BYTES];
    SystemRandom::new().fill(&mut bytes).map_err(|_| io::Error::other("no random numbers"))?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix("key-").tempfile_in(folder)?;
    file.write_all(&bytes)?;
    file.as_file().sync_all()?;
    // Whoever is first wins, so that two processes agree.
    match file.persist_noclobber(path) {
        Ok(_) => Ok(bytes),
        Err(lost) if lost.error.kind() == io::ErrorKind::AlreadyExists => match fs::read(path)? {
            theirs if theirs.len() == KEY_BYTES => Ok(theirs),
            _ => {
                let mut file = fs::OpenOptions::new().write(true).truncate(true).mode(0o600).open(path)?;
                file.write_all(&bytes)?;
                Ok(bytes)
            }
        },
        Err(lost) => Err(lost.error),
    }
}

/// Removes the oldest entries until the rest fits.
fn evict(folder: &Path, bytes_max: u64) -> io::Result<()> {
    let mut entries: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        if entry.path().extension().is_some_and(|extension| extension == SUFFIX) {
            entries.push((metadata.modified()?, metadata.len(), entry.path()));
        }
    }
    let mut total: u64 = entries.iter().map(|(_, bytes, _)| bytes).sum();
    entries.sort();
    for (_, bytes, path) in entries {
        if total <= bytes_max {
            break;
        }
        fs::remove_file(path)?;
        total -= bytes;
    }
    Ok(())
}
