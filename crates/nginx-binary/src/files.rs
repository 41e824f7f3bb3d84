// SPDX-License-Identifier: MIT OR Apache-2.0
//! The way in which this library opens further files. The caller implements it: a program that runs as
//! root must not follow links that another user made.

use std::fs::File;
use std::path::Path;

use anyhow::Result;

/// Opens the files that a binary, or the person who runs the program, names.
pub trait Files {
    /// Opens a file that a person named on the command line.
    ///
    /// # Errors
    ///
    /// Fails when the file can't be opened, or is not a regular file.
    fn stated(&self, path: &Path) -> Result<File>;

    /// Opens a file at any path that a binary named. `None` when it does not exist or opening it is not
    /// safe.
    fn beside(&self, path: &Path) -> Option<File>;

    /// Opens a file that a binary named, below a folder that belongs to root. `None` when it does not
    /// exist, or when `path` leads out of the folder.
    fn beneath(&self, folder: &Path, path: &Path) -> Option<File>;
}
