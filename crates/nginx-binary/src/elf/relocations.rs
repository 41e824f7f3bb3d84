// SPDX-License-Identifier: MIT OR Apache-2.0
//! Relocations, and the pointers in a binary's data that they make.

use anyhow::Result;
use object::elf::RelocationType;
use object::elf::SHF_ALLOC;
use object::elf::SHT_RELA;
use object::read::elf::Rela as _;
use object::read::elf::SectionHeader as _;
use object::read::elf::Sym as _;

use crate::elf::Elf;

/// A relocation: what the dynamic linker does to one word.
pub struct Relocation {
    /// The type: `R_X86_64_…` or `R_AARCH64_…`.
    pub kind: RelocationType,
    /// The address of the word, as linked.
    pub place: u64,
    /// The address of its symbol, as linked. 0 when it has none, or when another file defines it.
    pub symbol: u64,
    /// The addend.
    pub addend: u64,
}

impl Relocation {
    /// Returns the address that the word will hold, as linked, if the relocation makes it a pointer.
    pub fn value(&self) -> u64 {
        self.symbol.wrapping_add(self.addend)
    }
}

impl Elf<'_> {
    /// Returns every word in data that may be a pointer: its address and its value. Words of the file come
    /// first, which are pointers in a binary without PIE and with packed relocations; relocated words
    /// follow.
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
            .filter(|relocation| {
                self.machine
                    .pointer_relocations()
                    .contains(&relocation.kind)
            })
            .map(|relocation| (relocation.place, relocation.value()));
        words.chain(relocated)
    }

    /// Returns the relocations that the dynamic linker applies. A file without dynamic symbols may have
    /// some, too.
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

    /// Reads a pointer in data: the value that the dynamic linker will put there, or else the word itself.
    ///
    /// # Errors
    ///
    /// Fails when the address is not in the file.
    pub fn pointer(&self, address: u64) -> Result<u64> {
        let mut relocations = self.relocations();
        match relocations.find(|relocation| relocation.place == address) {
            Some(relocation) => Ok(relocation.value()),
            None => self.word(address),
        }
    }
}
