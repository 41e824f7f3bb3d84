// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where a binary has its functions and data, by name. A stripped nginx still exports them
//! (`.dynsym`); one that exports nothing has them in `.symtab`, in its debug file, or compressed in
//! `.gnu_debugdata` (MiniDebugInfo).

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::Range;

use anyhow::Result;
use anyhow::ensure;
use object::Endianness;
use object::elf::FileHeader64;
use object::elf::SHN_UNDEF;
use object::elf::STT_FUNC;
use object::elf::STT_OBJECT;
use object::read::elf::ElfFile64;
use object::read::elf::SectionHeader as _;
use object::read::elf::Sym as _;
use object::read::elf::SymbolTable;
use serde::Serialize;

use crate::elf::limits::ADDRESS_MAX;
use crate::elf::limits::NAME_BYTES_MAX;
use crate::elf::limits::SYMBOLS_MAX;

/// Where a symbol is from, in the order in which they are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// What the binary exports.
    Dynsym,
    /// What it would lose when it is stripped.
    Symtab,
    /// A file of the same build id.
    DebugFile,
    /// MiniDebugInfo.
    GnuDebugdata,
}

impl Source {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dynsym => ".dynsym",
            Self::Symtab => ".symtab",
            Self::DebugFile => "the debug file",
            Self::GnuDebugdata => ".gnu_debugdata",
        }
    }
}

/// A function, or data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Symbol {
    /// As linked.
    pub address: u64,
    /// Bytes, as the symbol states.
    pub size: u64,
    /// Where it is from.
    pub source: Source,
}

impl Symbol {
    /// All of it.
    pub fn range(&self) -> Range<u64> {
        self.address..self.address.saturating_add(self.size)
    }
}

/// By name.
#[derive(Debug, Default)]
pub struct Symbols(HashMap<String, Symbol>);

impl Symbols {
    /// Those of `.dynsym`, then those that only `.symtab` has. Fails when a table is broken or
    /// larger than any nginx's.
    pub fn read(file: &ElfFile64<'_>) -> Result<Self> {
        let mut symbols = Self::default();
        let dynamic = file.elf_dynamic_symbol_table();
        symbols.add(table(file, dynamic, Source::Dynsym)?);
        symbols.add(table(file, file.elf_symbol_table(), Source::Symtab)?);
        Ok(symbols)
    }

    /// Adds those of another file of the same build, whatever table they stood in there.
    pub fn add_from(&mut self, other: &Self, source: Source) {
        let others = other.0.iter();
        self.add(others.map(|(name, symbol)| (name.clone(), Symbol { source, ..*symbol })));
    }

    /// Adds what is not yet known.
    fn add(&mut self, others: impl IntoIterator<Item = (String, Symbol)>) {
        for (name, symbol) in others {
            self.0.entry(name).or_insert(symbol);
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The one of that name.
    pub fn find(&self, name: &str) -> Option<&Symbol> {
        self.0.get(name)
    }

    /// Those that an address is in.
    pub fn covering(&self, address: u64) -> impl Iterator<Item = &str> {
        self.0
            .iter()
            .filter(move |(_, symbol)| symbol.range().contains(&address))
            .map(|(name, _)| name.as_str())
    }

    /// Where the first symbol behind an address begins.
    pub fn next(&self, address: u64) -> Option<u64> {
        let addresses = self.0.values().map(|symbol| symbol.address);
        addresses.filter(|known| *known > address).min()
    }
}

/// What one table defines. Of two static functions of the same name neither is told.
fn table(
    file: &ElfFile64<'_>,
    table: &SymbolTable<'_, FileHeader64<Endianness>>,
    source: Source,
) -> Result<HashMap<String, Symbol>> {
    if table.is_empty() {
        return Ok(HashMap::new());
    }
    ensure!(
        table.len() <= SYMBOLS_MAX,
        "{} symbols are too many",
        table.len()
    );
    let endian = file.endian();
    let strings = file.elf_section_table().section(table.string_section())?;
    let strings = strings.data(endian, file.data())?;
    let mut found: HashMap<String, Option<Symbol>> = HashMap::new();
    for symbol in table.iter() {
        let kind = symbol.st_type();
        if symbol.st_shndx(endian) == SHN_UNDEF || !(kind == STT_FUNC || kind == STT_OBJECT) {
            continue;
        }
        if symbol.st_value(endian) >= ADDRESS_MAX {
            continue;
        }
        let Some(name) = name(strings, symbol.st_name(endian)) else {
            continue;
        };
        let symbol = Symbol {
            address: symbol.st_value(endian),
            size: symbol.st_size(endian),
            source,
        };
        match found.entry(name.to_owned()) {
            Entry::Vacant(entry) => {
                entry.insert(Some(symbol));
            }
            Entry::Occupied(mut entry) => {
                if entry.get().is_some_and(|known| known != symbol) {
                    entry.insert(None);
                }
            }
        }
    }
    let known = |(name, symbol): (String, Option<Symbol>)| Some((name, symbol?));
    Ok(found.into_iter().filter_map(known).collect())
}

/// The name at an offset. Not `StringTable::get()`, which would look for its end through the whole
/// section, for each symbol of a hostile file.
fn name(strings: &[u8], offset: u32) -> Option<&str> {
    let rest = strings.get(usize::try_from(offset).ok()?..)?;
    let rest = &rest[..rest.len().min(NAME_BYTES_MAX)];
    let end = rest.iter().position(|byte| *byte == 0)?;
    std::str::from_utf8(&rest[..end]).ok()
}
