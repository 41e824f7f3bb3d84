// SPDX-License-Identifier: MIT OR Apache-2.0
//! One binary: its build id, its symbols, its data, and the code of its functions. Nothing in it is
//! trusted, nothing of it is run.

use std::borrow::Cow;
use std::fmt::Write as _;

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
use object::elf::RelocationType;
use object::elf::SHF_ALLOC;
use object::elf::SHT_NOBITS;
use object::elf::SHT_RELA;
use object::read::elf::ElfFile64;
use object::read::elf::FileHeader as _;
use object::read::elf::ProgramHeader as _;
use object::read::elf::Rela as _;
use object::read::elf::SectionHeader as _;
use object::read::elf::Sym as _;

use crate::code::Machine;
use crate::elf::image::Image;
use crate::elf::limits::ADDRESS_MAX;
use crate::elf::limits::FILE_BYTES_MAX;
use crate::elf::limits::FUNCTION_BYTES_MAX;
use crate::elf::limits::SECTION_NAMES_BYTES_MAX;
use crate::elf::limits::SECTIONS_MAX;
use crate::elf::limits::SEGMENTS_MAX;
use crate::elf::symbols::Source;
use crate::elf::symbols::Symbol;
use crate::elf::symbols::Symbols;

pub mod debug_file;
pub mod image;
pub mod limits;
pub mod symbols;

/// A function.
#[derive(Debug)]
pub struct Function<'data> {
    /// Where it begins in the file: what a uprobe's offset counts from.
    pub file_offset: u64,
    /// Where it begins in the process, as linked.
    pub address: u64,
    /// Its instructions, to the end that the symbol states.
    pub code: &'data [u8],
}

/// What the dynamic linker does to one word.
pub struct Relocation {
    /// `R_X86_64_…`, `R_AARCH64_…`
    pub kind: RelocationType,
    /// The word's address, as linked.
    pub place: u64,
    /// The address of its symbol; 0 when it has none, or none that is defined here.
    pub symbol: u64,
    /// What is added.
    pub addend: u64,
}

impl Relocation {
    /// What will stand there, as linked, where that is a pointer.
    pub fn value(&self) -> u64 {
        self.symbol.wrapping_add(self.addend)
    }
}

/// A parsed binary.
pub struct Elf<'data> {
    /// Its headers and tables.
    file: ElfFile64<'data>,
    /// What it is built for.
    machine: Machine,
    /// Its own, and what was added to them.
    symbols: Symbols,
}

impl<'data> Elf<'data> {
    /// Fails when this is no ELF file for a machine that is known, or not one that a linker makes:
    /// what overlaps, or is there a thousand times, would be read as often.
    pub fn parse(image: &'data Image) -> Result<Self> {
        let file = object::File::parse(image.bytes()).context("no ELF file")?;
        let machine = Machine::of(file.architecture())?;
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

    /// What it is built for.
    pub fn machine(&self) -> Machine {
        self.machine
    }

    /// Whether its processes may have a shadow stack, which every return is compared with.
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

    /// The build id in hex. `None` when it was linked without one.
    pub fn build_id(&self) -> Option<String> {
        let id = self.file.build_id().ok().flatten()?;
        let mut hex = String::new();
        for byte in id {
            let _ = write!(hex, "{byte:02x}");
        }
        Some(hex)
    }

    /// Whether both are of one build.
    pub fn is_of_build(&self, other: &Elf<'_>) -> bool {
        let build_id = self.build_id();
        build_id.is_some() && build_id == other.build_id()
    }

    /// A section, inflated where it is compressed. `None` when there is none, or nothing of it in
    /// this file. Fails when it, with those that were read on the same budget, claims to be larger
    /// than any nginx's.
    pub fn section(&self, name: &str, budget: &mut Budget) -> Result<Option<Cow<'data, [u8]>>> {
        let Some(section) = self.file.section_by_name(name) else {
            return Ok(None);
        };
        let context = || format!("failed to read section {name}");
        let data = section.compressed_data().with_context(context)?;
        let size = data.uncompressed_size;
        budget.0 = budget
            .0
            .checked_sub(size)
            .with_context(|| format!("section {name} claims to have {size} bytes: too many"))?;
        let data = data.decompress().with_context(context)?;
        Ok(Some(data).filter(|data| !data.is_empty()))
    }

    /// The name in `.gnu_debuglink`: of the file that the debug information was moved to.
    pub fn debug_link(&self) -> Option<String> {
        let (name, _) = self.file.gnu_debuglink().ok().flatten()?;
        Some(String::from_utf8_lossy(name).into_owned())
    }

    /// A function. Fails when there is none of that name, it has no size, or is not in code.
    pub fn function(&self, name: &str) -> Result<Function<'data>> {
        let symbol = self
            .symbol(name)
            .with_context(|| format!("it has no function {name}"))?;
        ensure!(symbol.size > 0, "{name} has no size");
        self.code_at(symbol.address, symbol.size)
            .with_context(|| format!("failed to read {name}"))
    }

    /// Code that no symbol tells the end of: it reaches to the next symbol, or the segment's end.
    pub fn function_at(&self, address: u64) -> Result<Function<'data>> {
        let next = self.symbols.next(address);
        let next = next.map_or(FUNCTION_BYTES_MAX, |next| next - address);
        let left = self
            .code()
            .filter_map(|(start, code)| (start + code.len() as u64).checked_sub(address))
            .min();
        self.code_at(address, next.min(left.unwrap_or_default()))
    }

    /// Instructions. Fails when they are not in executable code.
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

    /// Executable segments: address and bytes.
    pub fn code(&self) -> impl Iterator<Item = (u64, &'data [u8])> {
        let segments = self.file.segments();
        segments
            .filter(|segment| is_code(segment.flags()))
            .filter_map(|segment| Some((segment.address(), segment.data().ok()?)))
    }

    /// All that may be pointers in data: where each is, and where it points. What the dynamic linker
    /// puts there comes last; what stands there anyway are pointers without PIE, and packed relocations.
    pub fn pointers(&self) -> impl Iterator<Item = (u64, u64)> {
        let words = self.data().flat_map(|(address, bytes)| {
            let words = bytes.chunks_exact(8).zip(0..);
            words.filter_map(move |(word, n)| {
                let word = u64::from_le_bytes(word.try_into().ok()?);
                Some((address.checked_add(n * 8)?, word))
            })
        });
        let relocated = self
            .relocations()
            .filter(|relocation| self.machine.pointers().contains(&relocation.kind))
            .map(|relocation| (relocation.place, relocation.value()));
        words.chain(relocated)
    }

    /// Instructions from an address on, to the end of their segment. `None` where there is no code.
    pub fn code_from(&self, address: u64) -> Option<&'data [u8]> {
        self.code().find_map(|(start, code)| {
            let into = usize::try_from(address.checked_sub(start)?).ok()?;
            code.get(into..)
        })
    }

    /// The bytes of all segments.
    pub fn segments(&self) -> impl Iterator<Item = &'data [u8]> {
        let segments = self.file.segments();
        segments.filter_map(|segment| segment.data().ok())
    }

    /// Sections of nginx's data: address and bytes. Not segments, which have the symbols, too.
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

    /// What the dynamic linker does, whether or not the file has a table of dynamic symbols.
    pub fn relocations(&self) -> impl Iterator<Item = Relocation> {
        let endian = self.file.endian();
        let dynamic = self.file.elf_dynamic_symbol_table();
        let sections = self.file.elf_section_table().iter();
        sections
            .filter(move |section| {
                let is_loaded = section.sh_flags(endian).0 & SHF_ALLOC.0 != 0;
                is_loaded && section.sh_type(endian) == SHT_RELA
            })
            .filter_map(move |section| section.rela(endian, self.file.data()).ok()?)
            .flat_map(|(relocations, _)| relocations)
            .map(move |relocation| Relocation {
                kind: relocation.r_type(endian, false),
                place: relocation.r_offset(endian),
                symbol: relocation
                    .symbol(endian, false)
                    .and_then(|index| dynamic.symbol(index).ok())
                    .map_or(0, |symbol| symbol.st_value(endian)),
                addend: relocation.r_addend(endian).cast_unsigned(),
            })
    }

    /// Whether it runs where it is linked to (no PIE).
    pub fn is_fixed(&self) -> bool {
        self.file.elf_header().e_type(self.file.endian()) == ET_EXEC
    }

    /// Whether two addresses are in the same section.
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

    /// Its symbols, and what was added to them.
    pub fn symbols(&self) -> &Symbols {
        &self.symbols
    }

    /// Where a function or data is.
    pub fn symbol(&self, name: &str) -> Option<&Symbol> {
        self.symbols.find(name)
    }

    /// Adds those symbols that a file of the same build has.
    pub fn add_symbols(&mut self, other: &Elf<'_>, source: Source) {
        self.symbols.add_from(&other.symbols, source);
    }

    /// At least one byte and at most `limit`, from an address as linked.
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

    /// Eight bytes of data.
    pub fn word(&self, address: u64) -> Result<u64> {
        let bytes = self.bytes(address, 8)?;
        Ok(u64::from_le_bytes(bytes.try_into()?))
    }

    /// A pointer in data: what the dynamic linker will put there (`R_*_RELATIVE`), else the word.
    pub fn pointer(&self, address: u64) -> Result<u64> {
        let mut relocations = self.relocations();
        match relocations.find(|relocation| relocation.place == address) {
            Some(relocation) => Ok(relocation.value()),
            None => self.word(address),
        }
    }
}

/// Bytes of sections that may still be read.
pub struct Budget(u64);

impl Default for Budget {
    fn default() -> Self {
        Self(FILE_BYTES_MAX)
    }
}

/// Whether a segment is executable.
fn is_code(flags: SegmentFlags) -> bool {
    matches!(flags, SegmentFlags::Elf { p_flags, .. } if p_flags.0 & PF_X.0 != 0)
}

/// Fails when there are more sections or segments than a linker makes, or they overlap.
fn check_tables(file: &ElfFile64<'_>) -> Result<()> {
    let endian = file.endian();
    let sections = file.elf_section_table();
    let segments = file.elf_program_headers();
    ensure!(
        sections.len() <= SECTIONS_MAX && segments.len() <= SEGMENTS_MAX,
        "{} sections and {} segments are too many",
        sections.len(),
        segments.len()
    );
    if let Ok(names) = file.elf_header().shstrndx(endian, file.data())
        && let Ok(names) = sections.section(object::SectionIndex(names as usize))
    {
        let size = names.sh_size(endian);
        ensure!(
            size <= SECTION_NAMES_BYTES_MAX,
            "{size} bytes of names of sections are too many"
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
            ensure!(address < ADDRESS_MAX, "address {address:#x} is none");
            left = left
                .checked_sub(size)
                .context("its sections or segments overlap")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::Budget;
    use super::Elf;
    use super::Image;
    use crate::build;

    /// An image of these bytes.
    fn image(bytes: &[u8]) -> Image {
        Image::read_up_to(bytes.len() as u64, bytes).unwrap()
    }

    /// The image of this very program.
    fn own() -> Image {
        Image::read(&File::open(std::env::current_exe().unwrap()).unwrap()).unwrap()
    }

    /// Check that what is no ELF file is an error.
    #[test]
    fn no_elf() {
        for bytes in [&b""[..], b"#!/bin/sh\n", b"\x7fELF", &[0; 4096]] {
            assert!(Elf::parse(&image(bytes)).is_err());
        }
    }

    /// Check that sections share one budget, and that none is read beyond it.
    #[test]
    fn budget() {
        let image = own();
        let elf = Elf::parse(&image).unwrap();
        let text = elf.section(".text", &mut Budget::default());
        let size = text.unwrap().unwrap().len() as u64;
        assert!(elf.section(".text", &mut Budget(size - 1)).is_err());
        let mut budget = Budget(size + 1);
        assert!(elf.section(".text", &mut budget).is_ok());
        assert!(elf.section(".text", &mut budget).is_err());
    }

    /// Check that an ELF file that is not nginx says so, and that cutting it anywhere is no panic.
    #[test]
    fn not_nginx() {
        let whole = own();
        let elf = Elf::parse(&whole).unwrap();
        assert!(build::build(&elf).is_err());
        assert!(elf.function("ngx_http_free_request").is_err());
        for size in (0..whole.bytes().len()).step_by(whole.bytes().len() / 64) {
            let cut = image(&whole.bytes()[..size]);
            if let Ok(elf) = Elf::parse(&cut) {
                assert!(build::build(&elf).is_err());
                let _ = elf.build_id();
            }
        }
    }
}
