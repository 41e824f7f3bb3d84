// SPDX-License-Identifier: MIT OR Apache-2.0
//! The files that a process has mapped as code. Their paths are chosen by others.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read as _;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::path::PathBuf;

use rustix::fs::major;
use rustix::fs::minor;

/// The most bytes of a list of mappings that are read. nginx with many modules has some ten thousand.
const LIST_BYTES_MAX: u64 = 1 << 20;

/// The identity of a file: the numbers of its device, and its inode.
pub type FileId = (u32, u32, u64);

/// A file that is mapped as code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodeMapping {
    pub range: Range<u64>,
    /// Where the mapping begins in the file.
    pub file_offset: u64,
    pub id: FileId,
    /// The path in the root folder of the process, or a name in brackets.
    pub path: PathBuf,
}

impl CodeMapping {
    /// Returns the mappings of a process. `None` when it has ended.
    pub fn of(pid: u32) -> Option<Vec<Self>> {
        let list = File::open(format!("/proc/{pid}/maps")).ok()?;
        let mut bytes = Vec::new();
        list.take(LIST_BYTES_MAX).read_to_end(&mut bytes).ok()?;
        let lines = bytes.split(|byte| *byte == b'\n');
        Some(lines.filter_map(Self::parse).collect())
    }

    /// Parses a line. `None` when it is not of code.
    fn parse(line: &[u8]) -> Option<Self> {
        let mut fields = line.splitn(6, |byte| *byte == b' ');
        let mut text = || std::str::from_utf8(fields.next()?).ok();
        let hex = |text: &str| u64::from_str_radix(text, 16).ok();
        let (start, end) = text()?.split_once('-')?;
        let is_code = text()?.as_bytes().get(2) == Some(&b'x');
        let file_offset = hex(text()?)?;
        let (major, minor) = text()?.split_once(':')?;
        let number = |text: &str| u32::from_str_radix(text, 16).ok();
        let id = (number(major)?, number(minor)?, text()?.parse().ok()?);
        let path = fields.next()?.trim_ascii_start();
        is_code.then_some(Self {
            range: hex(start)?..hex(end)?,
            file_offset,
            id,
            path: Path::new(OsStr::from_bytes(path)).to_owned(),
        })
    }
}

/// Returns the identity of an open file.
pub fn id_of(file: &File) -> Option<FileId> {
    let metadata = file.metadata().ok()?;
    let device = metadata.dev();
    Some((major(device), minor(device), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::path::Path;

    use super::CodeMapping;
    use super::id_of;

    /// Check lines of code, and lines of something else.
    #[test]
    fn lines() {
        let line =
            b"55d0c9a2b000-55d0c9aed000 r-xp 0002b000 fe:00 131         /usr/sbin/a b (deleted)";
        let found = CodeMapping::parse(line).unwrap();
        assert_eq!(found.range, 0x55d0_c9a2_b000..0x55d0_c9ae_d000);
        assert_eq!((found.file_offset, found.id), (0x2_b000, (0xfe, 0, 131)));
        assert_eq!(found.path, Path::new("/usr/sbin/a b (deleted)"));
        for other in [
            &b"55d0c9a2b000-55d0c9aed000 rw-p 0002b000 fe:00 131 /a"[..],
            b"55d0c9a2b000-55d0c9aed000 r-xp 0002b000 fe:00",
            b"",
            b"- r-xp 0 0:0 0 ",
        ] {
            assert_eq!(CodeMapping::parse(other), None);
        }
    }

    /// Check that this program is among the mappings of its process, by its identity.
    #[test]
    fn own() {
        let id = id_of(&File::open("/proc/self/exe").unwrap()).unwrap();
        let all = CodeMapping::of(std::process::id()).unwrap();
        let place = lines as fn() as usize as u64;
        let found = all.iter().find(|mapping| mapping.range.contains(&place));
        let name = std::env::current_exe().unwrap();
        let found = found.unwrap();
        assert_eq!(found.path, name);
        /* A file on an overlay may have another device there. */
        assert_eq!(found.id.2, id.2);
        assert!(CodeMapping::of(4_194_305).is_none());
    }
}
