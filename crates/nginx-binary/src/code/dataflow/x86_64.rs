// SPDX-License-Identifier: MIT OR Apache-2.0
//! What x86-64's instructions do to what is known.

use iced_x86::Code;
use iced_x86::Decoder;
use iced_x86::DecoderOptions;
use iced_x86::Instruction;
use iced_x86::OpKind;
use iced_x86::Register;

use super::POINTER_BYTES;
use super::Pointer;
use super::State;
use super::Walk;
use crate::code::Flow;
use crate::code::x86_64;

/// `rsp`
pub const STACK: u8 = 4;

/// `rdi`
pub const ARGUMENT: u8 = 7;

/// Notes what an instruction touches, and what is known behind it. Returns how long it is, and where
/// control goes; `None` when the bytes are none.
pub fn step(
    walk: &mut Walk<'_>,
    address: u64,
    code: &[u8],
    state: &mut State,
) -> Option<(usize, Flow)> {
    let instruction = Decoder::with_ip(64, code, address, DecoderOptions::NONE).decode();
    if instruction.is_invalid() {
        return None;
    }
    run(walk, &instruction, state);
    Some((instruction.len(), x86_64::flow(&instruction)))
}

/// Notes what an instruction touches, and what is known behind it.
fn run(walk: &mut Walk<'_>, instruction: &Instruction, state: &mut State) {
    let has_memory =
        (0..instruction.op_count()).any(|operand| instruction.op_kind(operand) == OpKind::Memory);
    let address = has_memory.then(|| operand(state, instruction)).flatten();
    if instruction.code() != Code::Lea_r64_m {
        walk.touch(address, x86_64::accessed(instruction));
    } else if instruction.is_ip_rel_memory_operand() {
        let address = instruction.ip_rel_memory_address();
        walk.found.addresses.insert(address);
    }
    if let Code::Mov_r32_imm32 | Code::Mov_r64_imm64 | Code::Mov_rm64_imm32 = instruction.code() {
        walk.found.constants.insert(instruction.immediate(1));
    }
    let to = instruction.op0_register();
    let from = get(state, instruction.op1_register());
    let immediate = matches!(
        instruction.op1_kind(),
        OpKind::Immediate8to64 | OpKind::Immediate32to64
    )
    .then(|| instruction.immediate(1).cast_signed());
    match instruction.code() {
        Code::Mov_r64_rm64 if has_memory => set(state, to, walk.load(state, address)),
        Code::Mov_rm64_r64 if has_memory => {
            state.store(address, POINTER_BYTES, from);
            let value = walk.stored(address, from);
            set(state, instruction.op1_register(), value);
        }
        Code::Mov_r64_rm64 | Code::Mov_rm64_r64 => set(state, to, from),
        Code::Lea_r64_m => set(state, to, address),
        Code::Push_r64 => {
            let top = state.get(STACK).map(|top| top.plus(-8));
            state.set(STACK, top);
            let value = get(state, to);
            state.store(top, POINTER_BYTES, value);
        }
        Code::Pop_r64 => {
            let top = state.get(STACK);
            set(state, to, walk.load(state, top));
            state.set(STACK, top.map(|top| top.plus(8)));
        }
        Code::Add_rm64_imm8 | Code::Add_rm64_imm32 | Code::Add_RAX_imm32 if !has_memory => {
            let sum = get(state, to).zip(immediate);
            set(state, to, sum.map(|(pointer, bytes)| pointer.plus(bytes)));
        }
        Code::Sub_rm64_imm8 | Code::Sub_rm64_imm32 | Code::Sub_RAX_imm32 if !has_memory => {
            let sum = get(state, to).zip(immediate);
            set(
                state,
                to,
                sum.map(|(pointer, bytes)| pointer.plus(bytes.wrapping_neg())),
            );
        }
        Code::Add_r64_rm64 | Code::Add_rm64_r64 if instruction.op0_kind() == OpKind::Register => {
            let sum = match (get(state, to), from) {
                (Some(pointer), None) | (None, Some(pointer)) => pointer.plus_unknown(),
                _ if has_memory => walk.load(state, address).and_then(Pointer::plus_unknown),
                _ => None,
            };
            set(state, to, sum);
        }
        _ => {
            if let Some(bytes) = x86_64::stored(instruction) {
                state.store(address, bytes, None);
            }
            for register in x86_64::written(instruction) {
                state.set(register, None);
            }
        }
    }
}

/// What a register of 64 bits holds.
fn get(state: &State, register: Register) -> Option<Pointer> {
    register
        .is_gpr64()
        .then(|| state.get(x86_64::number(register)))?
}

/// A whole register is written.
fn set(state: &mut State, register: Register, value: Option<Pointer>) {
    if register.is_gpr() {
        state.set(x86_64::number(register), value);
    }
}

/// Where an instruction's memory operand points.
fn operand(state: &State, instruction: &Instruction) -> Option<Pointer> {
    let displacement = instruction.memory_displacement64().cast_signed();
    let base = get(state, instruction.memory_base());
    let index = instruction.memory_index();
    let pointer = match (base, index) {
        (Some(base), Register::None) => base,
        (Some(base), _) => base.plus_unknown()?,
        (None, _) if instruction.memory_index_scale() == 1 => get(state, index)?.plus_unknown()?,
        (None, _) => return None,
    };
    Some(pointer.plus(displacement))
}
