// SPDX-License-Identifier: MIT OR Apache-2.0
//! Symbols: the addresses of a binary's functions and data, by name. A stripped nginx still exports
//! them in `.dynsym`. One that exports nothing has them in `.symtab`, in its debug file, or compressed
//! in `.gnu_debugdata` (MiniDebugInfo).

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

/// The table that a symbol comes from, in the order in which they are searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SymbolOrigin {
    /// `.dynsym`: the symbols that the binary exports.
    Dynsym,
    /// `.symtab`: the symbols that stripping removes.
    Symtab,
    /// A debug file with the same build id.
    DebugFile,
    /// `.gnu_debugdata`: a compressed symbol table in the binary (MiniDebugInfo).
    GnuDebugdata,
    /// None: the code that stores the function's address shows it.
    Code,
}

impl SymbolOrigin {
    /// Returns the name of the table, for people: `.dynsym`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dynsym => ".dynsym",
            Self::Symtab => ".symtab",
            Self::DebugFile => "the debug file",
            Self::GnuDebugdata => ".gnu_debugdata",
            Self::Code => "its code",
        }
    }
}

/// A function or a variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Symbol {
    /// The address, as linked. Below [`ADDRESS_MAX`].
    pub address: u64,
    /// The size in bytes that the symbol states. 0 when it states none.
    pub size: u64,
    /// The table that it comes from.
    pub origin: SymbolOrigin,
}

impl Symbol {
    /// Returns the addresses from its first byte to its end.
    pub fn range(&self) -> Range<u64> {
        self.address..self.address.saturating_add(self.size)
    }
}

/// The symbols of a binary, by name.
#[derive(Debug, Default)]
pub struct Symbols(HashMap<String, Symbol>);

impl Symbols {
    /// Reads the symbols of `.dynsym`, then those that only `.symtab` has.
    ///
    /// # Errors
    ///
    /// Fails when a table is broken or has more than [`SYMBOLS_MAX`] entries.
    pub fn read(file: &ElfFile64<'_>) -> Result<Self> {
        let mut symbols = Self::default();
        let dynamic = file.elf_dynamic_symbol_table();
        symbols.add(defined_symbols(file, dynamic, SymbolOrigin::Dynsym)?);
        symbols.add(defined_symbols(
            file,
            file.elf_symbol_table(),
            SymbolOrigin::Symtab,
        )?);
        Ok(symbols)
    }

    /// Adds the symbols of another file of the same build that are not yet known, with `origin` in place
    /// of the table that they have in that file.
    pub fn add_from(&mut self, other: &Self, origin: SymbolOrigin) {
        let others = other.0.iter();
        self.add(others.map(|(name, symbol)| (name.clone(), Symbol { origin, ..*symbol })));
    }

    fn add(&mut self, others: impl IntoIterator<Item = (String, Symbol)>) {
        for (name, symbol) in others {
            self.0.entry(name).or_insert(symbol);
        }
    }

    /// Returns whether there is no symbol.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the symbol of that name. `None` when there is none, or when several have that name.
    pub fn get(&self, name: &str) -> Option<&Symbol> {
        self.0.get(name)
    }

    /// Returns every symbol, with its name.
    pub fn all(&self) -> impl Iterator<Item = (&str, &Symbol)> {
        self.0.iter().map(|(name, symbol)| (name.as_str(), symbol))
    }

    /// Returns the names of the symbols whose range contains an address.
    pub fn covering(&self, address: u64) -> impl Iterator<Item = &str> {
        self.0
            .iter()
            .filter(move |(_, symbol)| symbol.range().contains(&address))
            .map(|(name, _)| name.as_str())
    }

    /// Returns the address of the first symbol after an address. `None` when none follows.
    pub fn next_start(&self, address: u64) -> Option<u64> {
        let addresses = self.0.values().map(|symbol| symbol.address);
        addresses.filter(|known| *known > address).min()
    }
}

/// Reads the functions and variables that one table defines. A name defined at two addresses is
/// ambiguous and left out.
fn defined_symbols(
    file: &ElfFile64<'_>,
    table: &SymbolTable<'_, FileHeader64<Endianness>>,
    origin: SymbolOrigin,
) -> Result<HashMap<String, Symbol>> {
    if table.is_empty() {
        return Ok(HashMap::new());
    }
    ensure!(
        table.len() <= SYMBOLS_MAX,
        "{} symbols exceed the limit of {SYMBOLS_MAX}",
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
        let Some(name) = name_at(strings, symbol.st_name(endian)) else {
            continue;
        };
        let symbol = Symbol {
            address: symbol.st_value(endian),
            size: symbol.st_size(endian),
            origin,
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

/// Returns the name at an offset. `StringTable::get()` would search the whole section for its end, for
/// each symbol of a hostile file.
fn name_at(strings: &[u8], offset: u32) -> Option<&str> {
    let rest = strings.get(usize::try_from(offset).ok()?..)?;
    let rest = &rest[..rest.len().min(NAME_BYTES_MAX)];
    let end = rest.iter().position(|byte| *byte == 0)?;
    std::str::from_utf8(&rest[..end]).ok()
}
