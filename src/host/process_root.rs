// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reads files below the root folder of another process, which may belong to a hostile container.
//! Links are followed as the process itself would follow them, but never out of its root. No file
//! system that may never answer is asked for anything, and only regular files are opened.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::CWD;
use rustix::fs::FileType;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::openat;
use rustix::fs::readlinkat;

use crate::host::foreign::Mounts;
use crate::host::foreign::TO_JUDGE;
use crate::host::foreign::reopen;
use crate::host::foreign::type_and_mount;

/// The most names that are looked up for one path, those of links included.
const NAMES_MAX: usize = 64;

/// The most bytes of the target of a link.
const TARGET_BYTES_MAX: usize = 512;

/// The root folder of a process.
pub struct ProcessRoot {
    folder: OwnedFd,
    mounts: [Mounts; 2],
}

impl ProcessRoot {
    /// Opens the root folder of a process. `None` when the process has ended, or when the folder is
    /// on a file system that may never answer.
    pub fn hold(pid: u32) -> Option<Self> {
        /* This link of the kernel is the only one that is followed. */
        let path = format!("/proc/{pid}/root");
        let folder = openat(CWD, path, TO_JUDGE | OFlags::DIRECTORY, Mode::empty()).ok()?;
        let mounts = [Mounts::seen_by(&pid.to_string()), Mounts::seen_by("self")];
        let root = Self { folder, mounts };
        (root.kind(&root.folder)? == FileType::Directory).then_some(root)
    }

    /// Reads a small file by its path from the root. `None` when there is no such file, when it is
    /// longer than `max` bytes, or when it can't be read without waiting.
    pub fn read(&self, path: &str, max: usize) -> Option<Vec<u8>> {
        let file = self.file(path)?;
        let mut bytes = Vec::new();
        let limit = u64::try_from(max).ok()?.saturating_add(1);
        file.take(limit).read_to_end(&mut bytes).ok()?;
        (bytes.len() <= max).then_some(bytes)
    }

    /// Opens a regular file for reading, as `read()` does.
    pub fn file(&self, path: &str) -> Option<File> {
        reopen(self.open(path)?.as_fd()).ok()
    }

    /// Opens a regular file for inspection. One name is opened at a time, so that a file system is
    /// judged before it is asked for a name.
    fn open(&self, path: &str) -> Option<OwnedFd> {
        let mut names = reversed_names(path.as_bytes());
        let mut folders: Vec<OwnedFd> = Vec::new();
        for _ in 0..NAMES_MAX {
            let name = names.pop()?;
            if name == b".." {
                folders.pop();
                continue;
            }
            let folder = folders.last().unwrap_or(&self.folder);
            let name = OsStr::from_bytes(&name);
            let file = openat(folder, name, TO_JUDGE | OFlags::NOFOLLOW, Mode::empty()).ok()?;
            match self.kind(&file)? {
                FileType::Directory => folders.push(file),
                FileType::Symlink => {
                    let target = readlinkat(&file, "", Vec::new()).ok()?.into_bytes();
                    if target.len() > TARGET_BYTES_MAX {
                        return None;
                    }
                    if target.starts_with(b"/") {
                        folders.clear();
                    }
                    names.extend(reversed_names(&target));
                }
                FileType::RegularFile if names.is_empty() => return Some(file),
                _ => return None,
            }
        }
        None
    }

    /// Returns the type of a file. `None` when it is on a file system that may never answer, or on a
    /// mount that neither process sees.
    fn kind(&self, file: &OwnedFd) -> Option<FileType> {
        let stat = type_and_mount(file.as_fd()).ok()?;
        let mut mounts = self.mounts.iter();
        mounts
            .any(|mounts| mounts.answers(stat.stx_mnt_id))
            .then(|| FileType::from_raw_mode(stat.stx_mode.into()))
    }
}

/// Returns the names of a path, the last one first.
fn reversed_names(path: &[u8]) -> Vec<Vec<u8>> {
    let names = path.split(|byte| *byte == b'/').rev();
    let names = names.filter(|name| !matches!(*name, b"" | b"."));
    names.map(<[u8]>::to_vec).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::process::Command;

    use rustix::fs::CWD;
    use rustix::fs::Mode;
    use rustix::fs::OFlags;
    use rustix::fs::openat;

    use super::Mounts;
    use super::ProcessRoot;

    /// Check that links are followed within the root, as the kubelet makes them, that a link out of
    /// the root leads to the same path in it, and that nothing but a short regular file is read.
    #[test]
    fn within() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join("root").join(name);
        fs::create_dir_all(at("run/secrets/..data")).unwrap();
        fs::create_dir_all(at("var")).unwrap();
        fs::write(at("run/secrets/..data/namespace"), "shop").unwrap();
        fs::write(folder.path().join("outside"), "outside").unwrap();
        fs::write(at("long"), "x".repeat(17)).unwrap();
        symlink("/run", at("var/run")).unwrap();
        symlink("..data/namespace", at("run/secrets/namespace")).unwrap();
        symlink("../outside", at("up")).unwrap();
        symlink(folder.path().join("outside"), at("absolute")).unwrap();
        symlink("/proc/kmsg", at("kmsg")).unwrap();
        symlink("circle", at("circle")).unwrap();
        symlink("./".repeat(300) + "long", at("far")).unwrap();
        let pipe = Command::new("mkfifo").arg(at("pipe")).status();
        assert!(pipe.unwrap().success());
        let root = ProcessRoot {
            folder: openat(CWD, at(""), OFlags::PATH, Mode::empty()).unwrap(),
            mounts: [Mounts::seen_by("self"), Mounts::seen_by("self")],
        };
        let read = |path: &str| root.read(path, 16);
        assert_eq!(read("var/run/secrets/namespace").unwrap(), b"shop");
        assert_eq!(read("../../run/secrets/namespace").unwrap(), b"shop");
        for path in [
            "up", "absolute", "kmsg", "circle", "far", "pipe", "long", "run", "nothing", "",
            "long/x",
        ] {
            assert!(read(path).is_none(), "{path}");
        }
    }

    /// Check that no file of `/proc` and no device is read.
    #[test]
    fn pseudo() {
        let root = ProcessRoot::hold(std::process::id()).unwrap();
        for path in [
            "proc/version",
            "dev/null",
            "dev/zero",
            "proc/self/root/etc/passwd",
        ] {
            assert!(root.read(path, 1 << 20).is_none(), "{path}");
        }
        assert!(ProcessRoot::hold(4_194_305).is_none());
    }
}
