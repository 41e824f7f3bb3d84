// SPDX-License-Identifier: MIT OR Apache-2.0
//! Chooses the layout of a binary: from the first source that has one, provided that the binary's own code
//! does not contradict it.

use std::path::Path;
use std::path::PathBuf;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::anyhow;
use anyhow::bail;
use serde::Serialize;

use crate::Identity;
use crate::build;
use crate::elf::Elf;
use crate::elf::debug_file::DebugFiles;
use crate::elf::symbols::SymbolOrigin;
use crate::files::Files;
use crate::layout;
use crate::layout::Layout;
use crate::layout::dwarf;
use crate::layout::file;
use crate::layout::file::LayoutFile;
use crate::layout::inference;
use crate::layout::inference::candidates::Candidates;
use crate::layout::inference::listed;
use crate::layout::inference::listed::Refusal;
use crate::layout::remedy;
use crate::layout::wanted::WantedMembers;
use crate::layout::witness::Agreement;
use crate::layout::witness::Witnesses;

/// The source of a layout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LayoutOrigin {
    /// The built-in table, `layouts.txt`.
    Table,
    /// The file that `--layout` names.
    File(#[serde(skip_serializing)] PathBuf),
    /// The file with the binary's build id in one of the folders of layouts (`file::FOLDERS`).
    Installed(#[serde(skip_serializing)] PathBuf),
    /// Debug information: of the binary, of its debug file, or of the file that `--debug-info` names.
    Dwarf,
    /// Inferred: the build is not known, but its code agrees with exactly one known layout.
    Inferred,
}

impl LayoutOrigin {
    /// Returns the file of layouts. `None` for other sources.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) | Self::Installed(path) => Some(path),
            Self::Table | Self::Dwarf | Self::Inferred => None,
        }
    }
}

/// The layout that a binary is traced with.
#[derive(Debug)]
pub struct ChosenLayout {
    /// The source of the layout.
    pub source: LayoutOrigin,
    /// The offsets of the members.
    pub layout: Layout,
    /// The members in which the code of the binary agrees.
    pub fit: Agreement,
}

/// The files that may state the layout of a binary.
pub struct LayoutSources<'a> {
    /// The file of `--layout`.
    pub stated: Option<LayoutFile>,
    /// True when that file is used even if the code of the binary contradicts it (`--trust-layout`).
    pub is_trusted: bool,
    /// The debug files.
    pub debug_files: &'a DebugFiles<'a>,
    /// Opens the files of installed layouts.
    pub files: &'a dyn Files,
}

impl ChosenLayout {
    /// Removes the members that this binary never sets, since the module that they belong to is not built in. Nothing
    /// in its code shows where they are: `ngx_connection_s.ssl` in a build without TLS, for which compat makes
    /// room all the same.
    #[must_use]
    pub fn without_unread(mut self) -> Self {
        let unread = self.fit.unread.iter().filter(|place| {
            let (name, member) = place[place.len() - 1];
            WantedMembers::is_optional(name, member) && !self.fit.agree.contains(place)
        });
        for place in unread {
            let (name, member) = place[place.len() - 1];
            if let Some(members) = self.layout.structs.get_mut(name) {
                members.remove(member);
            }
        }
        self
    }
}

/// Reads the layout from debug information as `from_debug_info()` does, and checks it against the code of the
/// binary. Where the code agrees with no known layout either, the debug information is believed: forks and
/// other compilers may produce code that the witnesses do not understand.
///
/// # Errors
///
/// Fails when `from_debug_info()` does, or when the code contradicts the debug information.
pub fn read_debug_info(
    path: &Path,
    elf: &Elf<'_>,
    identity: &Identity,
    debug_files: &DebugFiles<'_>,
    wanted: &WantedMembers,
) -> Result<Option<ChosenLayout>> {
    let Some(layout) = from_debug_info(path, elf, debug_files, wanted)? else {
        return Ok(None);
    };
    let build = &identity.build;
    let witnesses = Witnesses::new(elf);
    let mut examine = |layout: &Layout| witnesses.examine(layout);
    let fit = examine(&layout);
    let contradiction = if fit.differ.is_empty() {
        inference::contradicted_by_own(&layout, &layout::built_in(build)?, &mut examine)
    } else {
        let known = layout::known_layouts(build)?;
        inference::contradicted_by_known(&fit, &known, &mut examine)
    };
    if let Some(contradiction) = contradiction {
        bail!(
            "the debug information of {build}, build id {}, is broken: {contradiction}",
            identity.shown_build_id()
        );
    }
    Ok(Some(ChosenLayout {
        source: LayoutOrigin::Dwarf,
        layout,
        fit,
    }))
}

/// Chooses the layout of a binary from the first source that has one: the file of `--layout`, that of
/// `--debug-info`, the debug information of the binary or of its debug file, an installed file, the built-in
/// table, and at last inference. `path` names the binary in messages.
///
/// # Errors
///
/// Fails when a source is broken, when none has a layout, or when the binary's code contradicts it. The error
/// says what to do.
pub fn choose_layout(
    path: &Path,
    elf: &Elf<'_>,
    identity: &Identity,
    sources: LayoutSources<'_>,
    wanted: &WantedMembers,
) -> Result<ChosenLayout> {
    let (build, debug_files) = (&identity.build, sources.debug_files);
    if let Some(stated) = sources.stated {
        let chosen = from_file(elf, stated, LayoutOrigin::File);
        return match sources.is_trusted {
            true => Ok(chosen),
            false => fitting(chosen, identity, remedy::for_stated()),
        };
    }
    let described = read_debug_info(path, elf, identity, debug_files, wanted);
    let described =
        described.map_err(|error| anyhow!("{error:#}: {}", remedy::for_debug_info(debug_files)))?;
    if let Some(chosen) = described {
        return Ok(chosen);
    }
    if let Some(installed) = file::find_installed(identity, sources.files, wanted)? {
        let remedy = remedy::for_installed(&installed.path);
        let chosen = from_file(elf, installed, LayoutOrigin::Installed);
        return fitting(chosen, identity, &remedy);
    }
    let witnesses = Witnesses::new(elf);
    let mut examine = |layout: &Layout| witnesses.examine(layout);
    let listed = layout::built_in(build)?;
    let chosen = match listed.is_empty() {
        true => infer(identity, &mut examine),
        false => from_table(&listed, identity, &mut examine),
    };
    chosen.map_err(|error| anyhow!("{error:#}: {}", remedy::for_layout(debug_files)))
}

/// Compares the layout of a file with the code of the binary.
fn from_file(
    elf: &Elf<'_>,
    file: LayoutFile,
    origin: impl FnOnce(PathBuf) -> LayoutOrigin,
) -> ChosenLayout {
    ChosenLayout {
        fit: Witnesses::new(elf).examine(&file.layout),
        source: origin(file.path),
        layout: file.layout,
    }
}

/// Returns the layout of a file. Fails when the binary's code contradicts it.
fn fitting(chosen: ChosenLayout, identity: &Identity, remedy: &str) -> Result<ChosenLayout> {
    if let (Some(contradiction), Some(file)) = (chosen.fit.contradiction(), chosen.source.file()) {
        bail!(
            "the layout of {} in {file:?} does not fit this binary, build id {}: its code has {contradiction}; {remedy}",
            identity.build,
            identity.shown_build_id(),
        );
    }
    Ok(chosen)
}

/// Returns the one of the layouts that builds of one name have which the binary's code does not contradict. Where
/// it contradicts all of them, nothing is inferred: the binary is not what it says that it is.
fn from_table(
    listed: &[Layout],
    identity: &Identity,
    examine: &mut dyn FnMut(&Layout) -> Agreement,
) -> Result<ChosenLayout> {
    let (build, build_id) = (&identity.build, identity.shown_build_id());
    let (layout, fit) = listed::choose(listed, examine).map_err(|refusal| match refusal {
        Refusal::Contradicted(nearest) => {
            let contradiction = nearest.contradiction().unwrap_or_default();
            match listed.len() {
                1 => anyhow!(
                    "the layout of {build} does not fit this binary, build id {build_id}: its code has \
                     {contradiction}"
                ),
                count => anyhow!(
                    "none of the {count} layouts of {build} fits this binary, build id {build_id}: compared \
                     with the nearest, its code has {contradiction}"
                ),
            }
        }
        Refusal::Open(member) => anyhow!(
            "{build}, build id {build_id}, has one of {} layouts, and nothing in the code shows the offset \
             of {member}",
            listed.len()
        ),
    })?;
    Ok(ChosenLayout {
        source: LayoutOrigin::Table,
        layout,
        fit,
    })
}

/// Reads the layout from debug information: of the stated file, or else of the binary itself or of the first
/// debug file that has any. `None` when there is no debug information.
///
/// # Errors
///
/// Fails when debug information is broken or lacks a member that every nginx has, or when the stated file has
/// none and nothing else of it is needed.
pub fn from_debug_info(
    path: &Path,
    elf: &Elf<'_>,
    debug_files: &DebugFiles<'_>,
    wanted: &WantedMembers,
) -> Result<Option<Layout>> {
    let context = |path: &Path| format!("failed to read {path:?}");
    if debug_files.stated().is_none()
        && let Some(layout) = dwarf::read_layout(elf, wanted).with_context(|| context(path))?
    {
        return Ok(Some(layout));
    }
    for debug in debug_files.matching() {
        let (path, debug) = debug?;
        let layout = dwarf::read_layout(debug, wanted).with_context(|| context(&path))?;
        let symbol = elf.symbol(build::HTTP_CORE).map(|symbol| symbol.origin);
        let is_needed = symbol == Some(SymbolOrigin::DebugFile);
        if layout.is_none() && debug_files.stated().is_some() && !is_needed {
            bail!("{path:?} is of the same build, but has no debug information");
        }
        if layout.is_some() {
            return Ok(layout);
        }
    }
    Ok(None)
}

/// Infers the layout of a build that the table does not have from the code of the binary.
fn infer(
    identity: &Identity,
    examine: &mut dyn FnMut(&Layout) -> Agreement,
) -> Result<ChosenLayout> {
    let (build, build_id) = (&identity.build, identity.shown_build_id());
    let known = Candidates::new(layout::known_layouts(build)?);
    let inferred = inference::infer_layout(&known, examine);
    let (layout, fit) = inferred.map_err(|reason| {
        anyhow!("no layout known for {build}, build id {build_id}, and {reason}")
    })?;
    Ok(ChosenLayout {
        source: LayoutOrigin::Inferred,
        layout,
        fit,
    })
}

#[cfg(test)]
mod tests {
    use super::LayoutOrigin;
    use super::from_table;
    use crate::Identity;
    use crate::layout::Layout;
    use crate::layout::tests::PLACE;
    use crate::layout::tests::build;
    use crate::layout::tests::layout;
    use crate::layout::witness::Agreement;

    /// Chooses between layouts for a binary of 1.22.1 that has the member at an offset. Returns the layout, or what
    /// is said of the binary.
    fn choose(listed: &[Layout], offset: u32) -> Result<Layout, String> {
        let identity = Identity {
            build: build("1.22.1", "8"),
            build_id: Some("0a".to_owned()),
        };
        let chosen = from_table(listed, &identity, &mut |layout| {
            let mut fit = Agreement::default();
            match layout.structs["s"]["a"] == offset {
                true => fit.agree.push(PLACE),
                false => fit.differ.push(PLACE),
            }
            fit
        });
        let chosen = chosen.map_err(|error| error.to_string())?;
        assert_eq!(chosen.source, LayoutOrigin::Table);
        Ok(chosen.layout)
    }

    /// Check that a binary whose code contradicts the only layout of its release is refused, and so is one whose code
    /// contradicts each of several.
    #[test]
    fn contradicted() {
        let listed = [layout(0), layout(8)];
        assert_eq!(choose(&listed[..1], 0), Ok(layout(0)));
        assert_eq!(choose(&listed, 8), Ok(layout(8)));
        let elsewhere = "1 of 1 members elsewhere (s.a first)";
        let one = format!(
            "the layout of nginx 1.22.1 (signature 8) does not fit this binary, build id 0a: its code has {elsewhere}"
        );
        assert_eq!(choose(&listed[..1], 16), Err(one));
        let each = format!(
            "none of the 2 layouts of nginx 1.22.1 (signature 8) fits this binary, build id 0a: compared with the \
             nearest, its code has {elsewhere}"
        );
        assert_eq!(choose(&listed, 16), Err(each));
    }
}
