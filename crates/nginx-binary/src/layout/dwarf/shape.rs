// SPDX-License-Identifier: MIT OR Apache-2.0
//! The rules by which a compiler lays out a struct, which reveal broken debug information.

/// The size in bytes of the largest word of a bitfield.
const BITFIELD_BYTES: u64 = 8;

/// The alignments that structs may have.
const ALIGNMENTS: [u64; 4] = [1, 2, 4, 8];

/// The size and alignment of a type.
#[derive(Clone, Copy, Debug)]
pub struct TypeSize {
    /// The size in bytes.
    pub bytes: u64,
    /// The alignment in bytes. Known for numbers and pointers only.
    pub alignment: Option<u64>,
}

/// A struct that members are added to in turn. A compiler puts each member at the next offset after the one
/// before it that has the alignment of its type.
#[derive(Debug)]
pub struct StructShape {
    /// The least offset at which the last member may end.
    end: u64,
    /// The number of bytes after `end` at which the next member may begin, apart from its alignment: 0 except
    /// after bitfields; `None` after a type of unknown size.
    slack: Option<u64>,
}

impl Default for StructShape {
    fn default() -> Self {
        Self {
            end: 0,
            slack: Some(0),
        }
    }
}

impl StructShape {
    /// Adds a member. Returns whether it may be at this offset.
    pub fn add(&mut self, location: u64, is_bitfield: bool, size: Option<TypeSize>) -> bool {
        if is_bitfield {
            /* Debug information gives the word or the byte of a bitfield; either may begin before `end`. */
            let fits = location.saturating_add(BITFIELD_BYTES) > self.end
                && self.is_near(location, BITFIELD_BYTES);
            self.end = self.end.max(location);
            self.slack = self.slack.map(|_| 2 * BITFIELD_BYTES);
            return fits;
        }
        let fits = location >= self.end
            && match size {
                None => true,
                Some(size) if self.slack == Some(0) => size.follows(self.end, location),
                Some(size) => size.follows(location, location) && self.is_near(location, 0),
            };
        self.end = location.saturating_add(size.map_or(0, |size| size.bytes));
        self.slack = size.map(|_| 0);
        fits
    }

    /// Returns whether an offset is not too far after the last member.
    fn is_near(&self, location: u64, more: u64) -> bool {
        self.slack
            .is_none_or(|slack| location <= self.end.saturating_add(slack + more))
    }

    /// Returns whether a struct with these members may have that size.
    pub fn may_have_size(&self, size: u64) -> bool {
        match self.slack {
            Some(0) => ALIGNMENTS.iter().any(|a| size == align(self.end, *a)),
            _ => size >= self.end && self.is_near(size, 0),
        }
    }
}

impl TypeSize {
    /// Returns whether a member of this size is at `address` when the member before it ends at `end`.
    fn follows(self, end: u64, address: u64) -> bool {
        match self.alignment {
            Some(alignment) => address == align(end, alignment),
            None => ALIGNMENTS.iter().any(|a| address == align(end, *a)),
        }
    }
}

/// Rounds up to a multiple of `size`.
fn align(address: u64, size: u64) -> u64 {
    address.checked_next_multiple_of(size).unwrap_or(address)
}

#[cfg(test)]
mod tests {
    use super::StructShape;
    use super::TypeSize;

    /// A pointer.
    const WORD: Option<TypeSize> = Some(TypeSize {
        bytes: 8,
        alignment: Some(8),
    });

    const INT: Option<TypeSize> = Some(TypeSize {
        bytes: 4,
        alignment: Some(4),
    });

    /// An embedded struct.
    const STRUCT: Option<TypeSize> = Some(TypeSize {
        bytes: 20,
        alignment: None,
    });

    /// Returns whether a compiler may lay out a struct with these members and that size.
    fn fits(members: &[(u64, bool, Option<TypeSize>)], size: u64) -> bool {
        let mut shape = StructShape::default();
        let mut members = members.iter();
        members.all(|(at, is_bitfield, size)| shape.add(*at, *is_bitfield, *size))
            && shape.may_have_size(size)
    }

    /// Check that members follow each other as their alignments require, and nowhere else.
    #[test]
    fn shape() {
        let plain = |at| {
            fits(
                &[(0, false, INT), (at, false, WORD), (16, false, STRUCT)],
                40,
            )
        };
        assert!(plain(8));
        assert!(!plain(4) && !plain(12) && !plain(16) && !plain(0));
        let of_size = |size| fits(&[(0, false, WORD), (8, false, INT)], size);
        assert!(of_size(16) && of_size(12) && !of_size(8) && !of_size(24));
        let after_bits = |at| {
            fits(
                &[(0, false, WORD), (8, true, INT), (at, false, WORD)],
                at + 8,
            )
        };
        assert!(after_bits(16));
        assert!(!after_bits(12) && !after_bits(40));
        let bits = |at| fits(&[(0, false, WORD), (at, true, INT)], 16);
        assert!(bits(8) && !bits(0) && !bits(32));
        assert!(fits(
            &[(0, false, WORD), (8, false, None), (104, false, WORD)],
            112
        ));
    }
}
