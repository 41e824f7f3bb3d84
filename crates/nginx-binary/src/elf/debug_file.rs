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

/// The places where the debug files of one binary may be. Each file is opened and read once, when it is first
/// needed.
pub struct DebugImages<'a> {
    files: &'a dyn Files,
    places: Vec<DebugImage>,
}

/// One place, and the bytes of its file.
struct DebugImage {
    place: DebugPath,
    image: OnceCell<Option<Image>>,
}

/// The debug files that one binary may have. Each is parsed once, when it is first needed.
pub struct DebugFiles<'a> {
    images: &'a DebugImages<'a>,
    /// The binary itself, which its files are compared with.
    binary: BinaryMark<'a>,
    /// The file of each place. `None` when it is not there or is of another build.
    parsed: Vec<OnceCell<Option<Elf<'a>>>>,
}

/// The mark of a binary by which other files of the same build are recognized.
enum BinaryMark<'a> {
    /// Its build id.
    BuildId(String),
    /// It was linked without a build id: a file of the same build has the same code. Debug files have none,
    /// so that only the unstripped binary is recognized.
    Code(LinkedCode<'a>),
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

impl<'a> DebugImages<'a> {
    /// Lists the places to search: the file that was stated, or else all that the binary at `path` names.
    pub fn new(path: &Path, elf: &Elf<'_>, stated: Option<&Path>, files: &'a dyn Files) -> Self {
        let places = match stated {
            Some(path) => vec![DebugPath::Stated(path.to_owned())],
            None => named_by(path, elf),
        };
        let with_image = |place| DebugImage {
            place,
            image: OnceCell::new(),
        };
        Self {
            files,
            places: places.into_iter().map(with_image).collect(),
        }
    }
}

impl<'a> DebugFiles<'a> {
    /// Returns those of these files that are of a binary's build.
    pub fn new(images: &'a DebugImages<'a>, elf: &Elf<'a>) -> Self {
        Self {
            images,
            binary: BinaryMark::of(elf),
            parsed: images.places.iter().map(|_| OnceCell::new()).collect(),
        }
    }

    /// Returns the file that a person stated. `None` when the binary names its debug files itself.
    pub fn stated(&self) -> Option<&Path> {
        match &self.images.places[..] {
            [
                DebugImage {
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
    pub fn matching(&self) -> impl Iterator<Item = Result<(PathBuf, &Elf<'a>)>> {
        let places = self.images.places.iter().zip(&self.parsed);
        places.filter_map(|(file, parsed)| {
            let path = file.place.path();
            if parsed.get().is_none() {
                match file.parse(&self.binary, self.images.files) {
                    Ok(debug) => drop(parsed.set(debug)),
                    Err(error) => {
                        return Some(Err(error.context(format!("failed to read {path:?}"))));
                    }
                }
            }
            let debug = parsed.get()?.as_ref()?;
            Some(Ok((path, debug)))
        })
    }
}

impl DebugImage {
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
        elf.add_symbols(debug?.1, SymbolOrigin::DebugFile);
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

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::fs::File;
    use std::path::Path;
    use std::path::PathBuf;
    use std::ptr;

    use super::DebugFiles;
    use super::DebugImages;
    use crate::built;
    use crate::elf::Elf;
    use crate::files::Files;

    /// Opens the file that a person stated, and counts how often.
    struct Counted(Cell<u32>);

    impl Files for Counted {
        fn stated(&self, path: &Path) -> anyhow::Result<File> {
            self.0.set(self.0.get() + 1);
            Ok(File::open(path)?)
        }

        fn beside(&self, _: &Path) -> Option<File> {
            None
        }

        fn beneath(&self, _: &Path, _: &Path) -> Option<File> {
            None
        }
    }

    /// Check that a debug file is read and parsed once, whoever needs it.
    #[test]
    fn once() {
        let (_folder, path) = built::compiled("int main(void) { return 0; }", "-Wl,--build-id");
        let image = built::image(&path);
        let elf = Elf::parse(&image).unwrap();
        let files = Counted(Cell::new(0));
        let images = DebugImages::new(&path, &elf, Some(&path), &files);
        let debug_files = DebugFiles::new(&images, &elf);
        debug_files.verify_stated().unwrap();
        let read = || {
            let all: anyhow::Result<Vec<_>> = debug_files.matching().collect();
            all.unwrap()
        };
        let [first, again] = [read(), read()];
        let paths: Vec<&PathBuf> = first.iter().map(|(path, _)| path).collect();
        assert_eq!(paths, [&path]);
        assert!(ptr::eq(first[0].1, again[0].1));
        assert_eq!(files.0.get(), 1);
    }
}
