// SPDX-License-Identifier: MIT OR Apache-2.0
//! Opens the file of `-o`. It is opened by root, maybe in a folder that everybody may write to
//! (`/tmp`), where another user may have created a file or a link with its name. In such a folder a
//! link is followed, and a file written to, only if it belongs to us or to the owner of the folder.
//! The kernel has the same rules (`fs.protected_symlinks`, `fs.protected_regular`,
//! `fs.protected_fifos`), but they are not enabled on every machine. Opening never waits, so that
//! signals are served.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt as _;
use std::path::Component;
use std::path::Path;
use std::path::PathBuf;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::bail;
use anyhow::ensure;
use rustix::fs::AtFlags;
use rustix::fs::CWD;
use rustix::fs::FileType;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::PROC_SUPER_MAGIC;
use rustix::fs::Stat;
use rustix::fs::fstat;
use rustix::fs::fstatfs;
use rustix::fs::openat;
use rustix::fs::readlinkat;
use rustix::fs::statat;
use rustix::io::Errno;
use rustix::process::geteuid;

use crate::host::escape::Quoted;

/// The mode of a new file: its owner and group may read it, unless umask forbids that. Requests may
/// hold secrets.
const MODE: Mode = Mode::from_raw_mode(0o640);

/// The most links that are followed, as in the kernel.
const LINKS_MAX: usize = 40;

/// The mode of folders with the sticky bit that all users may write to.
const SHARED: u32 = 0o1002;

/// Opens a file to append to, and creates it if necessary. Returns `None` for a FIFO without a reader.
pub fn open(path: &Path) -> Result<Option<File>> {
    let context = || format!("failed to open {}", Quoted(path));
    let mut folder = start(path).with_context(context)?;
    let mut names = names(path);
    let mut links = 0;
    while let Some(name) = names.pop() {
        let shared = fstat(&folder).map(|stat| Some(stat).filter(is_shared));
        let shared = shared.with_context(context)?;
        /* A link in /proc refers to an open file, not to a path. */
        let is_proc = fstatfs(&folder).is_ok_and(|fs| fs.f_type == PROC_SUPER_MAGIC);
        let stat = statat(&folder, &name, AtFlags::SYMLINK_NOFOLLOW);
        if !is_proc && stat.is_ok_and(|stat| is_a(FileType::Symlink, &stat)) {
            let stat = stat.with_context(context)?;
            ensure_ours(&stat, shared.as_ref(), "a link").with_context(context)?;
            links += 1;
            let target = if links > LINKS_MAX {
                Err(Errno::LOOP)
            } else {
                readlinkat(&folder, &name, Vec::new())
            };
            let target = target.with_context(context)?.into_bytes();
            let target = PathBuf::from(OsString::from_vec(target));
            if target.is_absolute() {
                folder = start(&target).with_context(context)?;
            }
            names.extend(self::names(&target));
            continue;
        }
        let follow = if is_proc {
            OFlags::empty()
        } else {
            OFlags::NOFOLLOW
        };
        if names.is_empty() {
            return open_last(&folder, &name, follow, shared.as_ref()).with_context(context);
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | follow;
        folder = openat(&folder, &name, flags, Mode::empty()).with_context(context)?;
    }
    Err(Errno::ISDIR).with_context(context)
}

/// Opens the folder from which a path starts.
fn start(path: &Path) -> Result<OwnedFd, Errno> {
    let start = if path.is_absolute() { "/" } else { "." };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(CWD, start, flags, Mode::empty())
}

/// Returns the names in a path, the last first.
fn names(path: &Path) -> Vec<OsString> {
    let is_name =
        |part: &Component<'_>| matches!(part, Component::Normal(_) | Component::ParentDir);
    let names = path.components().rev().filter(is_name);
    names.map(|part| part.as_os_str().to_owned()).collect()
}

/// Opens a file in its folder, if it is not a link.
fn open_last(
    folder: &OwnedFd,
    name: &OsString,
    follow: OFlags,
    shared: Option<&Stat>,
) -> Result<Option<File>> {
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::NONBLOCK | OFlags::NOCTTY;
    let flags = flags | OFlags::CLOEXEC | follow;
    let create = flags | OFlags::CREATE | OFlags::EXCL;
    match openat(folder, name, flags, Mode::empty()) {
        Ok(file) => {
            ensure_ours(&fstat(&file)?, shared, "a file")?;
            Ok(Some(file.into()))
        }
        Err(Errno::NOENT) => Ok(Some(openat(folder, name, create, MODE)?.into())),
        Err(Errno::NXIO) => {
            let stat = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
            if !is_a(FileType::Fifo, &stat) {
                bail!(Errno::NXIO);
            }
            ensure_ours(&stat, shared, "a FIFO")?;
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// Fails for a file that another user has put into a shared folder.
fn ensure_ours(stat: &Stat, shared: Option<&Stat>, what: &str) -> Result<()> {
    let Some(folder) = shared else {
        return Ok(());
    };
    let owner = stat.st_uid;
    ensure!(
        owner == geteuid().as_raw() || owner == folder.st_uid,
        "{what} of another user (uid {owner}), in a folder that everybody may write to: remove it, \
         or take another folder"
    );
    /* A user who may not write to a file may still create another link to it. */
    ensure!(
        stat.st_nlink < 2 || !is_a(FileType::RegularFile, stat),
        "a file with another name elsewhere, in a folder that everybody may write to: remove it, or \
         take another folder"
    );
    Ok(())
}

/// Returns whether all users may create files there, and only owners may remove them.
fn is_shared(folder: &Stat) -> bool {
    folder.st_mode & SHARED == SHARED
}

/// Returns whether the file is of this type.
fn is_a(kind: FileType, stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == kind
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::fs::Permissions;
    use std::io::Write as _;
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::fs::symlink;

    use super::open;

    /// Check that links are followed, also to a file that does not exist yet, relative and
    /// absolute, and to a file that is open; and that not everybody may read a new file.
    #[test]
    fn links() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        fs::create_dir(path.join("logs")).unwrap();
        symlink("logs", path.join("relative")).unwrap();
        symlink(path.join("relative/../relative/log"), path.join("link")).unwrap();
        let mut file = open(&path.join("link")).unwrap().unwrap();
        file.write_all(b"a").unwrap();
        let mut file = open(&path.join("relative/log")).unwrap().unwrap();
        file.write_all(b"b").unwrap();
        let log = path.join("logs/log");
        assert_eq!(fs::read(&log).unwrap(), b"ab");
        let mode = fs::metadata(&log).unwrap().permissions().mode();
        assert_eq!(mode & 0o027, 0, "{mode:o}");
        symlink("loop", path.join("loop")).unwrap();
        assert!(open(&path.join("loop")).is_err());
        assert!(open(path).is_err());
        assert!(open("/dev/stdout".as_ref()).unwrap().is_some());
    }

    /// Check that in a folder that everybody may write to our own files and links are accepted, and
    /// a file that has another name elsewhere is not.
    #[test]
    fn shared() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shared");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o1777)).unwrap();
        let own = path.join("own");
        assert!(open(&own).unwrap().is_some());
        assert!(open(&own).unwrap().is_some());
        symlink("own", path.join("link")).unwrap();
        assert!(open(&path.join("link")).unwrap().is_some());
        fs::hard_link(&own, path.join("other")).unwrap();
        let error = open(&own).unwrap_err();
        assert!(format!("{error:#}").contains("another name"), "{error:#}");
    }
}
