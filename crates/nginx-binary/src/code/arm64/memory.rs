// SPDX-License-Identifier: MIT OR Apache-2.0
//! Loads and stores of arm64: the memory that an instruction accesses, and the registers that it writes.

use super::Instruction;
use super::bit;
use super::bits;
use crate::code::Register;
use crate::code::Registers;

/// An access to memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// True when memory is read. Prefetches count as reads.
    pub is_load: bool,
    /// True when memory is written. Atomic instructions read and write.
    pub is_store: bool,
    /// The registers that are loaded or stored, at consecutive addresses. `None` for values that are not
    /// a whole 64-bit general register, and for atomic instructions.
    pub values: [Option<Register>; 2],
    /// True when two values are loaded or stored.
    pub is_pair: bool,
    /// The general registers that are loaded. It does not include the base.
    pub written: Registers,
    /// The size of each value in bytes. For vector structures an upper bound.
    pub bytes: i64,
    /// The register that holds the address.
    pub base: Register,
    /// The register that is added to the address.
    pub index: Index,
    /// The constant in bytes that is added to the address.
    pub displacement: i64,
    /// The number of bytes that the base is incremented by: 0 when it is not written, `None` when the
    /// increment is not known.
    pub increment: Option<i64>,
}

/// The index register of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Index {
    /// There is none.
    None,
    /// The whole register is added.
    Whole(Register),
    /// A register is shifted or extended before it is added.
    Scaled,
}

/// Decodes one class of encodings. `None` when the instruction is not known.
type Decode = fn(Instruction) -> Option<Access>;

/// The classes of encodings, each with the bits that identify it: a mask, and their values.
const CLASSES: [(u32, u32, Decode); 7] = [
    (0x3a00_0000, 0x2800_0000, pair),
    (0xbe00_0000, 0x0c00_0000, vector_structure),
    (0x3f00_0000, 0x0800_0000, exclusive),
    (0x3b00_0000, 0x3900_0000, unsigned_offset),
    (0x3b20_0000, 0x3800_0000, signed_offset),
    (0x3b20_0c00, 0x3820_0800, register_offset),
    (0x3f20_0c00, 0x3820_0000, atomic),
];

impl Access {
    /// Decodes a load or a store. `None` when the instruction is not known to be one: it may then write
    /// any register.
    pub fn decode(instruction: Instruction) -> Option<Self> {
        let (_, _, decode) = CLASSES
            .iter()
            .find(|(mask, bits, _)| instruction.matches(*mask, *bits))?;
        decode(instruction)
    }

    /// Returns the general registers that the instruction may write.
    pub fn writes(self) -> Registers {
        match self.increment {
            Some(0) => self.written,
            _ => self.written | bit(self.base),
        }
    }

    /// Starts from what most classes have in common: bit 22 distinguishes loads from stores, and the
    /// address is the base.
    fn from_common_fields(instruction: Instruction) -> Self {
        let is_load = instruction.matches(1 << 22, 1 << 22);
        Self {
            is_load,
            is_store: !is_load,
            values: [None; 2],
            is_pair: false,
            written: 0,
            bytes: 8,
            base: instruction.number(5),
            index: Index::None,
            displacement: 0,
            increment: Some(0),
        }
    }

    /// Adds an offset as the addressing mode says: 1 adds it to the base after the access, 3 before it,
    /// all others leave the base as it is.
    fn with_offset(self, mode: u32, offset: i64) -> Self {
        Self {
            displacement: if mode == 1 { 0 } else { offset },
            increment: Some(if mode & 1 == 1 { offset } else { 0 }),
            ..self
        }
    }
}

fn is_vector(instruction: Instruction) -> bool {
    instruction.matches(1 << 26, 1 << 26)
}

/// `ldp`, `stp`, `ldnp`, `stnp`, `ldpsw`
fn pair(instruction: Instruction) -> Option<Access> {
    let access = Access::from_common_fields(instruction);
    let size = instruction.field(30, 2);
    let bytes = match size {
        3 => return None,
        _ if is_vector(instruction) => 4 << size,
        2 => 8,
        1 if access.is_store => return None, // stgp
        _ => 4,
    };
    let registers = [instruction.general(0), instruction.general(10)];
    let registers = registers.map(|register| register.filter(|_| !is_vector(instruction)));
    let offset = instruction.signed(15, 7) * bytes;
    Some(Access {
        values: registers.map(|register| register.filter(|_| bytes == 8)),
        is_pair: true,
        written: if access.is_load {
            bits(registers[0]) | bits(registers[1])
        } else {
            0
        },
        bytes,
        ..access.with_offset(instruction.field(23, 2), offset)
    })
}

/// `ld1` to `ld4`, `ld1r` to `ld4r`, `st1` to `st4`, all of vector registers.
fn vector_structure(instruction: Instruction) -> Option<Access> {
    let is_post_indexed = instruction.matches(1 << 23, 1 << 23);
    Some(Access {
        bytes: 64,
        increment: (!is_post_indexed).then_some(0),
        ..Access::from_common_fields(instruction)
    })
}

/// Exclusive and ordered accesses, and compare and swap.
fn exclusive(instruction: Instruction) -> Option<Access> {
    let access = Access::from_common_fields(instruction);
    let size = instruction.field(30, 2);
    let [value, second] = [instruction.general(0), instruction.general(10)];
    let status = instruction.general(16);
    let is_ordered = instruction.matches(1 << 23, 1 << 23);
    let has_second = instruction.matches(1 << 21, 1 << 21);
    let access = Access {
        bytes: 1 << size,
        ..access
    };
    let swap = Access {
        is_load: true,
        is_store: true,
        ..access
    };
    Some(match (is_ordered, has_second) {
        // cas: the compared register receives the old value.
        (true, true) => Access {
            written: bits(status),
            ..swap
        },
        // casp: of two 32-bit or two 64-bit registers each.
        (false, true) if size < 2 => Access {
            written: bits(status) | bit((instruction.number(16) + 1) & 31),
            is_pair: true,
            bytes: 4 << size,
            ..swap
        },
        // ldxp, ldxr, ldar
        _ if access.is_load => Access {
            written: bits(value) | if has_second { bits(second) } else { 0 },
            is_pair: has_second,
            ..access
        },
        // stlr
        (true, false) => access,
        // stxp, stxr: a register receives whether the store has happened.
        (false, _) => Access {
            written: bits(status),
            is_pair: has_second,
            ..access
        },
    })
}

/// Starts the decoding of an access to one register, whose size and kind all classes encode alike.
fn single(instruction: Instruction) -> Access {
    let (size, kind) = (instruction.field(30, 2), instruction.field(22, 2));
    let access = Access::from_common_fields(instruction);
    if is_vector(instruction) {
        return Access {
            bytes: 1 << (size | (kind & 2) << 1),
            ..access
        };
    }
    let is_prefetch = size == 3 && kind == 2;
    let is_load = kind != 0;
    let value = instruction.general(0).filter(|_| !is_prefetch);
    Access {
        is_load,
        is_store: !is_load,
        values: [value.filter(|_| size == 3), None],
        written: if is_load { bits(value) } else { 0 },
        bytes: 1 << size,
        ..access
    }
}

/// `ldr x0, [x1, #8]`
fn unsigned_offset(instruction: Instruction) -> Option<Access> {
    let access = single(instruction);
    Some(Access {
        displacement: i64::from(instruction.field(10, 12)) * access.bytes,
        ..access
    })
}

/// `ldur x0, [x1, #-8]`, `ldr x0, [x1, #8]!`, `ldr x0, [x1], #8`, `ldtr x0, [x1, #8]`
fn signed_offset(instruction: Instruction) -> Option<Access> {
    let mode = instruction.field(10, 2);
    Some(single(instruction).with_offset(mode, instruction.signed(12, 9)))
}

/// `ldr x0, [x1, x2, lsl #3]`
fn register_offset(instruction: Instruction) -> Option<Access> {
    let is_whole = instruction.field(12, 4) == 0b0110; // lsl #0
    Some(Access {
        index: match instruction.general(16) {
            Some(index) if is_whole => Index::Whole(index),
            _ => Index::Scaled,
        },
        ..single(instruction)
    })
}

/// `ldadd`, `ldclr`, `ldeor`, `ldset`, `ldsmax` and the like, `swp`, `ldapr`
fn atomic(instruction: Instruction) -> Option<Access> {
    let is_ldapr = instruction.matches(0x00c0_f000, 0x0080_c000);
    if instruction.matches(1 << 15, 1 << 15) && instruction.field(12, 3) != 0 && !is_ldapr {
        return None; // ld64b and its like
    }
    Some(Access {
        is_load: true,
        is_store: !is_ldapr,
        written: bits(instruction.general(0)),
        bytes: 1 << instruction.field(30, 2),
        ..Access::from_common_fields(instruction)
    })
}
