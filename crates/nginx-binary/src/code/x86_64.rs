// SPDX-License-Identifier: MIT OR Apache-2.0
//! x86-64 instructions, decoded by iced-x86: the control flow, the general registers that they write, and
//! the memory that they access.

use iced_x86::FlowControl;
use iced_x86::Instruction;
use iced_x86::InstructionInfoFactory;
use iced_x86::OpAccess;
use iced_x86::Register;

use crate::code::Flow;
use crate::code::Registers;

/// The registers that a call preserves (System V ABI), with the stack pointer.
const KEPT: [Register; 7] = [
    Register::RBX,
    Register::RSP,
    Register::RBP,
    Register::R12,
    Register::R13,
    Register::R14,
    Register::R15,
];

/// All general registers.
const ALL: Registers = 0xffff;

/// Returns the number of a general register, 0 to 15; of a part of a register (`eax`, `al`) that of the
/// whole.
pub fn number(register: Register) -> u8 {
    register.full_register().number() as u8
}

/// Returns the instruction that control goes to after an instruction.
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

/// What an instruction may write.
#[derive(Clone, Copy, Debug)]
pub struct Writes {
    /// The general registers.
    pub registers: Registers,
    /// The most bytes that it writes to memory at one place. `None` when it writes none.
    pub bytes: Option<i64>,
}

/// Returns what an instruction may write.
pub fn writes(instruction: &Instruction) -> Writes {
    let mut factory = InstructionInfoFactory::new();
    let info = factory.info(instruction);
    let memory = info.used_memory().iter();
    let stored = memory.filter(|used| is_write(used.access()));
    let registers = if let Flow::Call(_) = flow(instruction) {
        !set_of(KEPT.into_iter()) & ALL
    } else {
        let used = info.used_registers().iter();
        let written = used.filter(|used| is_write(used.access()));
        let written = written.map(iced_x86::UsedRegister::register);
        set_of(written.filter(|register| register.is_gpr()))
    };
    Writes {
        registers,
        bytes: stored.map(|used| used.memory_size().size() as i64).max(),
    }
}

fn set_of(registers: impl Iterator<Item = Register>) -> Registers {
    registers.fold(0, |all, register| all | 1 << number(register))
}

/// Returns the size in bytes of an instruction's memory operand. 0 when it has none.
pub fn accessed(instruction: &Instruction) -> i64 {
    instruction.memory_size().size() as i64
}

fn is_write(access: OpAccess) -> bool {
    !matches!(
        access,
        OpAccess::None | OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess
    )
}
