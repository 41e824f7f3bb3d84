// SPDX-License-Identifier: MIT OR Apache-2.0
//! The transfer function of x86-64.

use iced_x86::Code;
use iced_x86::Decoder;
use iced_x86::DecoderOptions;
use iced_x86::Instruction;
use iced_x86::Mnemonic;
use iced_x86::OpKind;
use iced_x86::Register;

use super::Analysis;
use super::POINTER_BYTES;
use super::Pointer;
use super::State;
use crate::code::Flow;
use crate::code::x86_64;

/// The stack pointer, `rsp`.
pub const STACK: u8 = 4;

/// The first argument, `rdi`.
pub const ARGUMENT: u8 = 7;

/// Applies one instruction to the state, and records its effects. Returns its length in bytes and its
/// control flow; `None` when the code does not decode.
pub fn transfer(
    analysis: &mut Analysis<'_>,
    address: u64,
    code: &[u8],
    state: &mut State,
) -> Option<(usize, Flow)> {
    let instruction = Decoder::with_ip(64, code, address, DecoderOptions::NONE).decode();
    if instruction.is_invalid() {
        return None;
    }
    apply(analysis, &instruction, state);
    Some((instruction.len(), x86_64::flow(&instruction)))
}

/// Applies an instruction to the state, and records its effects.
fn apply(analysis: &mut Analysis<'_>, instruction: &Instruction, state: &mut State) {
    let has_memory =
        (0..instruction.op_count()).any(|operand| instruction.op_kind(operand) == OpKind::Memory);
    let address = has_memory.then(|| operand(state, instruction)).flatten();
    record(analysis, instruction, address);
    let to = instruction.op0_register();
    if !has_memory && let Some(bytes) = added_constant(instruction) {
        let sum = value_of(state, to).map(|pointer| pointer.plus(bytes));
        analysis.locate(sum);
        set(state, to, sum);
        return;
    }
    let from = value_of(state, instruction.op1_register());
    match instruction.code() {
        Code::Mov_r64_rm64 if has_memory => set(state, to, analysis.load(state, address)),
        Code::Mov_rm64_r64 if has_memory => {
            state.store(address, POINTER_BYTES, from);
            let value = analysis.stored(address, from);
            set(state, instruction.op1_register(), value);
        }
        Code::Mov_r64_rm64 | Code::Mov_rm64_r64 => set(state, to, from),
        Code::Lea_r64_m => {
            analysis.locate(address);
            set(state, to, address);
        }
        Code::Pop_r64 => {
            let top = state.get(STACK);
            set(state, to, analysis.load(state, top));
            state.set(STACK, top.map(|top| top.plus(POINTER_BYTES)));
        }
        Code::Add_r64_rm64 | Code::Add_rm64_r64 if instruction.op0_kind() == OpKind::Register => {
            let sum = match (value_of(state, to), from) {
                (Some(pointer), None) | (None, Some(pointer)) => pointer.plus_unknown(),
                _ if has_memory => analysis
                    .load(state, address)
                    .and_then(Pointer::plus_unknown),
                _ => None,
            };
            set(state, to, sum);
        }
        _ if instruction.mnemonic() == Mnemonic::Push => {
            let bytes = i64::from(instruction.stack_pointer_increment());
            let value = value_of(state, to).or_else(|| analysis.load(state, address));
            let top = state.get(STACK).map(|top| top.plus(bytes));
            state.set(STACK, top);
            state.store(top, -bytes, value);
        }
        _ => forget(state, instruction, address),
    }
}

/// Records the memory that an instruction accesses, and the addresses and constants that it computes.
fn record(analysis: &mut Analysis<'_>, instruction: &Instruction, address: Option<Pointer>) {
    if instruction.code() != Code::Lea_r64_m {
        analysis.touch(address, x86_64::accessed(instruction));
    } else if instruction.is_ip_rel_memory_operand() {
        let address = instruction.ip_rel_memory_address();
        analysis.effects.addresses.insert(address);
    }
    if let Code::Mov_r32_imm32 | Code::Mov_r64_imm64 | Code::Mov_rm64_imm32 = instruction.code() {
        analysis.effects.constants.insert(instruction.immediate(1));
    }
}

/// Returns the constant that an instruction adds to its 64-bit operand. `None` for any other instruction.
fn added_constant(instruction: &Instruction) -> Option<i64> {
    let constant = || instruction.immediate(1).cast_signed();
    match instruction.code() {
        Code::Add_rm64_imm8 | Code::Add_rm64_imm32 | Code::Add_RAX_imm32 => Some(constant()),
        Code::Sub_rm64_imm8 | Code::Sub_rm64_imm32 | Code::Sub_RAX_imm32 => {
            Some(constant().wrapping_neg())
        }
        _ => None,
    }
}

/// Drops what an instruction overwrites.
fn forget(state: &mut State, instruction: &Instruction, address: Option<Pointer>) {
    if let Some(bytes) = x86_64::stored(instruction) {
        state.store(address, bytes, None);
    }
    for register in x86_64::written(instruction) {
        state.set(register, None);
    }
}

/// Returns the value of a 64-bit general register. `None` of any other register.
fn value_of(state: &State, register: Register) -> Option<Pointer> {
    register
        .is_gpr64()
        .then(|| state.get(x86_64::number(register)))?
}

/// Overwrites a whole register. A write to `eax` clears the rest of `rax`.
fn set(state: &mut State, register: Register, value: Option<Pointer>) {
    if register.is_gpr() {
        state.set(x86_64::number(register), value);
    }
}

/// Returns the value of a memory operand's address.
fn operand(state: &State, instruction: &Instruction) -> Option<Pointer> {
    let displacement = instruction.memory_displacement64().cast_signed();
    let base = value_of(state, instruction.memory_base());
    let index = instruction.memory_index();
    let pointer = match (base, index) {
        (Some(base), Register::None) => base,
        (Some(base), _) => base.plus_unknown()?,
        (None, _) if instruction.memory_index_scale() == 1 => {
            value_of(state, index)?.plus_unknown()?
        }
        (None, _) => return None,
    };
    Some(pointer.plus(displacement))
}
