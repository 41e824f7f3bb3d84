// SPDX-License-Identifier: MIT OR Apache-2.0
//! Instructions of x86-64, as far as functions are followed: where control goes, and what becomes of
//! the general registers.

use iced_x86::FlowControl;
use iced_x86::Instruction;
use iced_x86::InstructionInfoFactory;
use iced_x86::OpAccess;
use iced_x86::Register;

use crate::code::Flow;

/// Registers that a call leaves as they are, and the stack pointer.
const KEPT: [Register; 7] = [
    Register::RBX,
    Register::RSP,
    Register::RBP,
    Register::R12,
    Register::R13,
    Register::R14,
    Register::R15,
];

/// A general register's number, of 0 to 15, whatever part of it is meant.
pub fn number(register: Register) -> u8 {
    register.full_register().number() as u8
}

/// Where control goes behind an instruction.
pub fn flow(instruction: &Instruction) -> Flow {
    match instruction.flow_control() {
        FlowControl::Next => Flow::Next,
        FlowControl::Call => Flow::Call(Some(instruction.near_branch_target())),
        FlowControl::IndirectCall => Flow::Call(None),
        FlowControl::ConditionalBranch => Flow::Branch(instruction.near_branch_target()),
        FlowControl::UnconditionalBranch => Flow::Jump(instruction.near_branch_target()),
        _ => Flow::End,
    }
}

/// The general registers that an instruction may write, by number.
pub fn written(instruction: &Instruction) -> Vec<u8> {
    if let Flow::Call(_) = flow(instruction) {
        let kept = KEPT.map(number);
        return (0..16)
            .filter(|register| !kept.contains(register))
            .collect();
    }
    let mut factory = InstructionInfoFactory::new();
    let used = factory.info(instruction).used_registers().iter();
    used.filter(|used| is_write(used.access()))
        .map(iced_x86::UsedRegister::register)
        .filter(|register| register.is_gpr())
        .map(number)
        .collect()
}

/// How many bytes an instruction may write to memory. `None` when it writes none.
pub fn stored(instruction: &Instruction) -> Option<i64> {
    let mut factory = InstructionInfoFactory::new();
    let used = factory.info(instruction).used_memory().iter();
    used.filter(|used| is_write(used.access()))
        .map(|used| used.memory_size().size() as i64)
        .max()
}

/// How many bytes of memory an instruction's operand has.
pub fn accessed(instruction: &Instruction) -> i64 {
    instruction.memory_size().size() as i64
}

/// Whether something may be written.
fn is_write(access: OpAccess) -> bool {
    !matches!(
        access,
        OpAccess::None | OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess
    )
}
