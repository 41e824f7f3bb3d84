// SPDX-License-Identifier: MIT OR Apache-2.0
//! The layout that a binary's debug information tells. What a file claims of its own size is
//! checked before it is believed, and the work is bounded: entries are read one by one, never by
//! gimli's trees or units, whose work a file could multiply.

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
use shape::Shape;
use shape::Size;

mod shape;

/// Entries, attributes, declarations of attributes and bytes of names that are looked at: half a
/// second of work. All of nginx has two million.
const WORK_MAX: u64 = 50_000_000;

/// Declarations of attributes in one table of abbreviations, of which gimli makes a copy. Compilers
/// need some thousand.
const DECLARATIONS_MAX: u64 = 1 << 17;

/// They are read twice, and kept.
const DECLARATION_WORK: usize = 8;

/// What a unit without anything in it takes.
const UNIT_WORK: usize = 32;

/// Bytes of a pointer.
const POINTER_BYTES: u64 = 8;

/// Names and arrays of a type within each other; nginx has four.
const TYPE_CHAIN_MAX: usize = 16;

/// What gimli reads from.
type Reader<'a> = EndianSlice<'a, LittleEndian>;

/// What a file tells of the structs that are asked for. `None` when it has no debug information.
///
/// Fails when a struct is not in it, or when it is broken or too large.
pub fn layout(elf: &Elf<'_>, wanted: &WantedMembers) -> Result<Option<Layout>> {
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
    let mut search = Search {
        abbreviations: DebugAbbrev::new(&abbreviations, LittleEndian),
        strings: DebugStr::new(&strings, LittleEndian),
        line_strings: DebugLineStr::new(&line_strings, LittleEndian),
        string_offsets: DebugStrOffsets::from(Reader::new(&string_offsets, LittleEndian)),
        wanted,
        work: 0,
        found: Layout::default(),
    };
    search
        .run(DebugInfo::new(&info, LittleEndian))
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

/// What an entry tells, of what is asked for.
#[derive(Default)]
struct Attributes<'a> {
    /// `DW_AT_name`
    name: Option<AttributeValue<Reader<'a>>>,
    /// `DW_AT_type`, in the same unit.
    type_offset: Option<UnitOffset>,
    /// `DW_AT_byte_size`
    size: Option<u64>,
    /// `DW_AT_data_member_location`, or the byte of `DW_AT_data_bit_offset`.
    location: Option<u64>,
    /// `DW_AT_bit_size`: it is a bitfield.
    bits: Option<u64>,
    /// `DW_AT_upper_bound` or `DW_AT_count`: how many elements an array has.
    count: Option<u64>,
    /// `DW_AT_str_offsets_base`
    string_offsets_base: Option<DebugStrOffsetsBase>,
}

/// One unit.
struct Unit<'a> {
    /// Where it is, and its form.
    header: UnitHeader<Reader<'a>>,
    /// Its kinds of entries.
    abbreviations: Abbreviations,
    /// Where its names by number begin.
    string_offsets_base: DebugStrOffsetsBase,
}

/// The search through all units.
struct Search<'a> {
    /// `.debug_abbrev`
    abbreviations: DebugAbbrev<Reader<'a>>,
    /// `.debug_str`
    strings: DebugStr<Reader<'a>>,
    /// `.debug_line_str`
    line_strings: DebugLineStr<Reader<'a>>,
    /// `.debug_str_offsets`
    string_offsets: DebugStrOffsets<Reader<'a>>,
    /// What is asked for.
    wanted: &'a WantedMembers,
    /// How much was looked at.
    work: u64,
    /// What was found.
    found: Layout,
}

impl<'a> Search<'a> {
    /// Until everything is found, or nothing is left.
    fn run(&mut self, info: DebugInfo<Reader<'a>>) -> Result<()> {
        let mut units = info.units();
        while self.found.structs.len() < self.wanted.structs.len()
            && let Some(header) = units.next()?
        {
            self.spend(UNIT_WORK)?;
            self.count_abbreviations(&header)?;
            self.unit(Unit {
                header,
                abbreviations: header.abbreviations(&self.abbreviations)?,
                string_offsets_base: DebugStrOffsetsBase(0),
            })?;
        }
        Ok(())
    }

    /// Goes through a unit's table of abbreviations, before gimli makes a copy of it.
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
                    "a table of abbreviations with more than {DECLARATIONS_MAX} attributes"
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

    /// The structs and typedefs of one unit: C has them at its top.
    fn unit(&mut self, mut unit: Unit<'a>) -> Result<()> {
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
            let known = attributes(&mut entries, abbreviation)?;
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

    /// The name by which nginx.h asks for this struct, if it does and it is not yet found. Releases
    /// differ in whether a struct has a tag (`ngx_table_elt_s`) or only a typedef's name
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

    /// Takes over a struct's members, if this is where it is defined. A typedef of a typedef is not
    /// followed: nginx has none.
    fn structure(
        &mut self,
        unit: &Unit<'a>,
        abbreviations: &Abbreviations,
        offset: UnitOffset,
        name: &'a str,
    ) -> Result<()> {
        let mut entries = unit.header.entries_raw(abbreviations, Some(offset))?;
        let Some(abbreviation) = self.next(&mut entries)? else {
            return Ok(());
        };
        let known = attributes(&mut entries, abbreviation)?;
        if abbreviation.tag() != gimli::DW_TAG_structure_type || known.size.is_none() {
            return Ok(());
        }
        let mut found = Members::new();
        let mut shape = Shape::default();
        while !entries.is_empty() && entries.next_depth() > 0 {
            let is_child = entries.next_depth() == 1;
            let Some(abbreviation) = self.next(&mut entries)? else {
                continue;
            };
            let known = attributes(&mut entries, abbreviation)?;
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
                "{name}.{} is where no compiler puts it",
                member.as_deref().unwrap_or("(unnamed)")
            );
            if let Some(member) = member.filter(|member| self.wanted.structs[name].contains(member))
            {
                let before = found.insert(member, u32::try_from(location)?);
                ensure!(before.is_none(), "a member of {name} stands twice");
            }
        }
        ensure!(
            known.size.is_some_and(|size| shape.has(size)),
            "{name} has not the size of its members"
        );
        self.found.structs.insert(name.to_owned(), found);
        Ok(())
    }

    /// The size of a type, and what its address is a multiple of. `None` when it is not known, as of a
    /// type in another unit.
    fn size(
        &mut self,
        unit: &Unit<'a>,
        abbreviations: &Abbreviations,
        offset: Option<UnitOffset>,
    ) -> Result<Option<Size>> {
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
            let known = attributes(&mut entries, abbreviation)?;
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
            return Ok(size.map(|(size, is_simple)| Size {
                bytes: size.saturating_mul(count),
                alignment: is_simple.then_some(size),
            }));
        }
        Ok(None)
    }

    /// How many elements an array has, whose children are read: the product of its dimensions.
    fn elements(&mut self, entries: &mut EntriesRaw<'_, Reader<'a>>) -> Result<u64> {
        let mut count: u64 = 1;
        while !entries.is_empty() && entries.next_depth() > 0 {
            let Some(abbreviation) = self.next(entries)? else {
                continue;
            };
            let known = attributes(entries, abbreviation)?;
            count = count.saturating_mul(known.count.unwrap_or_default());
        }
        Ok(count)
    }

    /// The kind of the next entry, whose attributes are then to be read. `None` at the end of a list.
    fn next<'abbrev>(
        &mut self,
        entries: &mut EntriesRaw<'abbrev, Reader<'a>>,
    ) -> Result<Option<&'abbrev Abbreviation>> {
        let abbreviation = entries.read_abbreviation()?;
        let attributes = abbreviation.map_or(0, |abbreviation| abbreviation.attributes().len());
        self.spend(1 + attributes)?;
        Ok(abbreviation)
    }

    /// The name of an entry. Its bytes count: it may be as long as the section, for each entry.
    fn name(
        &mut self,
        unit: &Unit<'a>,
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

    /// Counts work. Fails when it is more than any nginx makes.
    fn spend(&mut self, work: usize) -> Result<()> {
        self.work += work as u64;
        ensure!(
            self.work <= WORK_MAX,
            "more than {WORK_MAX} entries, attributes and bytes of names"
        );
        Ok(())
    }
}

/// Reads the attributes of an entry.
fn attributes<'a>(
    entries: &mut EntriesRaw<'_, Reader<'a>>,
    abbreviation: &Abbreviation,
) -> Result<Attributes<'a>> {
    let mut known = Attributes::default();
    for declaration in abbreviation.attributes() {
        let attribute = entries.read_attribute(*declaration)?;
        match (attribute.name(), attribute.value()) {
            (gimli::DW_AT_name, value) => known.name = Some(value),
            (gimli::DW_AT_type, AttributeValue::UnitRef(offset)) => {
                known.type_offset = Some(offset);
            }
            (gimli::DW_AT_byte_size, value) => known.size = value.udata_value(),
            (gimli::DW_AT_data_member_location, value) => known.location = value.udata_value(),
            /* Of a bitfield. DWARF 4 tells its word, where those begin that are asked for. */
            (gimli::DW_AT_data_bit_offset, value) => {
                known.location = value.udata_value().map(|bits| bits / 8);
            }
            (gimli::DW_AT_bit_size, value) => known.bits = value.udata_value(),
            (gimli::DW_AT_count, value) => known.count = value.udata_value(),
            (gimli::DW_AT_upper_bound, value) => {
                known.count = value.udata_value().and_then(|last| last.checked_add(1));
            }
            (gimli::DW_AT_str_offsets_base, AttributeValue::DebugStrOffsetsBase(base)) => {
                known.string_offsets_base = Some(base);
            }
            _ => {}
        }
    }
    Ok(known)
}
