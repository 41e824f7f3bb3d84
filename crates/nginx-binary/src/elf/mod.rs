// SPDX-License-Identifier: MIT OR Apache-2.0
//! One ELF binary: its build id, its symbols, its data, and the code of its functions. All of it is
//! untrusted, and none of it is run.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::ops::Range;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::bail;
use anyhow::ensure;
use object::Object as _;
use object::ObjectSection as _;
use object::ObjectSegment as _;
use object::SectionKind;
use object::SegmentFlags;
use object::elf::ET_EXEC;
use object::elf::GNU_PROPERTY_X86_FEATURE_1_AND;
use object::elf::GNU_PROPERTY_X86_FEATURE_1_SHSTK;
use object::elf::PF_X;
use object::elf::SHT_NOBITS;
use object::read::elf::ElfFile64;
use object::read::elf::FileHeader as _;
use object::read::elf::ProgramHeader as _;
use object::read::elf::SectionHeader as _;

use crate::code::Machine;
use crate::elf::image::Image;
use crate::elf::limits::ADDRESS_MAX;
use crate::elf::limits::BUILD_ID_BYTES_MAX;
use crate::elf::limits::FILE_BYTES_MAX;
use crate::elf::limits::FUNCTION_BYTES_MAX;
use crate::elf::limits::SECTION_NAMES_BYTES_MAX;
use crate::elf::limits::SECTIONS_MAX;
use crate::elf::limits::SEGMENTS_MAX;
use crate::elf::symbols::Symbol;
use crate::elf::symbols::SymbolOrigin;
use crate::elf::symbols::Symbols;

pub mod debug_file;
pub mod image;
pub mod limits;
mod linked_code;
pub mod relocations;
pub mod symbols;

/// The code of a function.
#[derive(Debug)]
pub struct Function<'data> {
    /// The file offset of its first byte, in bytes; the offset of a uprobe is relative to the file, too.
    pub file_offset: u64,
    /// The address of its first byte, as linked. Below [`ADDRESS_MAX`].
    pub address: u64,
    /// Its instructions, at most [`FUNCTION_BYTES_MAX`] bytes.
    pub code: &'data [u8],
}

/// A parsed ELF file.
pub struct Elf<'data> {
    file: ElfFile64<'data>,
    machine: Machine,
    symbols: Symbols,
}

impl<'data> Elf<'data> {
    /// Parses the headers and the symbol tables.
    ///
    /// # Errors
    ///
    /// Fails when this is not a 64-bit little-endian ELF file for a known machine, or not one that a linker
    /// makes: overlapping or thousands of sections would multiply the work.
    pub fn parse(image: &'data Image) -> Result<Self> {
        let file = object::File::parse(image.bytes()).context("not an ELF file")?;
        let machine = Machine::from_architecture(file.architecture())?;
        ensure!(file.is_little_endian(), "built for a big-endian {machine}");
        let object::File::Elf64(file) = file else {
            bail!("built for 32 bits");
        };
        check_tables(&file)?;
        let symbols = Symbols::read(&file).context("failed to read its symbols")?;
        Ok(Self {
            file,
            machine,
            symbols,
        })
    }

    /// Returns the machine that it is built for.
    pub fn machine(&self) -> Machine {
        self.machine
    }

    /// Returns whether its processes may have a shadow stack, against which the processor checks every
    /// return.
    pub fn may_have_shadow_stack(&self) -> bool {
        let (endian, data) = (self.file.endian(), self.file.data());
        let sections = self.file.elf_section_table().iter();
        let mut notes = sections
            .filter_map(|section| section.notes(endian, data).ok().flatten())
            .flat_map(|notes| notes.map_while(Result::ok));
        notes.any(|note| {
            let mut properties = note.gnu_properties(endian).into_iter().flatten();
            properties.any(|property| {
                property.is_ok_and(|property| {
                    property.pr_type() == GNU_PROPERTY_X86_FEATURE_1_AND
                        && property
                            .data_u32(endian)
                            .is_ok_and(|features| features & GNU_PROPERTY_X86_FEATURE_1_SHSTK != 0)
                })
            })
        })
    }

    /// Returns the build id in lower-case hex. `None` when it was linked without one, or with one of more than
    /// 64 bytes.
    pub fn build_id(&self) -> Option<String> {
        let id = self.file.build_id().ok().flatten()?;
        if id.is_empty() || id.len() > BUILD_ID_BYTES_MAX {
            return None;
        }
        let mut hex = String::new();
        for byte in id {
            let _ = write!(hex, "{byte:02x}");
        }
        Some(hex)
    }

    /// Reads a section and decompresses it where necessary. `None` when there is no such section, or when
    /// it is empty in this file.
    ///
    /// # Errors
    ///
    /// Fails when the section is broken, or claims to be larger than what is left of `budget`.
    pub fn section(&self, name: &str, budget: &mut Budget) -> Result<Option<Cow<'data, [u8]>>> {
        let Some(section) = self.file.section_by_name(name) else {
            return Ok(None);
        };
        let context = || format!("failed to read section {name}");
        let data = section.compressed_data().with_context(context)?;
        let size = data.uncompressed_size;
        budget.0 = budget.0.checked_sub(size).with_context(|| {
            format!(
                "section {name} claims {size} bytes, which exceeds the limit of {FILE_BYTES_MAX}"
            )
        })?;
        let data = data.decompress().with_context(context)?;
        Ok(Some(data).filter(|data| !data.is_empty()))
    }

    /// Returns the file name in `.gnu_debuglink`: the file that the debug information was moved to. `None`
    /// when there is no such section.
    pub fn debug_link(&self) -> Option<String> {
        let (name, _) = self.file.gnu_debuglink().ok().flatten()?;
        Some(String::from_utf8_lossy(name).into_owned())
    }

    /// Returns the code of a function.
    ///
    /// # Errors
    ///
    /// Fails when there is no symbol of that name, it states no size, or is not in executable code.
    pub fn function(&self, name: &str) -> Result<Function<'data>> {
        let symbol = self
            .symbol(name)
            .with_context(|| format!("it has no function {name}"))?;
        ensure!(symbol.size > 0, "{name} has no size");
        self.code_at(symbol.address, symbol.size)
            .with_context(|| format!("failed to read {name}"))
    }

    /// Returns the code from an address to the next symbol or the end of the segment, for a function
    /// without a symbol.
    ///
    /// # Errors
    ///
    /// Fails when the address is not in executable code.
    pub fn function_at(&self, address: u64) -> Result<Function<'data>> {
        let next = self.symbols.next_start(address);
        let next = next.map_or(FUNCTION_BYTES_MAX, |next| next - address);
        let left = self
            .code()
            .filter_map(|(start, code)| (start + code.len() as u64).checked_sub(address))
            .min();
        self.code_at(address, next.min(left.unwrap_or_default()))
    }

    fn code_at(&self, address: u64, size: u64) -> Result<Function<'data>> {
        let size = size.min(FUNCTION_BYTES_MAX);
        for segment in self.file.segments() {
            let (file_start, file_size) = segment.file_range();
            let Some(into) = address.checked_sub(segment.address()) else {
                continue;
            };
            if into >= file_size {
                continue;
            }
            ensure!(is_code(segment.flags()), "not in executable code");
            let code = segment
                .data_range(address, size)?
                .context("ends outside its segment")?;
            return Ok(Function {
                file_offset: file_start + into,
                address,
                code,
            });
        }
        bail!("not in the file");
    }

    /// Returns the executable segments: the address, as linked, and the bytes of each.
    pub fn code(&self) -> impl Iterator<Item = (u64, &'data [u8])> {
        let segments = self.file.segments();
        segments
            .filter(|segment| is_code(segment.flags()))
            .filter_map(|segment| Some((segment.address(), segment.data().ok()?)))
    }

    /// Returns the code from an address to the end of its segment. `None` when the address is not in
    /// executable code.
    pub fn code_from(&self, address: u64) -> Option<&'data [u8]> {
        self.code().find_map(|(start, code)| {
            let into = usize::try_from(address.checked_sub(start)?).ok()?;
            code.get(into..)
        })
    }

    /// Returns the bytes of every segment.
    pub fn segments(&self) -> impl Iterator<Item = &'data [u8]> {
        let segments = self.file.segments();
        segments.filter_map(|segment| segment.data().ok())
    }

    /// Returns the data sections: the address, as linked, and the bytes of each. Segments would include
    /// the symbol tables, too.
    pub fn data(&self) -> impl Iterator<Item = (u64, &'data [u8])> {
        let sections = self.file.sections();
        sections
            .filter(|section| {
                matches!(
                    section.kind(),
                    SectionKind::Data
                        | SectionKind::ReadOnlyData
                        | SectionKind::ReadOnlyDataWithRel
                )
            })
            .filter_map(|section| Some((section.address(), section.data().ok()?)))
    }

    /// Returns whether it runs at the addresses that it is linked to (no PIE).
    pub fn is_fixed(&self) -> bool {
        self.file.elf_header().e_type(self.file.endian()) == ET_EXEC
    }

    /// Returns the address of the program headers, as linked. `None` when no segment has them.
    pub fn program_headers(&self) -> Option<u64> {
        let header = self.file.elf_header();
        let at = header.e_phoff(self.file.endian());
        self.file.segments().find_map(|segment| {
            let (start, size) = segment.file_range();
            let into = at.checked_sub(start).filter(|into| *into < size)?;
            segment.address().checked_add(into)
        })
    }

    /// Returns whether two addresses are in the same section.
    pub fn are_together(&self, a: u64, b: u64) -> bool {
        let mut sections = self.file.sections();
        sections.any(|section| {
            let is_inside = |address: u64| {
                let into = address.checked_sub(section.address());
                into.is_some_and(|into| into < section.size())
            };
            section.address() > 0 && is_inside(a) && is_inside(b)
        })
    }

    /// Returns the address of a section, as linked. `None` when there is no such section.
    pub fn section_address(&self, name: &str) -> Option<u64> {
        Some(self.file.section_by_name(name)?.address())
    }

    /// Returns the range in the file of each segment, and the address of its first byte, as linked.
    pub fn mapped(&self) -> impl Iterator<Item = (Range<u64>, u64)> {
        self.file.segments().map(|segment| {
            let (start, size) = segment.file_range();
            (start..start.saturating_add(size), segment.address())
        })
    }

    /// Returns its symbols, with those that were added.
    pub fn symbols(&self) -> &Symbols {
        &self.symbols
    }

    /// Returns the symbol of that name. `None` when there is none, or when it is ambiguous.
    pub fn symbol(&self, name: &str) -> Option<&Symbol> {
        self.symbols.get(name)
    }

    /// Adds the symbols that another file of the same build has; `origin` says which table they are from.
    pub fn add_symbols(&mut self, other: &Elf<'_>, origin: SymbolOrigin) {
        self.symbols.add_from(&other.symbols, origin);
    }

    /// Returns the bytes at an address: at least one, at most `limit`, fewer than that at the end of a
    /// segment.
    ///
    /// # Errors
    ///
    /// Fails when the address is not in the file.
    pub fn bytes(&self, address: u64, limit: usize) -> Result<&'data [u8]> {
        for segment in self.file.segments() {
            let Some(into) = address.checked_sub(segment.address()) else {
                continue;
            };
            let data = segment.data()?;
            let start = usize::try_from(into)?;
            if start < data.len() {
                let end = data.len().min(start + limit);
                return Ok(&data[start..end]);
            }
        }
        bail!("address {address:#x} is not in the file");
    }

    /// Reads eight bytes as a number.
    ///
    /// # Errors
    ///
    /// Fails when not all of them are in the file.
    pub fn word(&self, address: u64) -> Result<u64> {
        let bytes = self.bytes(address, 8)?;
        Ok(u64::from_le_bytes(bytes.try_into()?))
    }
}

/// The number of bytes of sections that may still be read. [`FILE_BYTES_MAX`] by default.
pub struct Budget(u64);

impl Default for Budget {
    fn default() -> Self {
        Self(FILE_BYTES_MAX)
    }
}

fn is_code(flags: SegmentFlags) -> bool {
    matches!(flags, SegmentFlags::Elf { p_flags, .. } if p_flags.0 & PF_X.0 != 0)
}

/// Fails when there are more sections or segments than a linker makes, or when they overlap.
fn check_tables(file: &ElfFile64<'_>) -> Result<()> {
    let endian = file.endian();
    let sections = file.elf_section_table();
    let segments = file.elf_program_headers();
    ensure!(
        sections.len() <= SECTIONS_MAX && segments.len() <= SEGMENTS_MAX,
        "{} sections and {} segments exceed the limits of {SECTIONS_MAX} and {SEGMENTS_MAX}",
        sections.len(),
        segments.len()
    );
    if let Ok(names) = file.elf_header().shstrndx(endian, file.data())
        && let Ok(names) = sections.section(object::SectionIndex(names as usize))
    {
        let size = names.sh_size(endian);
        ensure!(
            size <= SECTION_NAMES_BYTES_MAX,
            "{size} bytes of section names exceed the limit of {SECTION_NAMES_BYTES_MAX}"
        );
    }
    let sections = sections
        .iter()
        .filter(|section| section.sh_type(endian) != SHT_NOBITS)
        .map(|section| (section.sh_addr(endian), section.sh_size(endian)));
    let segments = segments
        .iter()
        .map(|segment| (segment.p_vaddr(endian), segment.p_filesz(endian)));
    for ranges in [sections.collect::<Vec<_>>(), segments.collect()] {
        let mut left = 2 * FILE_BYTES_MAX;
        for (address, size) in ranges {
            ensure!(
                address < ADDRESS_MAX,
                "invalid section address {address:#x}"
            );
            left = left
                .checked_sub(size)
                .context("its sections or segments overlap")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
