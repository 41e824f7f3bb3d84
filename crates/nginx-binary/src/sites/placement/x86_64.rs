// SPDX-License-Identifier: MIT OR Apache-2.0
//! Decodes x86-64 code for the placement of probes.

use anyhow::Result;
use anyhow::ensure;
use iced_x86::Code;
use iced_x86::Decoder;
use iced_x86::DecoderOptions;
use iced_x86::Mnemonic;
use iced_x86::OpKind;
use iced_x86::Register;

use super::DecodedInstruction;
use crate::code::x86_64;
use crate::elf::Function;

/// The registers of the first arguments (System V ABI): `rdi`, `rsi`.
pub const ARGUMENTS: [u8; 2] = [7, 6];

/// Returns the name of a register: `rdi`.
pub fn register_name(number: u8) -> String {
    format!("{:?}", Register::RAX + u32::from(number)).to_lowercase()
}

/// Decodes all instructions of a function. Fails at the first bytes that are not an instruction.
pub fn decode(function: &Function<'_>) -> Result<Vec<DecodedInstruction>> {
    let mut decoder = Decoder::with_ip(64, function.code, function.address, DecoderOptions::NONE);
    let mut code = Vec::new();
    while decoder.can_decode() {
        let instruction = decoder.decode();
        ensure!(
            !instruction.is_invalid(),
            "invalid instruction at {:#x}",
            instruction.ip()
        );
        code.push(DecodedInstruction {
            address: instruction.ip(),
            // `push`, `endbr64`
            mnemonic: format!("{:?}", instruction.mnemonic()).to_lowercase(),
            is_emulated: is_emulated(&instruction),
            is_refused: false,
            flow: x86_64::flow(&instruction),
            copy: copy(&instruction),
            writes: x86_64::writes(&instruction).registers,
        });
    }
    Ok(code)
}

/// Returns whether the kernel emulates an instruction under a probe: `branch_setup_xol_ops()`
/// and `push_setup_xol_ops()` in arch/x86/kernel/uprobes.c, in every kernel since 5.15.
fn is_emulated(instruction: &iced_x86::Instruction) -> bool {
    match instruction.code() {
        Code::Push_r64 | Code::Call_rel32_64 | Code::Jmp_rel8_64 | Code::Jmp_rel32_64 => true,
        Code::Nopd => instruction.len() == 1,
        _ => instruction.is_jcc_short_or_near(),
    }
}

/// Returns the destination and the source of a copy between registers.
fn copy(instruction: &iced_x86::Instruction) -> Option<(u8, u8)> {
    let is_copy = instruction.mnemonic() == Mnemonic::Mov
        && instruction.op0_kind() == OpKind::Register
        && instruction.op1_kind() == OpKind::Register
        && instruction.op0_register().is_gpr64();
    is_copy.then(|| {
        (
            x86_64::number(instruction.op0_register()),
            x86_64::number(instruction.op1_register()),
        )
    })
}
