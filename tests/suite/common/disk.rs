// SPDX-License-Identifier: MIT OR Apache-2.0
//! A disk that does not answer.

use std::fs;
use std::fs::File;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

/// A file system that can be frozen: whoever writes to it waits as for a disk.
pub struct Disk {
    /// Where it is mounted.
    folder: PathBuf,
}

impl Disk {
    /// Makes one below a folder. `None` when this machine has no such file systems.
    pub fn mount(prefix: &Path) -> Option<Self> {
        let (image, folder) = (prefix.join("image"), prefix.join("log"));
        File::create(&image).unwrap().set_len(4 << 20).unwrap();
        fs::create_dir(&folder).unwrap();
        let is_made = is_done(Command::new("mkfs.ext4").arg("-q").arg(&image));
        let mut mount = Command::new("mount");
        mount.args(["-o", "loop"]).args([&image, &folder]);
        (is_made && is_done(&mut mount)).then_some(Self { folder })
    }

    /// Freezes it (`-f`), or ends that (`-u`).
    pub fn freeze(&self, how: &str) -> bool {
        is_done(Command::new("fsfreeze").arg(how).arg(&self.folder))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.freeze("-u");
        is_done(Command::new("umount").args(["-l", "-d"]).arg(&self.folder));
    }
}

/// Returns whether a command does what it is asked for.
fn is_done(command: &mut Command) -> bool {
    let output = command.output();
    output.is_ok_and(|output| output.status.success())
}
