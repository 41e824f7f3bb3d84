// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reads the layout from debug information (DWARF). The sizes that a file claims are checked first, and the
//! work is bounded: entries are read one by one, not with gimli's trees or units, whose work a file could
//! multiply.

use std::borrow::Cow;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::bail;
use anyhow::ensure;
use gimli::Abbreviation;
use gimli::Abbreviations;
use gimli::AttributeValue;
use gimli::DebugAbbrev;
use gimli::DebugInfo;
use gimli::DebugLineStr;
use gimli::DebugStr;
use gimli::DebugStrOffsets;
use gimli::DebugStrOffsetsBase;
use gimli::EndianSlice;
use gimli::EntriesRaw;
use gimli::LittleEndian;
use gimli::Reader as _;
use gimli::Section as _;
use gimli::UnitHeader;
use gimli::UnitOffset;

use crate::elf::Budget;
use crate::elf::Elf;
use crate::layout::Layout;
use crate::layout::Members;
use crate::layout::wanted::WantedMembers;
use attributes::read_attributes;
use shape::StructShape;
use shape::TypeSize;

mod attributes;
mod shape;

/// The most entries, attributes, declarations of attributes and bytes of names that are read: half a second
/// of work. nginx has two million.
const WORK_MAX: u64 = 50_000_000;

/// The most declarations of attributes in one table of abbreviations, of which gimli makes a copy. Compilers
/// need some thousand.
const DECLARATIONS_MAX: u64 = 1 << 17;

/// The work that each declaration of an attribute counts as: gimli reads it twice and stores it.
const DECLARATION_WORK: usize = 8;

/// The work that an empty unit counts as.
const UNIT_WORK: usize = 32;

/// The size of a pointer in bytes.
const POINTER_BYTES: u64 = 8;

/// The most typedefs, qualifiers and arrays that are followed from a type to its size. nginx has four.
const TYPE_CHAIN_MAX: usize = 16;

type Reader<'a> = EndianSlice<'a, LittleEndian>;

/// Reads the offsets of the wanted members. `None` when the file has no debug information.
///
/// # Errors
///
/// Fails when the debug information lacks a struct or a member that every nginx has, or when it is broken or
/// exceeds a limit.
pub fn read_layout(elf: &Elf<'_>, wanted: &WantedMembers) -> Result<Option<Layout>> {
    let mut budget = Budget::default();
    let Some(info) = elf.section(".debug_info", &mut budget)? else {
        return Ok(None);
    };
    let mut load = |name| {
        let data = elf.section(name, &mut budget)?;
        anyhow::Ok::<Cow<'_, [u8]>>(data.unwrap_or_default())
    };
    let abbreviations = load(".debug_abbrev")?;
    let strings = load(".debug_str")?;
    let line_strings = load(".debug_line_str")?;
    let string_offsets = load(".debug_str_offsets")?;
    let mut search = StructSearch {
        abbreviations: DebugAbbrev::new(&abbreviations, LittleEndian),
        strings: DebugStr::new(&strings, LittleEndian),
        line_strings: DebugLineStr::new(&line_strings, LittleEndian),
        string_offsets: DebugStrOffsets::from(Reader::new(&string_offsets, LittleEndian)),
        wanted,
        work: 0,
        found: Layout::default(),
    };
    search
        .search_units(DebugInfo::new(&info, LittleEndian))
        .context("broken debug information")?;
    for name in wanted.structs.keys() {
        ensure!(
            search.found.structs.contains_key(name) || WantedMembers::is_optional_struct(name),
            "the debug information has no {name}"
        );
    }
    for (name, members) in &search.found.structs {
        let mut needed = wanted.structs[name].iter();
        let lacks =
            needed.find(|m| !members.contains_key(*m) && !WantedMembers::is_optional(name, m));
        if let Some(member) = lacks {
            bail!("the debug information has no {name}.{member}");
        }
    }
    Ok(Some(search.found))
}

/// One compilation unit.
struct CompilationUnit<'a> {
    header: UnitHeader<Reader<'a>>,
    abbreviations: Abbreviations,
    /// The offset of its part of `.debug_str_offsets`.
    string_offsets_base: DebugStrOffsetsBase,
}

/// The search for structs in all units.
struct StructSearch<'a> {
    /// `.debug_abbrev`
    abbreviations: DebugAbbrev<Reader<'a>>,
    /// `.debug_str`
    strings: DebugStr<Reader<'a>>,
    /// `.debug_line_str`
    line_strings: DebugLineStr<Reader<'a>>,
    /// `.debug_str_offsets`
    string_offsets: DebugStrOffsets<Reader<'a>>,
    wanted: &'a WantedMembers,
    /// The work that was done.
    work: u64,
    found: Layout,
}

impl<'a> StructSearch<'a> {
    /// Searches unit by unit until every wanted struct is found.
    fn search_units(&mut self, info: DebugInfo<Reader<'a>>) -> Result<()> {
        let mut units = info.units();
        while self.found.structs.len() < self.wanted.structs.len()
            && let Some(header) = units.next()?
        {
            self.spend(UNIT_WORK)?;
            self.count_abbreviations(&header)?;
            self.search_unit(CompilationUnit {
                header,
                abbreviations: header.abbreviations(&self.abbreviations)?,
                string_offsets_base: DebugStrOffsetsBase(0),
            })?;
        }
        Ok(())
    }

    /// Counts a unit's abbreviations before gimli makes a copy of them.
    fn count_abbreviations(&mut self, header: &UnitHeader<Reader<'a>>) -> Result<()> {
        let mut table = *self.abbreviations.reader();
        table.skip(header.debug_abbrev_offset().0)?;
        let mut declarations = 0;
        while !table.is_empty() && table.read_uleb128()? != 0 {
            table.read_uleb128()?; // tag
            table.read_u8()?; // children
            loop {
                self.spend(DECLARATION_WORK)?;
                declarations += 1;
                ensure!(
                    declarations <= DECLARATIONS_MAX,
                    "a table of abbreviations exceeds the limit of {DECLARATIONS_MAX} attributes"
                );
                let (name, form) = (table.read_uleb128()?, table.read_uleb128()?);
                if form == u64::from(gimli::DW_FORM_implicit_const.0) {
                    table.read_sleb128()?;
                }
                if (name, form) == (0, 0) {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Searches the structs and typedefs of one unit, which C has at the top level.
    fn search_unit(&mut self, mut unit: CompilationUnit<'a>) -> Result<()> {
        let header = unit.header;
        let abbreviations = std::mem::take(&mut unit.abbreviations);
        let mut entries = header.entries_raw(&abbreviations, None)?;
        while !entries.is_empty() {
            let offset = entries.next_offset();
            let depth = entries.next_depth();
            let Some(abbreviation) = self.next(&mut entries)? else {
                continue;
            };
            let tag = abbreviation.tag();
            let is_type = tag == gimli::DW_TAG_structure_type || tag == gimli::DW_TAG_typedef;
            if depth > 1 || (depth == 1 && !is_type) {
                entries.skip_attributes(abbreviation.attributes())?;
                continue;
            }
            let known = read_attributes(&mut entries, abbreviation)?;
            if let Some(base) = known.string_offsets_base {
                unit.string_offsets_base = base;
            }
            let offset = match tag {
                gimli::DW_TAG_structure_type => Some(offset),
                _ => known.type_offset,
            };
            if depth == 1
                && let Some(offset) = offset
                && let Some(name) = self.name(&unit, known.name)?
                && let Some(wanted) = self.wanted_name(&name)
            {
                self.structure(&unit, &abbreviations, offset, wanted)?;
            }
        }
        Ok(())
    }

    /// Returns the name under which this struct is wanted. `None` when it is not wanted or already found.
    /// Releases differ in whether a struct has a tag (`ngx_table_elt_s`) or only a typedef
    /// (`ngx_table_elt_t`).
    fn wanted_name(&self, name: &str) -> Option<&'a str> {
        let tag = name.strip_suffix("_t").map(|stem| format!("{stem}_s"));
        let wanted = &self.wanted.structs;
        let (known, _) = wanted
            .get_key_value(name)
            .or_else(|| wanted.get_key_value(tag?.as_str()))?;
        let is_new = !self.found.structs.contains_key(known);
        is_new.then_some(known.as_str())
    }

    /// Reads the members of a struct if the entry at `offset` defines it. A typedef of a typedef is not
    /// followed: nginx has none.
    fn structure(
        &mut self,
        unit: &CompilationUnit<'a>,
        abbreviations: &Abbreviations,
        offset: UnitOffset,
        name: &'a str,
    ) -> Result<()> {
        let mut entries = unit.header.entries_raw(abbreviations, Some(offset))?;
        let Some(abbreviation) = self.next(&mut entries)? else {
            return Ok(());
        };
        let known = read_attributes(&mut entries, abbreviation)?;
        if abbreviation.tag() != gimli::DW_TAG_structure_type || known.size.is_none() {
            return Ok(());
        }
        let mut found = Members::new();
        let mut shape = StructShape::default();
        while !entries.is_empty() && entries.next_depth() > 0 {
            let is_child = entries.next_depth() == 1;
            let Some(abbreviation) = self.next(&mut entries)? else {
                continue;
            };
            let known = read_attributes(&mut entries, abbreviation)?;
            if !is_child || abbreviation.tag() != gimli::DW_TAG_member {
                continue;
            }
            let Some(location) = known.location else {
                continue;
            };
            let size = self.size(unit, abbreviations, known.type_offset)?;
            let member = self.name(unit, known.name)?;
            ensure!(
                shape.add(location, known.bits.is_some(), size),
                "{name}.{} is at an offset that no compiler chooses",
                member.as_deref().unwrap_or("(unnamed)")
            );
            if let Some(member) = member.filter(|member| self.wanted.structs[name].contains(member))
            {
                let before = found.insert(member, u32::try_from(location)?);
                ensure!(before.is_none(), "a member of {name} is defined twice");
            }
        }
        ensure!(
            known.size.is_some_and(|size| shape.may_have_size(size)),
            "the size of {name} does not match its members"
        );
        self.found.structs.insert(name.to_owned(), found);
        Ok(())
    }

    /// Returns the size and alignment of a type. `None` when it is not known, as for a type in another unit.
    fn size(
        &mut self,
        unit: &CompilationUnit<'a>,
        abbreviations: &Abbreviations,
        offset: Option<UnitOffset>,
    ) -> Result<Option<TypeSize>> {
        let mut next = offset;
        let mut count: u64 = 1;
        for _ in 0..TYPE_CHAIN_MAX {
            let Some(offset) = next else {
                return Ok(None);
            };
            let mut entries = unit.header.entries_raw(abbreviations, Some(offset))?;
            let Some(abbreviation) = self.next(&mut entries)? else {
                return Ok(None);
            };
            let known = read_attributes(&mut entries, abbreviation)?;
            let size = match abbreviation.tag() {
                gimli::DW_TAG_pointer_type => Some((POINTER_BYTES, true)),
                gimli::DW_TAG_base_type | gimli::DW_TAG_enumeration_type => {
                    known.size.map(|size| (size, true))
                }
                gimli::DW_TAG_structure_type | gimli::DW_TAG_union_type => {
                    known.size.map(|size| (size, false))
                }
                gimli::DW_TAG_array_type => {
                    count = count.saturating_mul(self.elements(&mut entries)?);
                    next = known.type_offset;
                    continue;
                }
                gimli::DW_TAG_typedef | gimli::DW_TAG_const_type | gimli::DW_TAG_volatile_type => {
                    next = known.type_offset;
                    continue;
                }
                _ => None,
            };
            return Ok(size.map(|(size, is_simple)| TypeSize {
                bytes: size.saturating_mul(count),
                alignment: is_simple.then_some(size),
            }));
        }
        Ok(None)
    }

    /// Returns the number of elements of an array, the product of its dimensions. The next entries must be the
    /// array's children.
    fn elements(&mut self, entries: &mut EntriesRaw<'_, Reader<'a>>) -> Result<u64> {
        let mut count: u64 = 1;
        while !entries.is_empty() && entries.next_depth() > 0 {
            let Some(abbreviation) = self.next(entries)? else {
                continue;
            };
            let known = read_attributes(entries, abbreviation)?;
            count = count.saturating_mul(known.count.unwrap_or_default());
        }
        Ok(count)
    }

    /// Reads the abbreviation of the next entry; its attributes have to be read next. `None` at the end of a
    /// list of children.
    fn next<'abbrev>(
        &mut self,
        entries: &mut EntriesRaw<'abbrev, Reader<'a>>,
    ) -> Result<Option<&'abbrev Abbreviation>> {
        let abbreviation = entries.read_abbreviation()?;
        let attributes = abbreviation.map_or(0, |abbreviation| abbreviation.attributes().len());
        self.spend(1 + attributes)?;
        Ok(abbreviation)
    }

    /// Reads the name of an entry. Its bytes count as work: each entry's may be as long as the section.
    fn name(
        &mut self,
        unit: &CompilationUnit<'a>,
        value: Option<AttributeValue<Reader<'a>>>,
    ) -> Result<Option<String>> {
        let offset = match value {
            Some(AttributeValue::DebugStrOffsetsIndex(index)) => {
                let format = unit.header.format();
                let base = unit.string_offsets_base;
                let offset = self.string_offsets.get_str_offset(format, base, index)?;
                Some(AttributeValue::DebugStrRef(offset))
            }
            other => other,
        };
        let name = match offset {
            Some(AttributeValue::String(name)) => name,
            Some(AttributeValue::DebugStrRef(offset)) => self.strings.get_str(offset)?,
            Some(AttributeValue::DebugLineStrRef(offset)) => self.line_strings.get_str(offset)?,
            _ => return Ok(None),
        };
        self.spend(name.len())?;
        Ok(Some(name.to_string_lossy().into_owned()))
    }

    /// Counts work. Fails when it exceeds `WORK_MAX`.
    fn spend(&mut self, work: usize) -> Result<()> {
        self.work += work as u64;
        ensure!(
            self.work <= WORK_MAX,
            "the work exceeds the limit of {WORK_MAX} entries, attributes and bytes of names"
        );
        Ok(())
    }
}
