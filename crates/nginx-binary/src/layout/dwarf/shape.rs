// SPDX-License-Identifier: MIT OR Apache-2.0
//! A struct as a compiler lays it out: where its members may be.

/// Bytes of the largest word that bits are in.
const BITFIELD_BYTES: u64 = 8;

/// What addresses of structs are multiples of.
const ALIGNMENTS: [u64; 4] = [1, 2, 4, 8];

/// Of a type.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// How many bytes it has.
    pub bytes: u64,
    /// What its address is a multiple of, when that is known: of numbers and pointers.
    pub alignment: Option<u64>,
}

/// A struct in the making, as a compiler lays it out: each member follows the one before it, at the
/// next address that its type may have. What contradicts that is no compiler's word.
#[derive(Debug)]
pub struct Shape {
    /// Where the last member ends, at least.
    end: u64,
    /// How far beyond that the next one may begin, apart from what its type asks for: 0 but after
    /// bitfields; `None` after a type of which nothing is known.
    slack: Option<u64>,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            end: 0,
            slack: Some(0),
        }
    }
}

impl Shape {
    /// Puts a member there. Whether it may be there.
    pub fn add(&mut self, location: u64, is_bitfield: bool, size: Option<Size>) -> bool {
        if is_bitfield {
            /* Debug information gives its word or its byte, either of which may begin before the last end. */
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

    /// Whether an address is not further on than it can be.
    fn is_near(&self, location: u64, more: u64) -> bool {
        self.slack
            .is_none_or(|slack| location <= self.end.saturating_add(slack + more))
    }

    /// Whether a struct with these members may have that size.
    pub fn has(&self, size: u64) -> bool {
        match self.slack {
            Some(0) => ALIGNMENTS.iter().any(|a| size == align(self.end, *a)),
            _ => size >= self.end && self.is_near(size, 0),
        }
    }
}

impl Size {
    /// Whether what has this size stands at an address when what is before it ends at another.
    fn follows(self, end: u64, address: u64) -> bool {
        match self.alignment {
            Some(alignment) => address == align(end, alignment),
            None => ALIGNMENTS.iter().any(|a| address == align(end, *a)),
        }
    }
}

/// The next multiple of a size, or the address itself.
fn align(address: u64, size: u64) -> u64 {
    address.checked_next_multiple_of(size).unwrap_or(address)
}

#[cfg(test)]
mod tests {
    use super::Shape;
    use super::Size;

    /// A number or a pointer.
    const WORD: Option<Size> = Some(Size {
        bytes: 8,
        alignment: Some(8),
    });

    /// Smaller.
    const INT: Option<Size> = Some(Size {
        bytes: 4,
        alignment: Some(4),
    });

    /// A struct that is embedded.
    const STRUCT: Option<Size> = Some(Size {
        bytes: 20,
        alignment: None,
    });

    /// Whether all members may be where they are, and the struct has that size.
    fn fits(members: &[(u64, bool, Option<Size>)], size: u64) -> bool {
        let mut shape = Shape::default();
        let mut members = members.iter();
        members.all(|(at, is_bitfield, size)| shape.add(*at, *is_bitfield, *size))
            && shape.has(size)
    }

    /// Check that members follow each other as their types ask for, and are nowhere else.
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
