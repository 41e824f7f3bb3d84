// SPDX-License-Identifier: MIT OR Apache-2.0
//! Opens files that other users have named: the file that a process runs, and the debug file that
//! this file names. Since those users may be hostile, opening a file must not wait and must not
//! follow links out of its folder, and the file that is read must be the one that was judged.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::path::Component;
use std::path::Path;

use anyhow::Result;
use anyhow::bail;
use anyhow::ensure;
use rustix::fs::AtFlags;
use rustix::fs::CWD;
use rustix::fs::FileType;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::ResolveFlags;
use rustix::fs::Statx;
use rustix::fs::StatxFlags;
use rustix::fs::fstatfs;
use rustix::fs::openat;
use rustix::fs::openat2;
use rustix::fs::statx;
use rustix::io::Errno;

use crate::host::descriptors;

/// The flags to open a file for reading, without waiting for the other end of a pipe or for the
/// holder of a lease.
const TO_READ: OFlags = OFlags::RDONLY
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);

/// The flags to open a file for inspection only. Neither its driver nor its file system is
/// involved.
pub(super) const TO_JUDGE: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

/// File systems whose files are not data on a disk: reading one may wait for ever, or have side
/// effects.
const PSEUDO: [&str; 16] = [
    "autofs",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "efivarfs",
    "mqueue",
    "nsfs",
    "proc",
    "securityfs",
    "sysfs",
    "tracefs",
];

/// `FUSE_SUPER_MAGIC` of the kernel's `magic.h`.
const FUSE_MAGIC: u64 = 0x6573_5546;

/// The most bytes of a list of mounts. The kernel allows 100,000 mounts, whose list is shorter.
const MOUNTS_BYTES_MAX: u64 = 64 << 20;

/// Opens the file that a process runs, whatever file is at its path now.
///
/// Fails with the system's own error when the process has ended or runs no program.
pub fn program(pid: u32) -> Result<File> {
    /* This link of the kernel is the only one that is followed. */
    let file = openat(CWD, format!("/proc/{pid}/exe"), TO_JUDGE, Mode::empty())?;
    let mounts = [Mounts::seen_by(&pid.to_string()), Mounts::seen_by("self")];
    judge(file.as_fd(), FileType::RegularFile, &mounts)?;
    reopen(file.as_fd())
}

/// Opens a file by its path from `/`, of which no part may be a link. `None` when there is no such
/// file, or when it can't be read without waiting.
pub fn beside(path: &Path) -> Option<File> {
    if !path.is_absolute() {
        return None;
    }
    let mounts = [Mounts::seen_by("self")];
    let mut at = openat(CWD, "/", TO_JUDGE | OFlags::DIRECTORY, Mode::empty()).ok()?;
    let mut components = path.components().peekable();
    while let Some(component) = components.next() {
        let name = match component {
            Component::RootDir => continue,
            Component::Normal(name) => name,
            Component::Prefix(_) | Component::CurDir | Component::ParentDir => return None,
        };
        let kind = if components.peek().is_some() {
            FileType::Directory
        } else {
            FileType::RegularFile
        };
        /* One name is opened at a time, so that a file system is judged before it is asked for a name. */
        at = openat(&at, name, TO_JUDGE | OFlags::NOFOLLOW, Mode::empty()).ok()?;
        judge(at.as_fd(), kind, &mounts).ok()?;
    }
    reopen(at.as_fd()).ok()
}

/// Opens a file below a folder that only root can write to. Links there are root's own; a link out
/// of the folder is not followed. `None` when there is no such file.
pub fn beneath(folder: &Path, path: &Path) -> Option<File> {
    let folder = openat(CWD, folder, TO_JUDGE | OFlags::DIRECTORY, Mode::empty()).ok()?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let file = match openat2(&folder, path, TO_READ, Mode::empty(), resolve) {
        /* Some sandboxes do not know this system call (Linux 5.6). */
        Err(Errno::NOSYS | Errno::PERM) => {
            openat(&folder, path, TO_READ | OFlags::NOFOLLOW, Mode::empty())
        }
        result => result,
    };
    let file = File::from(file.ok()?);
    file.metadata().ok()?.is_file().then_some(file)
}

/// Opens a file that the user has named. Fails when it is not a regular file, since reading a pipe
/// would block.
pub fn own(path: &Path) -> Result<File> {
    let file = File::from(openat(CWD, path, TO_READ, Mode::empty())?);
    ensure!(file.metadata()?.is_file(), "not a regular file");
    Ok(file)
}

/// Opens a judged file for reading.
pub(super) fn reopen(file: BorrowedFd<'_>) -> Result<File> {
    let path = descriptors::path_of(file);
    Ok(File::from(openat(CWD, path, TO_READ, Mode::empty())?))
}

/// Fails when the file is not of that type, or is on a file system that may never answer. The file
/// system itself is not asked, since its daemon may be the one that does not answer.
fn judge(file: BorrowedFd<'_>, kind: FileType, mounts: &[Mounts]) -> Result<()> {
    let stat = type_and_mount(file)?;
    let mut mounts = mounts.iter();
    match mounts.find_map(|mounts| mounts.0.get(&stat.stx_mnt_id)) {
        Some(r#type) => ensure!(
            !may_hang(r#type),
            "it is on a file system of type {type}, which may never answer"
        ),
        /* The file is on a mount of the kernel's own (memfd), or on one that was removed. */
        None => ensure!(
            u64::try_from(fstatfs(file)?.f_type)? != FUSE_MAGIC,
            "it is on a file system that may never answer"
        ),
    }
    if FileType::from_raw_mode(stat.stx_mode.into()) != kind {
        bail!("not a regular file");
    }
    Ok(())
}

/// Returns the type of a file and the number of its mount, for which the file system is not asked.
pub(super) fn type_and_mount(file: BorrowedFd<'_>) -> Result<Statx> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let wanted = StatxFlags::TYPE | StatxFlags::MNT_ID;
    Ok(statx(file, "", flags, wanted)?)
}

/// Returns whether a file system of this type is served by a program of a user, or has files that
/// are not data on a disk.
fn may_hang(r#type: &str) -> bool {
    let name = r#type.split('.').next().unwrap_or_default();
    matches!(name, "fuse" | "fuseblk") || PSEUDO.contains(&name)
}

/// The mounts that a process sees: the type of the file system, by the number of the mount.
pub(super) struct Mounts(BTreeMap<u64, String>);

impl Mounts {
    /// Reads the mounts that a process sees; `self` is this process. There are none when it has
    /// ended.
    pub(super) fn seen_by(process: &str) -> Self {
        let mut text = Vec::new();
        let read = File::open(format!("/proc/{process}/mountinfo"))
            .and_then(|file| file.take(MOUNTS_BYTES_MAX).read_to_end(&mut text));
        if read.is_err() {
            text.clear();
        }
        Self::parse(&String::from_utf8_lossy(&text))
    }

    /// Returns whether the files of a mount can be read without waiting. A mount that is not in the
    /// list is not known to have such files.
    pub(super) fn answers(&self, number: u64) -> bool {
        self.0.get(&number).is_some_and(|r#type| !may_hang(r#type))
    }

    /// Parses a list of mounts. Each line begins with the number of the mount; the type follows
    /// after " - ". Spaces in paths are escaped.
    fn parse(text: &str) -> Self {
        let mounts = text.lines().filter_map(|line| {
            let (mount, file_system) = line.split_once(" - ")?;
            let number = mount.split(' ').next()?.parse().ok()?;
            Some((number, file_system.split(' ').next()?.to_owned()))
        });
        Self(mounts.collect())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::Mounts;
    use super::beneath;
    use super::beside;
    use super::may_hang;
    use super::own;
    use super::program;

    /// Check that only regular files in a folder are opened: no links, pipes or folders, and no
    /// file through a link.
    #[test]
    fn plain_files_only() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().canonicalize().unwrap().join(name);
        fs::create_dir(at("folder")).unwrap();
        fs::write(at("folder/file"), b"x").unwrap();
        symlink("/proc/kmsg", at("kmsg")).unwrap();
        symlink("folder", at("link")).unwrap();
        let status = std::process::Command::new("mkfifo")
            .arg(at("pipe"))
            .status();
        assert!(status.unwrap().success());
        assert!(beside(&at("folder/file")).is_some());
        for name in [
            "folder",
            "kmsg",
            "link/file",
            "pipe",
            "pipe/file",
            "folder/../folder/file",
            "nothing",
        ] {
            assert!(beside(&at(name)).is_none(), "{name}");
        }
        assert!(beside(Path::new("etc/passwd")).is_none());
        assert!(own(&at("link/file")).is_ok());
        assert!(own(&at("pipe")).is_err());
        for path in ["/proc/version", "/dev/null", "/sys/kernel/notes"] {
            assert!(beside(Path::new(path)).is_none(), "{path}");
        }
    }

    /// Check that links below a folder are followed as long as they stay below it.
    #[test]
    fn links_within() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("debug/id")).unwrap();
        fs::write(at("debug/file"), b"x").unwrap();
        fs::write(at("out"), b"x").unwrap();
        symlink("../file", at("debug/id/in")).unwrap();
        symlink("../../out", at("debug/id/out")).unwrap();
        symlink("/proc/kmsg", at("debug/id/kmsg")).unwrap();
        let debug = at("debug");
        assert!(beneath(&debug, Path::new("id/in")).is_some());
        for name in ["id/out", "id/kmsg", "id", "id/nothing"] {
            assert!(beneath(&debug, Path::new(name)).is_none(), "{name}");
        }
    }

    /// Check that the file of this process is opened, and that a pid without a process is an error.
    #[test]
    fn own_program() {
        let file = program(std::process::id()).unwrap();
        assert!(file.metadata().unwrap().is_file());
        assert!(program(4_194_305).is_err());
    }

    /// Check lines in the form of the kernel.
    #[test]
    fn mounts() {
        let mounts = Mounts::parse(
            "36 35 98:0 /a\\040b /mnt rw,noatime master:1 - ext3 /dev/root rw\n\
             40 36 0:50 / /mnt/x rw - fuse.sshfs me@there:/ rw,user_id=1000\n\
             nonsense\n",
        );
        assert!(!may_hang(&mounts.0[&36]));
        assert!(may_hang(&mounts.0[&40]));
        assert_eq!(mounts.0.len(), 2);
        for r#type in ["overlay", "tmpfs", "virtiofs", "xfs"] {
            assert!(!may_hang(r#type), "{type}");
        }
    }
}
