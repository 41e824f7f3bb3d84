// SPDX-License-Identifier: MIT OR Apache-2.0
//! The layout that a binary's debug information tells. What a file claims of its own size is
//! checked before it is believed, and the work is bounded.

use std::borrow::Cow;
use std::collections::BTreeMap;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::bail;
use anyhow::ensure;
use gimli::AttributeValue;
use gimli::DebuggingInformationEntry;
use gimli::Dwarf;
use gimli::DwarfSections;
use gimli::EndianSlice;
use gimli::LittleEndian;
use gimli::Unit;
use gimli::UnitOffset;

use crate::elf::Budget;
use crate::elf::Elf;
use crate::layout::Layout;
use crate::layout::Members;

/// Entries that are looked at; all of nginx with OpenSSL linked in has a fiftieth.
const ENTRIES_MAX: u32 = 50_000_000;

/// What gimli reads from.
type Reader<'a> = EndianSlice<'a, LittleEndian>;

/// The members that are asked for, by struct.
pub type Wanted = BTreeMap<String, Vec<String>>;

/// What a file tells of the structs that are asked for. `None` when it has no debug information.
///
/// Fails when a struct is not in it, or when it is broken or too large.
pub fn layout(elf: &Elf<'_>, wanted: &Wanted) -> Result<Option<Layout>> {
    let mut budget = Budget::default();
    if elf.section(".debug_info", &mut budget)?.is_none() {
        return Ok(None);
    }
    let sections = DwarfSections::load(|id| {
        let data = elf.section(id.name(), &mut Budget::default())?;
        anyhow::Ok::<Cow<'_, [u8]>>(data.unwrap_or_default())
    })?;
    let mut search = Search {
        dwarf: sections.borrow(|data| Reader::new(data, LittleEndian)),
        wanted,
        entries: 0,
        found: Layout::default(),
    };
    search.run().context("broken debug information")?;
    for name in wanted.keys() {
        ensure!(
            search.found.structs.contains_key(name),
            "the debug information has no {name}"
        );
    }
    Ok(Some(search.found))
}

/// The search through all units.
struct Search<'a> {
    /// The sections.
    dwarf: Dwarf<Reader<'a>>,
    /// What is asked for.
    wanted: &'a Wanted,
    /// How many entries were looked at.
    entries: u32,
    /// What was found.
    found: Layout,
}

impl<'a> Search<'a> {
    /// Until everything is found, or nothing is left.
    fn run(&mut self) -> Result<()> {
        let mut units = self.dwarf.units();
        while let Some(header) = units.next()? {
            let unit = self.dwarf.unit(header)?;
            self.unit(&unit)?;
            if self.found.structs.len() == self.wanted.len() {
                break;
            }
        }
        Ok(())
    }

    /// The structs and typedefs of one unit: C has them at its top.
    fn unit(&mut self, unit: &Unit<Reader<'a>>) -> Result<()> {
        let mut tree = unit.entries_tree(None)?;
        let mut children = tree.root()?.children();
        while let Some(child) = children.next()? {
            self.count()?;
            let entry = child.entry();
            let offset = match entry.tag() {
                gimli::DW_TAG_structure_type => Some(entry.offset()),
                gimli::DW_TAG_typedef => match entry.attr_value(gimli::DW_AT_type) {
                    Some(AttributeValue::UnitRef(offset)) => Some(offset),
                    _ => None,
                },
                _ => None,
            };
            let (Some(offset), Some(name)) = (offset, self.name(unit, entry)?) else {
                continue;
            };
            if let Some(wanted) = self.wanted_name(&name) {
                self.structure(unit, offset, wanted)?;
            }
        }
        Ok(())
    }

    /// The name by which nginx.h asks for this struct, if it does and it is not yet found. Releases
    /// differ in whether a struct has a tag (`ngx_table_elt_s`) or only a typedef's name
    /// (`ngx_table_elt_t`).
    fn wanted_name(&self, name: &str) -> Option<&'a str> {
        let tag = name.strip_suffix("_t").map(|stem| format!("{stem}_s"));
        let wanted: &'a Wanted = self.wanted;
        let (known, _) = wanted
            .get_key_value(name)
            .or_else(|| wanted.get_key_value(tag?.as_str()))?;
        let is_new = !self.found.structs.contains_key(known);
        is_new.then_some(known.as_str())
    }

    /// Takes over a struct's members, if this is where it is defined.
    fn structure(
        &mut self,
        unit: &Unit<Reader<'a>>,
        offset: UnitOffset,
        name: &'a str,
    ) -> Result<()> {
        let mut tree = unit.entries_tree(Some(offset))?;
        let root = tree.root()?;
        let entry = root.entry();
        let is_defined = entry.attr(gimli::DW_AT_byte_size).is_some();
        if entry.tag() != gimli::DW_TAG_structure_type || !is_defined {
            return Ok(());
        }
        let mut found = Members::new();
        let mut children = root.children();
        while let Some(child) = children.next()? {
            self.count()?;
            let entry = child.entry();
            let location = entry
                .attr_value(gimli::DW_AT_data_member_location)
                .and_then(|location| location.udata_value());
            if let (Some(member), Some(location)) = (self.name(unit, entry)?, location)
                && self.wanted[name].contains(&member)
            {
                found.insert(member, u32::try_from(location)?);
            }
        }
        self.found.structs.insert(name.to_owned(), found);
        Ok(())
    }

    /// The name of an entry.
    fn name(
        &self,
        unit: &Unit<Reader<'a>>,
        entry: &DebuggingInformationEntry<Reader<'a>>,
    ) -> Result<Option<String>> {
        let Some(value) = entry.attr_value(gimli::DW_AT_name) else {
            return Ok(None);
        };
        let name = self.dwarf.attr_string(unit, value)?;
        Ok(Some(name.to_string_lossy().into_owned()))
    }

    /// Counts one entry. Fails when there are more than any nginx has.
    fn count(&mut self) -> Result<()> {
        self.entries += 1;
        if self.entries > ENTRIES_MAX {
            bail!("more than {ENTRIES_MAX} entries");
        }
        Ok(())
    }
}
