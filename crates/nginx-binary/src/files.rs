// SPDX-License-Identifier: MIT OR Apache-2.0
//! How this library opens further files. The caller decides: a program that runs as root must not
//! follow the links that another user made.

use std::fs::File;
use std::path::Path;

use anyhow::Result;

/// Opens the files that a binary, or the person who runs the program, names.
pub trait Files {
    /// Opens a file that a person named on the command line.
    ///
    /// # Errors
    ///
    /// Fails when it can't be opened, or is not a regular file.
    fn stated(&self, path: &Path) -> Result<File>;

    /// Opens a file that a binary named, anywhere. `None` when it can't be had safely.
    fn beside(&self, path: &Path) -> Option<File>;

    /// Opens a file that a binary named, below a folder that belongs to root. `None` when there is
    /// none, or when it leads out of the folder.
    fn beneath(&self, folder: &Path, path: &Path) -> Option<File>;
}
