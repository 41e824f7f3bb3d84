// SPDX-License-Identifier: MIT OR Apache-2.0
//! Files of layouts besides the built-in table: the one of `--layout`, and those that are installed for single
//! builds. The README of this crate describes their form.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::path::PathBuf;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::anyhow;
use anyhow::bail;
use anyhow::ensure;

use crate::Identity;
use crate::build::Build;
use crate::files::Files;
use crate::layout::Layout;
use crate::layout::remedy;
use crate::layout::table;
use crate::layout::wanted::WantedMembers;

/// The folders of installed layouts: the administrator's own, and that of packages. The layout of a binary is
/// in `BUILDID.layout`, its build id in lower-case hex.
pub const FOLDERS: [&str; 2] = [
    "/usr/local/share/ngx-bpf/layouts",
    "/usr/share/ngx-bpf/layouts",
];

/// The most bytes of a file of layouts. The built-in table has a twentieth of this.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The layout of one build, and the file that states it.
#[derive(Debug)]
pub struct LayoutFile {
    /// The path of the file.
    pub path: PathBuf,
    /// The layout.
    pub layout: Layout,
}

/// Reads the layout of a build from the file that a person stated.
///
/// # Errors
///
/// Fails when the file can't be opened or read or parsed, has more than 1 MiB, has no layout for this build,
/// or lacks a member that is read.
pub fn read_stated(
    path: &Path,
    files: &dyn Files,
    build: &Build,
    wanted: &WantedMembers,
) -> Result<LayoutFile> {
    let file = files.stated(path);
    let file = file.with_context(|| format!("failed to read layout {path:?}"))?;
    read(path, file, build, wanted)
}

/// Finds the installed layout of a binary by its build id. `None` when there is none, or when the binary has no
/// build id.
///
/// # Errors
///
/// Fails when there is one that `read_stated()` would refuse.
pub fn find_installed(
    identity: &Identity,
    files: &dyn Files,
    wanted: &WantedMembers,
) -> Result<Option<LayoutFile>> {
    let Some(build_id) = &identity.build_id else {
        return Ok(None);
    };
    let name = format!("{build_id}.layout");
    for folder in FOLDERS.map(Path::new) {
        let Some(file) = files.beneath(folder, Path::new(&name)) else {
            continue;
        };
        let path = folder.join(&name);
        let read = read(&path, file, &identity.build, wanted);
        return read
            .map(Some)
            .map_err(|error| anyhow!("{error:#}; {}", remedy::for_installed(&path)));
    }
    Ok(None)
}

/// Reads the layout of a build from a file.
fn read(path: &Path, file: File, build: &Build, wanted: &WantedMembers) -> Result<LayoutFile> {
    let context = || format!("failed to read layout {path:?}");
    let mut text = String::new();
    file.take(FILE_BYTES_MAX + 1)
        .read_to_string(&mut text)
        .with_context(context)?;
    ensure!(
        text.len() as u64 <= FILE_BYTES_MAX,
        "layout {path:?} has more than {FILE_BYTES_MAX} bytes"
    );
    let table = table::parse(&text).with_context(context)?;
    let remedy = || remedy::for_other_build(build);
    let layout = table.layout_of(build).with_context(context)?;
    let layout =
        layout.with_context(|| format!("layout {path:?} has nothing for {build}: {}", remedy()))?;
    if let Some(lacking) = wanted.lacking(&layout) {
        bail!(
            "layout {path:?} has no {lacking}, which is read: {}",
            remedy()
        );
    }
    Ok(LayoutFile {
        path: path.to_owned(),
        layout,
    })
}
