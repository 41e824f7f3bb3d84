// SPDX-License-Identifier: MIT OR Apache-2.0
//! The attributes of an entry of debug information.

use anyhow::Result;
use gimli::Abbreviation;
use gimli::AttributeValue;
use gimli::DebugStrOffsetsBase;
use gimli::EntriesRaw;
use gimli::UnitOffset;

use super::Reader;

/// The attributes of an entry that are read. `None` where the entry lacks one, or has it in another form.
#[derive(Default)]
pub struct EntryAttributes<'a> {
    /// `DW_AT_name`
    pub name: Option<AttributeValue<Reader<'a>>>,
    /// `DW_AT_type`, if the type is in the same unit.
    pub type_offset: Option<UnitOffset>,
    /// `DW_AT_byte_size`
    pub size: Option<u64>,
    /// `DW_AT_data_member_location`, or the byte of `DW_AT_data_bit_offset`.
    pub location: Option<u64>,
    /// `DW_AT_bit_size`, which only bitfields have.
    pub bits: Option<u64>,
    /// The number of elements of an array: `DW_AT_count`, or `DW_AT_upper_bound` plus one.
    pub count: Option<u64>,
    /// `DW_AT_str_offsets_base`
    pub string_offsets_base: Option<DebugStrOffsetsBase>,
}

/// Reads the attributes of an entry.
pub fn read_attributes<'a>(
    entries: &mut EntriesRaw<'_, Reader<'a>>,
    abbreviation: &Abbreviation,
) -> Result<EntryAttributes<'a>> {
    let mut known = EntryAttributes::default();
    for declaration in abbreviation.attributes() {
        let attribute = entries.read_attribute(*declaration)?;
        match (attribute.name(), attribute.value()) {
            (gimli::DW_AT_name, value) => known.name = Some(value),
            (gimli::DW_AT_type, AttributeValue::UnitRef(offset)) => {
                known.type_offset = Some(offset);
            }
            (gimli::DW_AT_byte_size, value) => known.size = value.udata_value(),
            (gimli::DW_AT_data_member_location, value) => known.location = value.udata_value(),
            /* DWARF 5 gives the bit of a bitfield. DWARF 4 gives its word, where the bitfields that are
             * read begin. */
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
