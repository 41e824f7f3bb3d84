// SPDX-License-Identifier: MIT OR Apache-2.0
//! Debug files, which hold the symbols and debug information that were stripped from a binary. A binary
//! names them by its build id and in `.gnu_debuglink`; a person names one by `--debug-info`.

use std::cell::OnceCell;
use std::path::Path;
use std::path::PathBuf;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::ensure;
use lzma_rust2::XzReader;

use crate::elf::Budget;
use crate::elf::Elf;
use crate::elf::image::Image;
use crate::elf::limits::DEBUGDATA_BYTES_MAX;
use crate::elf::limits::XZ_MEMORY_KIB_MAX;
use crate::elf::symbols::SymbolOrigin;
use crate::files::Files;

/// The folder in which distributions install debug files.
const DEBUG_FOLDER: &str = "/usr/lib/debug";

/// The debug files that one binary may have. Each is opened and read once, when it is first needed.
pub struct DebugFiles<'a> {
    files: &'a dyn Files,
    /// The build id of the binary. `None` when it was linked without one: no file is of its build.
    build_id: Option<String>,
    places: Vec<DebugFile>,
}

/// One place where a debug file may be.
struct DebugFile {
    place: DebugPath,
    image: OnceCell<Option<Image>>,
}

/// Who named a debug file, and with that how far it is trusted.
enum DebugPath {
    /// A person named it: it must be there, and be of this build.
    Stated(PathBuf),
    /// The binary named a path below `DEBUG_FOLDER`, which belongs to root.
    Shared(PathBuf),
    /// The binary named a path beside itself, which may be anyone's.
    Beside(PathBuf),
}

impl<'a> DebugFiles<'a> {
    /// Lists the places to search: the file that was stated, or else all that the binary at `path` names.
    pub fn new(path: &Path, elf: &Elf<'_>, stated: Option<&Path>, files: &'a dyn Files) -> Self {
        let places = match stated {
            Some(path) => vec![DebugPath::Stated(path.to_owned())],
            None => named_by(path, elf),
        };
        let with_image = |place| DebugFile {
            place,
            image: OnceCell::new(),
        };
        Self {
            files,
            build_id: elf.build_id(),
            places: places.into_iter().map(with_image).collect(),
        }
    }

    /// Returns whether a person stated the debug file.
    pub fn is_stated(&self) -> bool {
        matches!(
            self.places[..],
            [DebugFile {
                place: DebugPath::Stated(_),
                ..
            }]
        )
    }

    /// Returns each file in turn that has the binary's build id, with its path.
    ///
    /// # Errors
    ///
    /// An item is an error when its file is broken, or is of another build although a person stated it.
    pub fn matching(&self) -> impl Iterator<Item = Result<(PathBuf, Elf<'_>)>> {
        self.places.iter().filter_map(|file| {
            let path = file.place.path();
            match file.parse(self.build_id.as_deref(), self.files) {
                Ok(debug) => Some(Ok((path, debug?))),
                Err(error) => Some(Err(error.context(format!("failed to read {path:?}")))),
            }
        })
    }
}

impl DebugFile {
    /// Parses the file. `None` when it does not exist or is of another build.
    fn parse(&self, build_id: Option<&str>, files: &dyn Files) -> Result<Option<Elf<'_>>> {
        if self.image.get().is_none() {
            let _ = self.image.set(self.place.read(files)?);
        }
        let Some(image) = self.image.get().and_then(Option::as_ref) else {
            return Ok(None);
        };
        let debug = Elf::parse(image)?;
        let theirs = debug.build_id();
        let is_same = build_id.is_some() && theirs.as_deref() == build_id;
        if matches!(self.place, DebugPath::Stated(_)) {
            let build_id =
                build_id.context("the binary has no build id to compare with: pass --layout")?;
            ensure!(
                is_same,
                "it is not the debug file of build id {build_id}: its own is {}",
                theirs.as_deref().unwrap_or("none")
            );
        }
        Ok(is_same.then_some(debug))
    }
}

impl DebugPath {
    /// Reads the file. `None` when a binary named it and it is not there.
    fn read(&self, files: &dyn Files) -> Result<Option<Image>> {
        let file = match self {
            Self::Stated(path) => Some(files.stated(path)?),
            Self::Shared(path) => files.beneath(Path::new(DEBUG_FOLDER), path),
            Self::Beside(path) => files.beside(path),
        };
        file.map(|file| Image::read(&file)).transpose()
    }

    /// Returns the whole path, for messages.
    fn path(&self) -> PathBuf {
        match self {
            Self::Shared(path) => Path::new(DEBUG_FOLDER).join(path),
            Self::Stated(path) | Self::Beside(path) => path.clone(),
        }
    }
}

/// Lists the places that a binary names, in the order in which gdb looks there.
fn named_by(path: &Path, elf: &Elf<'_>) -> Vec<DebugPath> {
    let mut places = Vec::new();
    if let Some(id) = elf.build_id()
        && let Some((first, rest)) = id.split_at_checked(2)
    {
        let file = format!(".build-id/{first}/{rest}.debug");
        places.push(DebugPath::Shared(file.into()));
    }
    if let (Some(name), Some(folder)) = (elf.debug_link(), path.parent())
        && !name.contains('/')
    {
        places.push(DebugPath::Beside(folder.join(&name)));
        places.push(DebugPath::Beside(folder.join(".debug").join(&name)));
        if let Ok(folder) = folder.strip_prefix("/") {
            places.push(DebugPath::Shared(folder.join(&name)));
        }
    }
    places
}

/// Adds symbols from the debug files and then from `.gnu_debugdata`, until `elf` has all of `names`.
///
/// # Errors
///
/// Fails when a file that has to be read is broken, or is of another build although a person stated it.
pub fn add_symbols(elf: &mut Elf<'_>, debug_files: &DebugFiles<'_>, names: &[&str]) -> Result<()> {
    let lacks_one = |elf: &Elf<'_>| names.iter().any(|name| elf.symbol(name).is_none());
    let mut matching = debug_files.matching();
    while lacks_one(elf)
        && let Some(debug) = matching.next()
    {
        elf.add_symbols(&debug?.1, SymbolOrigin::DebugFile);
    }
    if lacks_one(elf)
        && let Some(packed) = elf.section(".gnu_debugdata", &mut Budget::default())?
    {
        let reader = XzReader::new_mem_limit(&*packed, false, XZ_MEMORY_KIB_MAX);
        let image = Image::read_up_to(DEBUGDATA_BYTES_MAX, reader)
            .context("failed to unpack .gnu_debugdata")?;
        let debug = Elf::parse(&image).context("failed to read .gnu_debugdata")?;
        elf.add_symbols(&debug, SymbolOrigin::GnuDebugdata);
    }
    Ok(())
}
