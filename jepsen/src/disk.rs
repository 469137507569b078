//! Disks that can fail: a small one that fills up, and one that loses power.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use rustix::ioctl::{Setter, ioctl, opcode};

use crate::net::run;

/// `_IOR('X', 125, u32)`: the file system stops where it is.
const FS_IOC_SHUTDOWN: rustix::ioctl::Opcode = opcode::read::<u32>(b'X', 125);
/// Nothing that is only in memory reaches the disk, the journal included.
const GOING_DOWN_NO_LOG_FLUSH: u32 = 2;

/// What a data directory lies on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The machine's own disk.
    Plain,
    /// A tmpfs of this many MiB.
    Small(u32),
    /// An ext4 in a file, which can lose power.
    Power,
}

/// A mounted disk, unmounted when it is dropped.
pub struct Disk {
    at: PathBuf,
    kind: Kind,
    device: Option<String>,
}

/// Why disks of this kind cannot be had here, if they cannot.
pub fn cannot(kind: Kind, scratch: &Path) -> Option<String> {
    if kind == Kind::Plain {
        return None;
    }
    if !rustix::process::geteuid().is_root() {
        return Some("mounting takes root".to_owned());
    }
    let at = scratch.join("try-disk");
    Disk::mount(kind, &at)
        .and_then(|disk| match kind {
            Kind::Power => disk.shut_down(),
            Kind::Plain | Kind::Small(_) => Ok(()),
        })
        .err()
        .map(|error| format!("{error:#}"))
}

impl Disk {
    /// Makes an empty one and mounts it.
    pub fn mount(kind: Kind, at: &Path) -> Result<Disk> {
        std::fs::create_dir_all(at).with_context(|| format!("cannot make {}", at.display()))?;
        let mut disk = Disk { at: at.to_owned(), kind, device: None };
        match kind {
            Kind::Plain => {}
            Kind::Small(mib) => {
                run(Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs"]).arg(at))?;
            }
            Kind::Power => {
                let image = at.with_extension("img");
                File::create(&image)?.set_len(512 << 20)?;
                let found = Command::new("losetup").args(["--find", "--show"]).arg(&image).output()?;
                if !found.status.success() {
                    bail!("no loop device: {}", String::from_utf8_lossy(&found.stderr).trim());
                }
                let device = String::from_utf8_lossy(&found.stdout).trim().to_owned();
                disk.device = Some(device.clone());
                run(Command::new("mkfs.ext4").args(["-q", "-F", &device]))?;
                run(Command::new("mount").args(["-t", "ext4", &device]).arg(at))?;
            }
        }
        Ok(disk)
    }

    /// The power goes: what was not synced is gone. The processes on it have to be killed before [`Disk::power_up`].
    pub fn shut_down(&self) -> Result<()> {
        let root = File::open(&self.at)?;
        // SAFETY: the opcode takes a pointer to a u32, and reads it.
        let done = unsafe { ioctl(&root, Setter::<FS_IOC_SHUTDOWN, u32>::new(GOING_DOWN_NO_LOG_FLUSH)) };
        done.context("FS_IOC_SHUTDOWN")
    }

    /// The power is back: the journal is replayed.
    pub fn power_up(&self) -> Result<()> {
        let Some(device) = &self.device else { bail!("this disk has no power switch") };
        run(Command::new("umount").arg(&self.at))?;
        run(Command::new("mount").args(["-t", "ext4", device]).arg(&self.at))
    }

    /// Fills it up to `left` bytes; the file that does so is the answer.
    pub fn fill(&self, left: u64) -> Result<PathBuf> {
        let path = self.at.join("filler");
        let mut file = File::create(&path)?;
        let piece = vec![0u8; 64 << 10];
        while self.free()? > left + piece.len() as u64 && file.write_all(&piece).is_ok() {}
        // The last bytes, until the disk says no.
        while left == 0 && file.write_all(&piece[..4096]).is_ok() {}
        Ok(path)
    }

    fn free(&self) -> Result<u64> {
        let disk = rustix::fs::statvfs(&self.at)?;
        Ok(disk.f_bavail * disk.f_frsize)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.kind != Kind::Plain {
            // Lazily: a process that is still ending may have files open.
            let _ = Command::new("umount").arg("-l").arg(&self.at).output();
        }
        if let Some(device) = &self.device {
            let _ = Command::new("losetup").args(["--detach", device]).output();
            let _ = std::fs::remove_file(self.at.with_extension("img"));
        }
    }
}
