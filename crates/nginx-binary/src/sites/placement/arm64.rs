// SPDX-License-Identifier: MIT OR Apache-2.0
//! Decodes arm64 code for the placement of probes.

use anyhow::Context as _;
use anyhow::Result;

use super::DecodedInstruction;
use crate::code::Register;
use crate::code::arm64;
use crate::code::arm64::Operation;
use crate::elf::Function;

/// The number of the hint `nop`.
const NOP: u32 = 0;
/// The number of the hint that signs the return address.
const PACIASP: u32 = 25;
/// The numbers of the hints that mark targets of indirect branches.
const BTI: u32 = 32;
const BTI_C: u32 = 34;
const BTI_J: u32 = 36;
const BTI_JC: u32 = 38;

/// The hints that the kernel single-steps: those above, `xpaclri`, and those that sign addresses
/// (`aarch64_insn_is_steppable_hint()`).
const STEPPED: [u32; 12] = [
    NOP, 7, 8, 10, 24, PACIASP, 26, 27, BTI, BTI_C, BTI_J, BTI_JC,
];

/// The names of conditional branches, by the number of their condition.
const CONDITIONS: [&str; 16] = [
    "b.eq", "b.ne", "b.cs", "b.cc", "b.mi", "b.pl", "b.vs", "b.vc", "b.hi", "b.ls", "b.ge", "b.lt",
    "b.gt", "b.le", "b.al", "b.nv",
];

/// The registers of the first arguments (AAPCS64): `x0`, `x1`.
pub const ARGUMENTS: [Register; 2] = [0, 1];

/// Returns the name of a register: `x0`.
pub fn register_name(number: Register) -> String {
    format!("x{number}")
}

/// Decodes all instructions of a function. Fails at the first bytes that are not an instruction.
pub fn decode(function: &Function<'_>) -> Result<Vec<DecodedInstruction>> {
    let words = function.code.chunks(arm64::BYTES);
    let addresses = (function.address..).step_by(arm64::BYTES);
    let instructions = addresses.zip(words).map(|(address, bytes)| {
        let instruction = arm64::Instruction::decode(address, bytes)
            .with_context(|| format!("invalid instruction at {address:#x}"))?;
        let operation = instruction.operation();
        Ok(DecodedInstruction {
            address,
            mnemonic: mnemonic(instruction).to_owned(),
            is_emulated: is_emulated(instruction),
            is_refused: is_refused(instruction),
            flow: instruction.flow(),
            copy: match operation {
                Operation::Add(to, from, 0) => Some((to, from)),
                _ => None,
            },
            writes: operation.writes(),
        })
    });
    instructions.collect()
}

/// Returns whether the kernel emulates an instruction under a probe: `arm_probe_decode_insn()` in every
/// kernel since 4.10. A `nop` is emulated only since 6.13.
fn is_emulated(instruction: arm64::Instruction) -> bool {
    instruction.matches(0x1f00_0000, 0x1000_0000) // adr, adrp
        || instruction.matches(0xff00_0010, 0x5400_0000) // b.cond
        || instruction.matches(0x7c00_0000, 0x3400_0000) // cbz, tbz
        || instruction.matches(0x7c00_0000, 0x1400_0000) // b, bl
        || [0xd61f_0000, 0xd63f_0000, 0xd65f_0000] // br, blr, ret
            .iter()
            .any(|bits| instruction.matches(0xffff_fc1f, *bits))
}

/// Returns whether the kernel refuses a probe on an instruction: it neither emulates it nor can step it out
/// of line (`aarch64_insn_is_steppable()`).
fn is_refused(instruction: arm64::Instruction) -> bool {
    if is_emulated(instruction) {
        return false;
    }
    if instruction.matches(0x1c00_0000, 0x1400_0000) {
        let is_system = instruction.matches(0xffc0_0000, 0xd500_0000);
        let is_msr = instruction.matches(0xfff0_0000, 0xd510_0000)
            || instruction.matches(0xfff8_f01f, 0xd500_401f);
        return !is_system
            || is_msr
            || instruction
                .hint()
                .is_some_and(|hint| !STEPPED.contains(&hint));
    }
    // Loads of literals, and exclusive accesses.
    instruction.matches(0x3b00_0000, 0x1800_0000) || instruction.matches(0x3f00_0000, 0x0800_0000)
}

/// Returns the mnemonic of an instruction that functions typically begin with, and `.inst` for all others.
fn mnemonic(instruction: arm64::Instruction) -> &'static str {
    match instruction.hint() {
        Some(NOP) => return "nop",
        Some(PACIASP) => return "paciasp",
        Some(BTI | BTI_C | BTI_J | BTI_JC) => return "bti",
        _ => {}
    }
    let names = [
        (0xfc00_0000, 0x1400_0000, "b"),
        (0xfc00_0000, 0x9400_0000, "bl"),
        (0x7f00_0000, 0x3400_0000, "cbz"),
        (0x7f00_0000, 0x3500_0000, "cbnz"),
        (0x7f00_0000, 0x3600_0000, "tbz"),
        (0x7f00_0000, 0x3700_0000, "tbnz"),
        (0x9f00_0000, 0x1000_0000, "adr"),
        (0x9f00_0000, 0x9000_0000, "adrp"),
        (0xffff_fc1f, 0xd61f_0000, "br"),
        (0xffff_fc1f, 0xd63f_0000, "blr"),
        (0xffff_fc1f, 0xd65f_0000, "ret"),
        (0x7e40_0000, 0x2800_0000, "stp"),
        (0x7e40_0000, 0x2840_0000, "ldp"),
        (0xbf60_0000, 0xb900_0000, "str"),
        (0xbf60_0000, 0xb940_0000, "ldr"),
        (0x7f80_0000, 0x1100_0000, "add"),
        (0x7f80_0000, 0x5100_0000, "sub"),
        (0x7fe0_ffe0, 0x2a00_03e0, "mov"),
    ];
    let known = names
        .iter()
        .find(|(mask, bits, _)| instruction.matches(*mask, *bits));
    match known {
        Some((_, _, name)) => name,
        None if instruction.matches(0xff00_0010, 0x5400_0000) => {
            CONDITIONS[instruction.field(0, 4) as usize]
        }
        None => ".inst",
    }
}
