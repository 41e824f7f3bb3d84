// SPDX-License-Identifier: MIT OR Apache-2.0
//! Debug files, which hold the symbols and debug information that were stripped from a binary. A binary
//! names them by its build id and in `.gnu_debuglink`; a person names one by `--debug-info`.

use std::cell::OnceCell;
use std::path::Path;
use std::path::PathBuf;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::bail;
use lzma_rust2::XzReader;

use crate::elf::Budget;
use crate::elf::Elf;
use crate::elf::image::Image;
use crate::elf::limits::DEBUGDATA_BYTES_MAX;
use crate::elf::limits::XZ_MEMORY_KIB_MAX;
use crate::elf::linked_code::LinkedCode;
use crate::elf::symbols::SymbolOrigin;
use crate::files::Files;

/// The folder in which distributions install debug files.
const DEBUG_FOLDER: &str = "/usr/lib/debug";

/// The debug files that one binary may have. Each is opened and read once, when it is first needed.
pub struct DebugFiles<'a> {
    files: &'a dyn Files,
    /// The binary itself, which its files are compared with.
    binary: BinaryMark<'a>,
    places: Vec<DebugFile>,
}

/// The mark of a binary by which other files of the same build are recognized.
enum BinaryMark<'a> {
    /// Its build id.
    BuildId(String),
    /// It was linked without a build id: a file of the same build has the same code. Debug files have none,
    /// so that only the unstripped binary is recognized.
    Code(LinkedCode<'a>),
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
    pub fn new(path: &Path, elf: &Elf<'a>, stated: Option<&Path>, files: &'a dyn Files) -> Self {
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
            binary: BinaryMark::of(elf),
            places: places.into_iter().map(with_image).collect(),
        }
    }

    /// Returns the file that a person stated. `None` when the binary names its debug files itself.
    pub fn stated(&self) -> Option<&Path> {
        match &self.places[..] {
            [
                DebugFile {
                    place: DebugPath::Stated(path),
                    ..
                },
            ] => Some(path),
            _ => None,
        }
    }

    /// Returns whether the binary has a build id, by which its debug file is found.
    pub fn has_build_id(&self) -> bool {
        matches!(self.binary, BinaryMark::BuildId(_))
    }

    /// Reads the file that a person stated, if there is one.
    ///
    /// # Errors
    ///
    /// Fails when it is broken or of another build.
    pub fn verify_stated(&self) -> Result<()> {
        match self.stated() {
            Some(_) => self.matching().try_for_each(|file| file.map(|_| ())),
            None => Ok(()),
        }
    }

    /// Returns each file in turn that is of the binary's build, with its path.
    ///
    /// # Errors
    ///
    /// An item is an error when its file is broken, or is of another build although a person stated it.
    pub fn matching(&self) -> impl Iterator<Item = Result<(PathBuf, Elf<'_>)>> {
        self.places.iter().filter_map(|file| {
            let path = file.place.path();
            match file.parse(&self.binary, self.files) {
                Ok(debug) => Some(Ok((path, debug?))),
                Err(error) => Some(Err(error.context(format!("failed to read {path:?}")))),
            }
        })
    }
}

impl DebugFile {
    /// Parses the file. `None` when it does not exist or is of another build.
    fn parse(&self, binary: &BinaryMark<'_>, files: &dyn Files) -> Result<Option<Elf<'_>>> {
        if self.image.get().is_none() {
            let _ = self.image.set(self.place.read(files)?);
        }
        let Some(image) = self.image.get().and_then(Option::as_ref) else {
            return Ok(None);
        };
        let debug = Elf::parse(image)?;
        let is_same = binary.is_of(&debug);
        if !is_same && matches!(self.place, DebugPath::Stated(_)) {
            match binary {
                BinaryMark::BuildId(build_id) => bail!(
                    "it is not the debug file of build id {build_id}: its own is {}",
                    debug.build_id().as_deref().unwrap_or("none")
                ),
                BinaryMark::Code(_) => bail!(
                    "the binary has no build id, and this file does not have the same code: pass the \
                     unstripped file that the binary was made from"
                ),
            }
        }
        Ok(is_same.then_some(debug))
    }
}

impl<'a> BinaryMark<'a> {
    /// Returns the mark of a binary.
    fn of(elf: &Elf<'a>) -> Self {
        match elf.build_id() {
            Some(build_id) => Self::BuildId(build_id),
            None => Self::Code(LinkedCode::read(elf)),
        }
    }

    /// Returns whether another file is of the same build.
    fn is_of(&self, other: &Elf<'_>) -> bool {
        match self {
            Self::BuildId(build_id) => other.build_id().as_ref() == Some(build_id),
            Self::Code(code) => *code == LinkedCode::read(other) && !code.is_empty(),
        }
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
