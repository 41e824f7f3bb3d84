// SPDX-License-Identifier: MIT OR Apache-2.0
//! Instructions of arm64, as far as functions are followed: where control goes, and what becomes of
//! the general registers. Each has four bytes, and their fields stand where the architecture's manual
//! (Arm DDI 0487, "A64 instruction set encoding") has them. What is not known exactly is told as
//! more than it does, never as less.

mod memory;

pub use memory::Access;
pub use memory::Index;

use crate::code::Flow;

/// A general register: `x0` to `x30`, and `SP`.
pub type Register = u8;

/// The stack pointer. The zero register, which has the same number, is no register here.
pub const SP: Register = 31;

/// Registers, one bit each.
pub type Registers = u32;

/// Every register.
const ALL: Registers = u32::MAX;

/// What a call leaves as they are: `x19` to `x29`.
pub const KEPT: Registers = 0x3ff8_0000;

/// Bytes of an instruction.
pub const BYTES: usize = 4;

/// One instruction.
#[derive(Clone, Copy, Debug)]
pub struct Instruction {
    /// Where it stands.
    pub address: u64,
    /// Its bits.
    word: u32,
}

/// What it does to general registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// One register becomes another one, and so many bytes more: `mov`, `add`, `sub`.
    Add(Register, Register, i64),
    /// It becomes the sum of one register and something: `add`, `madd`.
    Sum(Register, [Option<Register>; 2]),
    /// It becomes an address that the instruction states: `adr`, `adrp`.
    Address(Register, u64),
    /// Memory is read or written.
    Access(Access),
    /// All that is known is which registers it may write.
    Other(Registers),
}

impl Instruction {
    /// The instruction at an address. `None` when the bytes are too few, or none for certain.
    pub fn decode(address: u64, code: &[u8]) -> Option<Self> {
        let word = u32::from_le_bytes(*code.first_chunk()?);
        (word >> 16 != 0).then_some(Self { address, word })
    }

    /// All of some code, without what is none.
    pub fn all(address: u64, code: &[u8]) -> impl Iterator<Item = Self> {
        let words = (address..).step_by(BYTES).zip(code.chunks_exact(BYTES));
        words.filter_map(|(address, bytes)| Self::decode(address, bytes))
    }

    /// Whether these bits are set just so.
    pub fn is(self, mask: u32, bits: u32) -> bool {
        self.word & mask == bits
    }

    /// A field: its lowest bit, and how many.
    pub fn field(self, low: u32, bits: u32) -> u32 {
        self.word >> low & ((1 << bits) - 1)
    }

    /// The same, with a sign.
    fn signed(self, low: u32, bits: u32) -> i64 {
        let unused = u32::BITS - bits;
        i64::from((self.field(low, bits) << unused).cast_signed() >> unused)
    }

    /// Where a branch goes, with so many bits from the lowest.
    fn target(self, low: u32, bits: u32) -> u64 {
        self.address.wrapping_add_signed(self.signed(low, bits) * 4)
    }

    /// Where control goes behind it.
    pub fn flow(self) -> Flow {
        match self.field(26, 6) {
            0b00_0101 => Flow::Jump(self.target(0, 26)),
            0b10_0101 => Flow::Call(Some(self.target(0, 26))),
            _ if self.is(0xff00_0000, 0x5400_0000) => Flow::Branch(self.target(5, 19)),
            _ if self.is(0x7e00_0000, 0x3400_0000) => Flow::Branch(self.target(5, 19)),
            _ if self.is(0x7e00_0000, 0x3600_0000) => Flow::Branch(self.target(5, 14)),
            // blr, blraa
            _ if self.is(0xfe00_0000, 0xd600_0000) && self.field(21, 3) == 1 => Flow::Call(None),
            // br, ret, eret; brk, hlt, udf
            _ if self.is(0xfe00_0000, 0xd600_0000) => Flow::End,
            _ if self.is(0xff00_0000, 0xd400_0000) && self.field(21, 3) != 0 => Flow::End,
            _ => Flow::Next,
        }
    }

    /// Which hint it is.
    pub fn hint(self) -> Option<u32> {
        self.is(0xffff_f01f, 0xd503_201f).then(|| self.field(5, 7))
    }

    /// What it does to general registers.
    pub fn operation(self) -> Operation {
        let unknown = Operation::Other(ALL);
        match self.field(25, 4) {
            0b1000 | 0b1001 => self.immediate(),
            0b1010 | 0b1011 => Operation::Other(self.branch_writes()),
            0b0101 | 0b1101 => self.register(),
            0b0111 | 0b1111 => Operation::Other(self.vector_writes()),
            // ldr of a literal
            _ if self.is(0x3f00_0000, 0x1800_0000) => Operation::Other(bits(self.general(0))),
            0b0100 | 0b0110 | 0b1100 | 0b1110 => {
                Access::of(self).map_or(unknown, Operation::Access)
            }
            _ => unknown,
        }
    }

    /// Data processing with an immediate operand.
    fn immediate(self) -> Operation {
        let to = self.general(0);
        match (self.field(23, 3), to) {
            (0b000 | 0b001, Some(to)) => {
                let offset = self.signed(5, 19) << 2 | i64::from(self.field(29, 2));
                let address = if self.is(1 << 31, 0) {
                    self.address.wrapping_add_signed(offset)
                } else {
                    (self.address & !0xfff).wrapping_add_signed(offset << 12)
                };
                Operation::Address(to, address)
            }
            // Of 64 bits, and no flags.
            (0b010, _) if self.is(0xa000_0000, 0x8000_0000) => {
                let bytes = i64::from(self.field(10, 12)) << (12 * self.field(22, 1));
                let bytes = if self.is(1 << 30, 0) { bytes } else { -bytes };
                Operation::Add(self.number(0), self.number(5), bytes)
            }
            // The stack pointer, unless flags are written.
            (0b100, _) if self.field(29, 2) != 0b11 => Operation::Other(bit(self.number(0))),
            (0b010, _) if self.is(1 << 29, 0) => Operation::Other(bit(self.number(0))),
            (0b011, _) => Operation::Other(bit(self.number(0))),
            _ => Operation::Other(bits(to)),
        }
    }

    /// Data processing with registers.
    fn register(self) -> Operation {
        let to = self.general(0);
        let (first, second) = (self.general(5), self.general(16));
        match to {
            // mov
            Some(to) if self.is(0xffe0_ffe0, 0xaa00_03e0) => match second {
                Some(from) => Operation::Add(to, from, 0),
                None => Operation::Other(bit(to)),
            },
            // add of 64 bits: shifted, extended
            Some(to) if self.is(0xff20_0000, 0x8b00_0000) => Operation::Sum(to, [first, second]),
            _ if self.is(0xffe0_0000, 0x8b20_0000) => {
                Operation::Sum(self.number(0), [Some(self.number(5)), second])
            }
            // madd, smaddl, umaddl
            Some(to) if self.is(0xff60_8000, 0x9b00_0000) || self.is(0xff60_8000, 0x9b20_0000) => {
                Operation::Sum(to, [self.general(10), None])
            }
            // ccmp
            _ if self.is(0x1fe0_0000, 0x1a40_0000) => Operation::Other(0),
            // Extended, without flags: the stack pointer may be written.
            _ if self.is(0x3f20_0000, 0x0b20_0000) => Operation::Other(bit(self.number(0))),
            _ => Operation::Other(bits(to)),
        }
    }

    /// Registers that a branch, an exception or a system instruction writes.
    fn branch_writes(self) -> Registers {
        match self.flow() {
            Flow::Call(_) => !KEPT & !bit(SP),
            // pac…, aut…, of x17 or x30
            _ if self.hint().is_some() => bit(17) | bit(30),
            // mrs, sysl
            _ if self.is(0xffe0_0000, 0xd520_0000) => bits(self.general(0)),
            // svc
            _ if self.is(0xff00_0000, 0xd400_0000) => !KEPT & !bit(SP),
            _ => 0,
        }
    }

    /// General registers that an instruction of vectors or floating point writes.
    fn vector_writes(self) -> Registers {
        let is_conversion = self.is(0x5f20_fc00, 0x1e20_0000) || self.is(0x5f20_0000, 0x1e00_0000);
        let is_element = self.is(0x9fe0_8400, 0x0e00_0400);
        if is_conversion || is_element {
            bits(self.general(0))
        } else {
            0
        }
    }

    /// The register of a field.
    fn number(self, low: u32) -> Register {
        (self.word >> low & 31) as Register
    }

    /// The same, where 31 is the zero register.
    fn general(self, low: u32) -> Option<Register> {
        Some(self.number(low)).filter(|number| *number != SP)
    }
}

impl Operation {
    /// General registers that it may write.
    pub fn writes(self) -> Registers {
        match self {
            Self::Add(to, ..) | Self::Sum(to, _) | Self::Address(to, _) => bit(to),
            Self::Access(access) => access.writes(),
            Self::Other(writes) => writes,
        }
    }
}

/// One register.
fn bit(register: Register) -> Registers {
    1 << register
}

/// One register, or none.
fn bits(register: Option<Register>) -> Registers {
    register.map_or(0, bit)
}

#[cfg(test)]
mod tests {
    use super::Instruction;
    use super::Registers;

    /// Instructions, and the registers that each writes.
    const WRITES: [(u32, &[u8]); 36] = [
        (0xf940_0023, &[3]),        // ldr x3, [x1]
        (0xb862_7823, &[3]),        // ldr w3, [x1, x2, lsl #2]
        (0xb89f_c023, &[3]),        // ldrsw x3, [x1, #-4]
        (0x3cc1_0423, &[1]),        // ldr q3, [x1], #16
        (0xa9ff_0fe2, &[2, 3, 31]), // ldp x2, x3, [sp, #-16]!
        (0xad41_0c82, &[]),         // ldp q2, q3, [x4, #32]
        (0xf800_8c41, &[2]),        // str x1, [x2, #8]!
        (0x2900_0861, &[]),         // stp w1, w2, [x3]
        (0x885f_fc41, &[1]),        // ldaxr w1, [x2]
        (0x8803_fc41, &[1, 3]),     // stlxr w3, w1, [x2]
        (0xc8df_fc41, &[1]),        // ldar x1, [x2]
        (0xf980_0020, &[]),         // prfm pldl1keep, [x1]
        (0x4cdf_7840, &[2]),        // ld1 {v0.4s}, [x2], #16
        (0x5800_0005, &[5]),        // ldr x5, .
        (0xf280_0025, &[5]),        // movk x5, #1
        (0x927c_ec3f, &[31]),       // and sp, x1, #-16
        (0xf100_083f, &[]),         // cmp x1, #2
        (0xf240_003f, &[]),         // tst x1, #1
        (0x9100_43ff, &[31]),       // add sp, sp, #16
        (0x8b22_63e1, &[1]),        // add x1, sp, x2
        (0xeb03_0041, &[1]),        // subs x1, x2, x3
        (0x9a83_1041, &[1]),        // csel x1, x2, x3, ne
        (0xfa40_1824, &[]),         // ccmp x1, #0, #4, ne
        (0x9b02_7c26, &[6]),        // mul x6, x1, x2
        (0x9bc2_7c26, &[6]),        // umulh x6, x1, x2
        (0xd341_0907, &[7]),        // ubfx x7, x8, #1, #2
        (0x9e66_0004, &[4]),        // fmov x4, d0
        (0x0e01_3c06, &[6]),        // umov w6, v0.b[0]
        (0x1e38_0026, &[6]),        // fcvtzs w6, s1
        (0x1e63_2841, &[]),         // fadd d1, d2, d3
        (0xd53b_d047, &[7]),        // mrs x7, tpidr_el0
        (0xd503_233f, &[17, 30]),   // paciasp
        (0x9000_0009, &[9]),        // adrp x9, .
        (0xd503_3bbf, &[]),         // dmb ish
        (0xd65f_03c0, &[]),         // ret
        (0xb400_0001, &[]),         // cbz x1, .
    ];

    /// Check which registers instructions write, of each kind that is told apart.
    #[test]
    fn writes() {
        for (word, registers) in WRITES {
            let instruction = Instruction::decode(0x1000, &word.to_le_bytes()).unwrap();
            let expected = registers.iter().fold(0, |all, one| all | 1 << one);
            let found: Registers = instruction.operation().writes();
            assert_eq!(found, expected, "{word:#x}");
        }
    }
}
