// SPDX-License-Identifier: MIT OR Apache-2.0
//! arm64 instructions: the control flow, and the effect on general registers and memory. The encodings
//! are those of Arm DDI 0487, "A64 instruction set encoding". The decoder is conservative: an instruction
//! that it does not know exactly is assumed to write more registers than it does, never fewer.

#[cfg(test)]
mod differential;
mod memory;

pub use memory::Access;
pub use memory::Index;

use crate::code::Flow;
use crate::code::Register;
use crate::code::Registers;

/// The number of the stack pointer. The zero register, which is encoded with the same number, counts as
/// no register.
pub const SP: Register = 31;

const ALL: Registers = u32::MAX;

/// The registers that a call preserves (AAPCS64): `x19` to `x29`.
pub const KEPT: Registers = 0x3ff8_0000;

/// The size of an instruction in bytes.
pub const BYTES: usize = 4;

/// One instruction and its address.
#[derive(Clone, Copy, Debug)]
pub struct Instruction {
    /// The address, as linked.
    pub address: u64,
    word: u32,
}

/// The effect of an instruction on general registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// The first register becomes the second one plus a constant: `mov`, `add`, `sub`.
    Add(Register, Register, i64),
    /// The register becomes the sum of these registers and something unknown: `add`, `madd`.
    Sum(Register, [Option<Register>; 2]),
    /// The register becomes one of these, by a condition: `csel`.
    Select(Register, [Option<Register>; 2]),
    /// The register becomes an address that the instruction states: `adr`, `adrp`.
    Address(Register, u64),
    /// Memory is read or written: loads, stores, atomic instructions.
    Access(Access),
    /// Anything else: the registers that it may write.
    Other(Registers),
}

impl Instruction {
    /// Takes the first instruction of `code`. `None` when there are fewer than four bytes, or when they are
    /// `udf`, which is never executed.
    pub fn decode(address: u64, code: &[u8]) -> Option<Self> {
        let word = u32::from_le_bytes(*code.first_chunk()?);
        (word >> 16 != 0).then_some(Self { address, word })
    }

    /// Returns every instruction of `code`, which begins at `address`. Words that are not instructions are
    /// left out.
    pub fn decode_all(address: u64, code: &[u8]) -> impl Iterator<Item = Self> {
        let words = (address..).step_by(BYTES).zip(code.chunks_exact(BYTES));
        words.filter_map(|(address, bytes)| Self::decode(address, bytes))
    }

    /// Returns whether the bits of `mask` have the values of `bits`.
    pub fn matches(self, mask: u32, bits: u32) -> bool {
        self.word & mask == bits
    }

    /// Returns the unsigned field of `bits` bits (at most 31) whose lowest bit is `low`.
    pub fn field(self, low: u32, bits: u32) -> u32 {
        self.word >> low & ((1 << bits) - 1)
    }

    /// Returns the same field as a two's complement number.
    fn signed(self, low: u32, bits: u32) -> i64 {
        let unused = u32::BITS - bits;
        i64::from((self.field(low, bits) << unused).cast_signed() >> unused)
    }

    /// Returns the target of a branch whose offset, in instructions, is in that field.
    fn target(self, low: u32, bits: u32) -> u64 {
        self.address.wrapping_add_signed(self.signed(low, bits) * 4)
    }

    /// Returns the instruction that control goes to after this one.
    pub fn flow(self) -> Flow {
        match self.field(26, 6) {
            0b00_0101 => Flow::Jump(self.target(0, 26)),
            0b10_0101 => Flow::Call(Some(self.target(0, 26))),
            _ if self.matches(0xff00_0000, 0x5400_0000) => Flow::Branch(self.target(5, 19)),
            _ if self.matches(0x7e00_0000, 0x3400_0000) => Flow::Branch(self.target(5, 19)),
            _ if self.matches(0x7e00_0000, 0x3600_0000) => Flow::Branch(self.target(5, 14)),
            // blr, blraa
            _ if self.matches(0xfe00_0000, 0xd600_0000) && self.field(21, 3) == 1 => {
                Flow::Call(None)
            }
            // br, ret, eret; brk, hlt, udf
            _ if self.matches(0xfe00_0000, 0xd600_0000) => Flow::End,
            _ if self.matches(0xff00_0000, 0xd400_0000) && self.field(21, 3) != 0 => Flow::End,
            // retaasppc, retabsppc
            _ if self.matches(0xff00_0000, 0x5500_0000) => Flow::End,
            _ => Flow::Next,
        }
    }

    /// Returns the number of a hint instruction, 0 to 127: 0 is `nop`. `None` when it is not a hint.
    pub fn hint(self) -> Option<u32> {
        self.matches(0xffff_f01f, 0xd503_201f)
            .then(|| self.field(5, 7))
    }

    /// Returns the effect on general registers.
    pub fn operation(self) -> Operation {
        let unknown = Operation::Other(ALL);
        match self.field(25, 4) {
            0b1000 | 0b1001 => self.immediate(),
            0b1010 | 0b1011 => Operation::Other(self.branch_writes()),
            0b0101 | 0b1101 => self.register(),
            0b0111 | 0b1111 => Operation::Other(self.vector_writes()),
            // ldr and prfm of a literal
            _ if self.matches(0x3b00_0000, 0x1800_0000) => {
                let is_general = self.matches(1 << 26, 0) && self.field(30, 2) != 3;
                Operation::Other(bits(self.general(0).filter(|_| is_general)))
            }
            0b0100 | 0b0110 | 0b1100 | 0b1110 => {
                Access::decode(self).map_or(unknown, Operation::Access)
            }
            _ => unknown,
        }
    }

    /// Decodes data processing with an immediate operand.
    fn immediate(self) -> Operation {
        let to = self.general(0);
        match (self.field(23, 3), to) {
            (0b000 | 0b001, Some(to)) => {
                let offset = self.signed(5, 19) << 2 | i64::from(self.field(29, 2));
                let address = if self.matches(1 << 31, 0) {
                    self.address.wrapping_add_signed(offset)
                } else {
                    (self.address & !0xfff).wrapping_add_signed(offset << 12)
                };
                Operation::Address(to, address)
            }
            // 64-bit add or sub that sets no flags.
            (0b010, _) if self.matches(0xa000_0000, 0x8000_0000) => {
                let bytes = i64::from(self.field(10, 12)) << (12 * self.field(22, 1));
                let bytes = if self.matches(1 << 30, 0) {
                    bytes
                } else {
                    -bytes
                };
                Operation::Add(self.number(0), self.number(5), bytes)
            }
            // Register 31 is the stack pointer, unless the instruction sets flags.
            (0b100, _) if self.field(29, 2) != 0b11 => Operation::Other(bit(self.number(0))),
            (0b010, _) if self.matches(1 << 29, 0) => Operation::Other(bit(self.number(0))),
            (0b011, _) => Operation::Other(bit(self.number(0))),
            // autiasppc, autibsppc
            (0b111, _) if self.matches(0xffc0_001f, 0xf380_001f) => Operation::Other(bit(30)),
            _ => Operation::Other(bits(to)),
        }
    }

    /// Decodes data processing with register operands.
    fn register(self) -> Operation {
        let to = self.general(0);
        let (first, second) = (self.general(5), self.general(16));
        match to {
            // mov
            Some(to) if self.matches(0xffe0_ffe0, 0xaa00_03e0) => match second {
                Some(from) => Operation::Add(to, from, 0),
                None => Operation::Other(bit(to)),
            },
            // 64-bit add: shifted, extended
            Some(to) if self.matches(0xff20_0000, 0x8b00_0000) => {
                Operation::Sum(to, [first, second])
            }
            _ if self.matches(0xffe0_0000, 0x8b20_0000) => {
                Operation::Sum(self.number(0), [Some(self.number(5)), second])
            }
            // madd, smaddl, umaddl
            Some(to)
                if self.matches(0xff60_8000, 0x9b00_0000)
                    || self.matches(0xff60_8000, 0x9b20_0000) =>
            {
                Operation::Sum(to, [self.general(10), None])
            }
            // 64-bit csel
            Some(to) if self.matches(0xffe0_0c00, 0x9a80_0000) => {
                Operation::Select(to, [first, second])
            }
            // ccmp
            _ if self.matches(0x1fe0_0000, 0x1a40_0000) => Operation::Other(0),
            // Register 31 is the stack pointer: extended add that sets no flags, irg, addpt
            _ if self.matches(0x3f20_0000, 0x0b20_0000)
                || self.matches(0xffe0_fc00, 0x9ac0_1000)
                || self.matches(0xbfe0_e000, 0x9a00_2000) =>
            {
                Operation::Other(bit(self.number(0)))
            }
            _ => Operation::Other(bits(to)),
        }
    }

    /// Returns the registers that a branch, an exception or a system instruction writes.
    fn branch_writes(self) -> Registers {
        match self.flow() {
            Flow::Call(_) => !KEPT & !bit(SP),
            _ if self.hint().is_some() => self.hint_writes(),
            // mrrs, sysp
            _ if self.matches(0xffc0_0000, 0xd540_0000) => ALL,
            // mrs, sysl
            _ if self.matches(0xffe0_0000, 0xd520_0000) => bits(self.general(0)),
            // svc, hvc, smc
            _ if self.matches(0xffe0_0000, 0xd400_0000) => !KEPT & !bit(SP),
            _ => 0,
        }
    }

    /// Returns the registers that a hint writes: those that sign and authenticate addresses write `x17` or
    /// `x30`.
    fn hint_writes(self) -> Registers {
        match self.field(5, 7) {
            // nop, yield, wfe, wfi, sev, sevl, dgh; esb, psb, tsb, csdb; bti
            0..=6 | 16..=20 | 32 | 34 | 36 | 38 => 0,
            8 | 10 | 12 | 14 => bit(17),
            7 | 24..=31 => bit(30),
            _ => bit(16) | bit(17) | bit(30),
        }
    }

    /// Returns the general registers that a vector or floating point instruction writes.
    fn vector_writes(self) -> Registers {
        let is_conversion =
            self.matches(0x5f20_fc00, 0x1e20_0000) || self.matches(0x5f20_0000, 0x1e00_0000);
        // scvtf, ucvtf and fmov to a vector register
        let is_to_vector = matches!(self.field(16, 3), 2 | 3 | 7);
        // smov, umov
        let is_from_element = self.matches(0xbfe0_ec00, 0x0e00_2c00);
        if (is_conversion && !is_to_vector) || is_from_element {
            bits(self.general(0))
        } else {
            0
        }
    }

    /// Returns the register in the field of five bits whose lowest bit is `low`.
    fn number(self, low: u32) -> Register {
        (self.word >> low & 31) as Register
    }

    /// Returns the same register where 31 is the zero register. `None` when it is that.
    fn general(self, low: u32) -> Option<Register> {
        Some(self.number(low)).filter(|number| *number != SP)
    }
}

impl Operation {
    /// Returns the general registers that the instruction may write.
    pub fn writes(self) -> Registers {
        match self {
            Self::Add(to, ..) | Self::Sum(to, _) | Self::Select(to, _) | Self::Address(to, _) => {
                bit(to)
            }
            Self::Access(access) => access.writes(),
            Self::Other(writes) => writes,
        }
    }
}

fn bit(register: Register) -> Registers {
    1 << register
}

fn bits(register: Option<Register>) -> Registers {
    register.map_or(0, bit)
}

#[cfg(test)]
mod tests {
    use super::Instruction;
    use crate::code::Registers;

    /// Instructions, each with the registers that it writes.
    const WRITES: [(u32, &[u8]); 43] = [
        (0xf940_0023, &[3]),        // ldr x3, [x1]
        (0xb862_7823, &[3]),        // ldr w3, [x1, x2, lsl #2]
        (0xb89f_c023, &[3]),        // ldrsw x3, [x1, #-4]
        (0x3cc1_0423, &[1]),        // ldr q3, [x1], #16
        (0xa9ff_0fe2, &[2, 3, 31]), // ldp x2, x3, [sp, #-16]!
        (0xad41_0c82, &[]),         // ldp q2, q3, [x4, #32]
        (0xf800_8c41, &[2]),        // str x1, [x2, #8]!
        (0x2900_0861, &[]),         // stp w1, w2, [x3]
        (0x885f_fc41, &[1]),        // ldaxr w1, [x2]
        (0x8803_fc41, &[3]),        // stlxr w3, w1, [x2]
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
        (0xd503_233f, &[30]),       // paciasp
        (0xd503_201f, &[]),         // nop
        (0x48e3_7c41, &[3]),        // cash w3, w1, [x2]
        (0x4862_fc84, &[2, 3]),     // caspa x2, x3, x4, x5, [x4]
        (0xb8a3_0041, &[1]),        // ldadda w3, w1, [x2]
        (0x9e62_0004, &[]),         // scvtf d4, x0
        (0x4e08_1c06, &[]),         // mov v6.d[0], x0
        (0x1c00_0005, &[]),         // ldr s5, .
        (0x9000_0009, &[9]),        // adrp x9, .
        (0xd503_3bbf, &[]),         // dmb ish
        (0xd65f_03c0, &[]),         // ret
        (0xb400_0001, &[]),         // cbz x1, .
    ];

    /// Check which registers instructions write, for each kind that the decoder distinguishes.
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
