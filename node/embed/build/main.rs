//! Makes the model file that the crate includes: the published weights, fetched once per machine, checked, quantised.
//!
//! Nothing of it is in git. What was made is kept in a folder that all builds of a machine share, so that a second
//! target folder, or a build without network, only copies it.

#![allow(clippy::print_stdout, reason = "a build script speaks to cargo on its standard output")]

mod fetch;
#[path = "../src/layout.rs"]
mod layout;
mod quantise;
mod reference;
#[path = "../src/tokens.rs"]
#[allow(dead_code)]
mod tokens;

use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::{env, fs};

/// The sentences that show how large each activation becomes.
const CALIBRATION: &str = include_str!("calibration.txt");
/// Raised when the quantiser's result changes for the same input.
const RECIPE: u32 = 2;

/// What stops a build; each text ends with what to do.
type Failure = String;

fn main() {
    for path in ["build", "src/tokens.rs", "src/layout.rs"] {
        println!("cargo::rerun-if-changed={path}");
    }
    for name in ["CAXTON_MODEL_CACHE", "XDG_CACHE_HOME"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    if let Err(failure) = make() {
        for line in failure.lines() {
            println!("cargo::error={line}");
        }
    }
}

fn make() -> Result<(), Failure> {
    let cache = cache_dir()?;
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set; run this through cargo")?);
    fs::create_dir_all(&cache).map_err(|error| format!("cannot create {}: {error}", cache.display()))?;
    // Builds of several target folders at once: the first makes the file, the others wait for it.
    let lock =
        fs::File::create(cache.join("lock")).map_err(|error| format!("cannot lock {}: {error}", cache.display()))?;
    lock.lock().map_err(|error| format!("cannot lock {}: {error}", cache.display()))?;

    let key = Sha256::new()
        .chain_update(fetch::WEIGHTS_SHA256)
        .chain_update(RECIPE.to_le_bytes())
        .chain_update(CALIBRATION)
        .finalize();
    let made = cache.join(format!("minilm-{}.bin", &hex(&key)[..16]));
    let vocabulary = cache.join("source/vocab.txt");
    if !is_whole(&made) || fetch::check(&vocabulary, fetch::VOCABULARY_SHA256).is_err() {
        let source = fetch::source(&cache)?;
        let weights = reference::Weights::read(&source.join("model.safetensors"))?;
        let pieces = read(&vocabulary)?;
        let peaks = reference::peaks(&weights, &tokens::Vocabulary::new(&pieces), CALIBRATION);
        write_whole(&made, &quantise::model(&weights, &peaks))?;
    }
    fetch::copy(&made, &out.join("model.bin"))?;
    fetch::copy(&vocabulary, &out.join("vocab.txt"))?;
    println!("cargo::rerun-if-changed={}", made.display());
    // Where the tests find the weights as they were published.
    println!("cargo::rustc-env=CAXTON_MODEL_SOURCE={}", cache.join("source").display());
    Ok(())
}

fn cache_dir() -> Result<PathBuf, Failure> {
    let named = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    named("CAXTON_MODEL_CACHE")
        .or_else(|| named("XDG_CACHE_HOME").map(|dir| dir.join("caxton/model")))
        .or_else(|| named("HOME").map(|dir| dir.join(".cache/caxton/model")))
        .ok_or_else(|| "no folder to keep the sentence model in: set CAXTON_MODEL_CACHE to one".to_owned())
}

/// Whether the file is there, of the right length, and its checksum right: a build that was killed left no half of it.
fn is_whole(path: &Path) -> bool {
    fs::read(path).is_ok_and(|file| {
        file.len() == layout::LEN && {
            let (content, checksum) = file.split_at(layout::LEN - layout::CHECKSUM);
            Sha256::digest(content)[..] == *checksum
        }
    })
}

fn write_whole(path: &Path, content: &[u8]) -> Result<(), Failure> {
    let draft = path.with_extension("draft");
    let mut file = content.to_vec();
    file.extend_from_slice(&Sha256::digest(content));
    fs::write(&draft, file)
        .and_then(|()| fs::rename(&draft, path))
        .map_err(|error| format!("cannot write {}: {error}", path.display()))
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
