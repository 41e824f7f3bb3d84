// SPDX-License-Identifier: MIT OR Apache-2.0
//! The transfer function of x86-64.

use iced_x86::Code;
use iced_x86::ConditionCode;
use iced_x86::Decoder;
use iced_x86::DecoderOptions;
use iced_x86::Instruction;
use iced_x86::Mnemonic;
use iced_x86::OpKind;
use iced_x86::Register;

use super::Analysis;
use super::graph::Step;
use super::state::POINTER_BYTES;
use super::state::Pointer;
use super::state::Pointers;
use super::state::State;
use crate::code::x86_64;

/// The stack pointer, `rsp`.
pub const STACK: u8 = 4;

/// The first argument, `rdi`.
pub const ARGUMENT: u8 = 7;

/// Decodes an instruction. `None` when it is invalid.
pub fn step(address: u64, code: &[u8]) -> Option<Step> {
    let instruction = decode(address, code);
    (!instruction.is_invalid()).then(|| (instruction.len(), x86_64::flow(&instruction)))
}

/// Applies one instruction to the state, and records its effects. Returns its length in bytes.
pub fn transfer(
    analysis: &mut Analysis<'_>,
    address: u64,
    code: &[u8],
    state: &mut State,
) -> usize {
    let instruction = decode(address, code);
    apply(analysis, &instruction, state);
    instruction.len()
}

fn decode(address: u64, code: &[u8]) -> Instruction {
    Decoder::with_ip(64, code, address, DecoderOptions::NONE).decode()
}

/// Applies an instruction to the state, and records its effects.
fn apply(analysis: &mut Analysis<'_>, instruction: &Instruction, state: &mut State) {
    let has_memory =
        (0..instruction.op_count()).any(|operand| instruction.op_kind(operand) == OpKind::Memory);
    let address = if has_memory {
        operand(state, instruction)
    } else {
        Pointers::none()
    };
    record(analysis, instruction, &address);
    let to = instruction.op0_register();
    if !has_memory && let Some(bytes) = added_constant(instruction) {
        let sum = value_of(state, to).plus(bytes);
        analysis.locate(&sum);
        set(state, to, sum);
        return;
    }
    let from = value_of(state, instruction.op1_register());
    match instruction.code() {
        Code::Mov_r64_rm64 if has_memory => set(state, to, analysis.load(state, &address)),
        Code::Mov_rm64_r64 if has_memory => {
            state.store(&address, POINTER_BYTES, &from);
            let value = analysis.stored(&address, from);
            set(state, instruction.op1_register(), value);
        }
        Code::Mov_r64_rm64 | Code::Mov_rm64_r64 => set(state, to, from),
        Code::Lea_r64_m => {
            analysis.locate(&address);
            set(state, to, address);
        }
        Code::Pop_r64 => {
            let top = state.get(STACK).clone();
            set(state, to, analysis.load(state, &top));
            state.set(STACK, top.plus(POINTER_BYTES));
        }
        Code::Add_r64_rm64 | Code::Add_rm64_r64 if instruction.op0_kind() == OpKind::Register => {
            let known = value_of(state, to);
            let sum = if has_memory && known.is_empty() {
                analysis.load(state, &address).plus_unknown()
            } else {
                known.plus_each(&from)
            };
            set(state, to, sum);
        }
        _ if is_conditional_move(instruction) => {
            let loaded = analysis.load(state, &address);
            let choices = [value_of(state, to), from, loaded];
            set(state, to, Pointers::of_paths(choices.into_iter()));
        }
        _ if instruction.mnemonic() == Mnemonic::Push => {
            let bytes = i64::from(instruction.stack_pointer_increment());
            let pushed = [value_of(state, to), analysis.load(state, &address)];
            let top = state.get(STACK).plus(bytes);
            state.set(STACK, top.clone());
            state.store(&top, -bytes, &Pointers::of_paths(pushed.into_iter()));
        }
        _ => forget(state, instruction, &address),
    }
}

/// Returns whether an instruction overwrites a 64-bit register under a condition.
fn is_conditional_move(instruction: &Instruction) -> bool {
    instruction.condition_code() != ConditionCode::None
        && instruction.op_count() == 2
        && instruction.op0_register().is_gpr64()
}

/// Records the memory that an instruction accesses, and the addresses and constants that it computes.
fn record(analysis: &mut Analysis<'_>, instruction: &Instruction, address: &Pointers) {
    let is_relative = instruction.is_ip_rel_memory_operand();
    let effects = &mut analysis.effects;
    if instruction.code() == Code::Lea_r64_m && is_relative {
        let address = instruction.ip_rel_memory_address();
        effects.addresses.insert(address);
    } else if is_relative && instruction.op0_register().is_vector_register() {
        let start = instruction.ip_rel_memory_address();
        let words = (0..x86_64::accessed(instruction)).step_by(POINTER_BYTES as usize);
        effects
            .pooled
            .extend(words.map(|at| start.wrapping_add_signed(at)));
    }
    if instruction.code() != Code::Lea_r64_m {
        analysis.touch(address, x86_64::accessed(instruction));
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
fn forget(state: &mut State, instruction: &Instruction, address: &Pointers) {
    let writes = x86_64::writes(instruction);
    if let Some(bytes) = writes.bytes {
        state.store(address, bytes, &Pointers::none());
    }
    state.forget(writes.registers);
}

/// Returns what a 64-bit general register may hold. Nothing is known of any other register.
fn value_of(state: &State, register: Register) -> Pointers {
    if register.is_gpr64() {
        state.get(x86_64::number(register)).clone()
    } else {
        Pointers::none()
    }
}

/// Overwrites a whole register. A write to `eax` clears the rest of `rax`.
fn set(state: &mut State, register: Register, value: Pointers) {
    if register.is_gpr() {
        state.set(x86_64::number(register), value);
    }
}

/// Returns the value of a memory operand's address.
fn operand(state: &State, instruction: &Instruction) -> Pointers {
    let displacement = instruction.memory_displacement64().cast_signed();
    let base = value_of(state, instruction.memory_base());
    let pointers = match instruction.memory_index() {
        Register::None => base,
        index => {
            let index = match instruction.memory_index_scale() {
                1 => value_of(state, index),
                _ => Pointers::none(),
            };
            let sums = [base.plus_each(&index), base.plus_unknown()];
            let known = sums.into_iter().find(|sum| !sum.is_empty());
            known.unwrap_or_else(|| Pointer::Offset(0).into())
        }
    };
    pointers.plus(displacement)
}
