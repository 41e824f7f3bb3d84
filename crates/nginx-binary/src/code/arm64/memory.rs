// SPDX-License-Identifier: MIT OR Apache-2.0
//! Loads and stores of arm64.

use super::Instruction;
use super::Register;
use super::Registers;
use super::bit;
use super::bits;

/// How memory is read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Whether it is read.
    pub is_load: bool,
    /// What is read or written, one beside the other; `None` is no general register of 64 bits whole.
    pub values: [Option<Register>; 2],
    /// Whether there are two.
    pub is_pair: bool,
    /// General registers that are written.
    pub written: Registers,
    /// Bytes of each, at most.
    pub bytes: i64,
    /// Where.
    pub base: Register,
    /// What is added to it: a register that is not shifted, or one that is.
    pub index: Index,
    /// What else is added to it.
    pub displacement: i64,
    /// What the base becomes more, if it is written, too. `None` is no one knows how much.
    pub increment: Option<i64>,
}

/// A register in an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Index {
    /// None.
    None,
    /// As it is.
    Whole(Register),
    /// Shifted, or a part of it.
    Scaled,
}

impl Access {
    /// Of a load or a store. `None` for those that write registers as no one knows.
    pub fn of(instruction: Instruction) -> Option<Self> {
        let is_vector = instruction.is(1 << 26, 1 << 26);
        let value = |low| instruction.general(low).filter(|_| !is_vector);
        let access = Self {
            is_load: instruction.is(1 << 22, 1 << 22),
            values: [None; 2],
            is_pair: false,
            written: 0,
            bytes: 8,
            base: instruction.number(5),
            index: Index::None,
            displacement: 0,
            increment: Some(0),
        };
        // ldp, stp
        if instruction.is(0x3a00_0000, 0x2800_0000) {
            let size = instruction.field(30, 2);
            let bytes = match size {
                _ if is_vector => 4 << size,
                2 => 8,
                1 if !access.is_load => return None, // stgp
                _ => 4,
            };
            let offset = instruction.signed(15, 7) * bytes;
            let values = [value(0), value(10)];
            return Some(Self {
                values: values.map(|value| value.filter(|_| bytes == 8)),
                is_pair: true,
                written: if access.is_load {
                    bits(values[0]) | bits(values[1])
                } else {
                    0
                },
                bytes,
                ..access.at(instruction.field(23, 2), offset)
            });
        }
        // ld1 and its like: of vectors only
        if instruction.is(0xbe00_0000, 0x0c00_0000) {
            let increment = instruction.is(1 << 23, 0).then_some(0);
            return Some(Self {
                increment,
                bytes: 64,
                ..access
            });
        }
        // Exclusive, ordered, compare and swap (casp: of two registers each)
        if instruction.is(0x3f00_0000, 0x0800_0000) {
            let is_pair = instruction.is(0x80a0_0000, 0x0020_0000);
            let swapped = bits(instruction.general(16));
            let written = [
                bits(instruction.general(0)),
                bits(instruction.general(10)),
                swapped,
                swapped << u32::from(is_pair),
            ];
            return Some(Self {
                written: written.into_iter().fold(0, |all, one| all | one),
                bytes: 16,
                ..access
            });
        }
        if !instruction.is(0x3a00_0000, 0x3800_0000) {
            return None;
        }
        let (size, kind) = (instruction.field(30, 2), instruction.field(22, 2));
        let scale = if is_vector {
            size | (kind & 2) << 1
        } else {
            size
        };
        let is_prefetch = !is_vector && size == 3 && kind == 2;
        let is_load = if is_vector { kind & 1 == 1 } else { kind != 0 };
        let written = if is_load && !is_prefetch {
            bits(value(0))
        } else {
            0
        };
        let access = Self {
            is_load,
            values: [value(0).filter(|_| size == 3 && !is_prefetch), None],
            written,
            bytes: 1 << scale,
            ..access
        };
        if instruction.is(1 << 24, 1 << 24) {
            let displacement = i64::from(instruction.field(10, 12)) << scale;
            return Some(Self {
                displacement,
                ..access
            });
        }
        match (instruction.field(21, 1), instruction.field(10, 2)) {
            (0, mode) => Some(access.at([2, 1, 2, 3][mode as usize], instruction.signed(12, 9))),
            (1, 0b10) => Some(Self {
                // lsl #0, or as it is
                index: match instruction.general(16) {
                    Some(index) if instruction.field(12, 4) == 0b0110 => Index::Whole(index),
                    _ => Index::Scaled,
                },
                ..access
            }),
            // ldadd and its like
            (1, 0b00) => Some(Self {
                values: [None; 2],
                written: bits(value(0)),
                ..access
            }),
            _ => None,
        }
    }

    /// The same at an offset: 1 adds it to the base later, 3 at once, any other leaves the base.
    fn at(self, mode: u32, offset: i64) -> Self {
        Self {
            displacement: if mode == 1 { 0 } else { offset },
            increment: Some(if mode & 1 == 1 { offset } else { 0 }),
            ..self
        }
    }

    /// General registers that it may write.
    pub fn writes(self) -> Registers {
        let base = if self.increment == Some(0) {
            0
        } else {
            bit(self.base)
        };
        self.written | base
    }
}
