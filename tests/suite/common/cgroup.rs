// SPDX-License-Identifier: MIT OR Apache-2.0
//! A cgroup for one test.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::time::Instant;

use super::PATIENCE;

/// Where hierarchies of cgroups are mounted: v2, alone or beside v1, and two of v1.
pub const HIERARCHIES: [&str; 4] = [
    "/sys/fs/cgroup/unified",
    "/sys/fs/cgroup",
    "/sys/fs/cgroup/pids",
    "/sys/fs/cgroup/systemd",
];

/// A cgroup that exists for one test.
pub struct Cgroup {
    /// Its folder, and those above it that the test has made, the innermost first.
    folders: Vec<PathBuf>,
}

impl Cgroup {
    /// Makes a cgroup. `None` when this machine does not let the test make one.
    pub fn make(hierarchy: &str, path: &str) -> Option<Self> {
        let mut cgroup = Self { folders: vec![] };
        let mut folder = PathBuf::from(hierarchy);
        /* A folder without this file is not a cgroup, but what hierarchies are mounted on. */
        if !folder.join("cgroup.procs").exists() {
            return None;
        }
        for name in path.split('/') {
            folder.push(name);
            if !folder.exists() {
                fs::create_dir(&folder).ok()?;
                cgroup.folders.insert(0, folder.clone());
            }
        }
        Some(cgroup)
    }

    /// Returns its folder.
    pub fn folder(&self) -> &Path {
        &self.folders[0]
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let end = Instant::now() + PATIENCE;
        for folder in &self.folders {
            /* It is busy until the kernel has let go of its last process. */
            while fs::remove_dir(folder).is_err() && folder.exists() && Instant::now() < end {
                std::thread::yield_now();
            }
        }
    }
}
