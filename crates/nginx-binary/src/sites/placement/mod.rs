// SPDX-License-Identifier: MIT OR Apache-2.0
//! Chooses the instruction of a function that a probe is placed on: one that the kernel emulates instead of
//! single-stepping it (a tenth of the cost), early enough that the arguments are still in registers. The
//! kernel checks none of this: a probe inside an instruction would crash nginx.

use anyhow::Result;
use anyhow::ensure;

use crate::code::Flow;
use crate::code::Machine;
use crate::code::Register;
use crate::code::Registers;
use crate::elf::Function;

mod arm64;
mod x86_64;

/// The instruction that a probe is placed on.
#[derive(Debug, PartialEq, Eq)]
pub struct Placement {
    /// The distance in bytes from the function's first instruction.
    pub offset: u64,
    /// The register that holds each argument before the instruction is executed.
    arguments: Vec<Register>,
    machine: Machine,
    /// True when the kernel emulates the instruction. Otherwise it single-steps it.
    pub is_emulated: bool,
    /// The mnemonic of the instruction.
    pub mnemonic: String,
}

impl Placement {
    /// Returns the registers of the arguments as BPF reads them (`bpf/arg.bpf.h`): one byte for each argument,
    /// the first one lowest.
    pub fn cookie(&self) -> u64 {
        let numbers = self.arguments.iter().rev();
        numbers.fold(0, |cookie, number| cookie << 8 | u64::from(*number))
    }

    /// Returns the names of these registers: `rdi`.
    pub fn register_names(&self) -> Vec<String> {
        let numbers = self.arguments.iter();
        let name = |number: &Register| register_name(self.machine, *number);
        numbers.map(name).collect()
    }
}

/// Returns the name of the register that has this number in `bpf/arg.bpf.h`: `rdi`, `x0`.
pub fn register_name(machine: Machine, number: Register) -> String {
    match machine {
        Machine::X86_64 => x86_64::register_name(number),
        Machine::Arm64 => arm64::register_name(number),
    }
}

/// One instruction with what the placement of a probe depends on.
struct DecodedInstruction {
    address: u64,
    mnemonic: String,
    /// True when the kernel emulates the instruction under a probe.
    is_emulated: bool,
    /// True when the kernel refuses a probe on the instruction.
    is_refused: bool,
    flow: Flow,
    /// The destination and the source, if it copies one register to another.
    copy: Option<(Register, Register)>,
    /// The registers that it may write.
    writes: Registers,
}

/// Returns the first emulated instruction of the straight-line code from the entry at which the first
/// `arguments` arguments (1 or 2) are still in registers, or else the entry itself.
///
/// Calls are skipped when the process may have a shadow stack: kernels that emulate a call do not push the
/// return address there, and the process would be killed (`branch_emulate_op()` in
/// arch/x86/kernel/uprobes.c).
///
/// # Errors
///
/// Fails when the function's code does not decode, or when the kernel refuses a probe on its entry.
pub fn place_probe(
    machine: Machine,
    function: &Function<'_>,
    arguments: usize,
    has_shadow_stack: bool,
) -> Result<Placement> {
    let code = decode(machine, function)?;
    let mut live = ArgumentRegisters::at_entry(machine, arguments);
    for instruction in &code {
        let offset = instruction.address - function.address;
        let Some(arguments) = live.registers() else {
            break;
        };
        let is_safe = !has_shadow_stack || !matches!(instruction.flow, Flow::Call(_));
        if instruction.is_emulated && is_safe {
            if is_branched_into(&code, function.address, offset) {
                break;
            }
            return Ok(placement_at(machine, instruction, offset, arguments));
        }
        if instruction.flow != Flow::Next {
            break;
        }
        live.update(instruction);
    }
    let entry = &code[0];
    ensure!(
        !entry.is_refused,
        "the kernel refuses a probe on the instruction at its entry"
    );
    Ok(placement_at(
        machine,
        entry,
        0,
        ArgumentRegisters::at_entry(machine, arguments).abi_registers(),
    ))
}

/// Returns the target of the jump that leaves the function at the end of its straight-line code, with the
/// arguments in the registers of the calling convention. `None` when there is no such jump, or when the
/// code before it can be jumped into.
///
/// # Errors
///
/// Fails when the function's code does not decode.
pub fn tail_jump(
    machine: Machine,
    function: &Function<'_>,
    arguments: usize,
) -> Result<Option<u64>> {
    let code = decode(machine, function)?;
    let end = function.address + function.code.len() as u64;
    let mut live = ArgumentRegisters::at_entry(machine, arguments);
    for instruction in &code {
        match instruction.flow {
            Flow::Next | Flow::Call(_) | Flow::Branch(_) => live.update(instruction),
            Flow::Jump(target) => {
                let offset = instruction.address - function.address;
                let is_tail = !(function.address..end).contains(&target)
                    && live.all_in_abi_registers()
                    && !is_branched_into(&code, function.address, offset);
                return Ok(is_tail.then_some(target));
            }
            Flow::End => break,
        }
    }
    Ok(None)
}

fn placement_at(
    machine: Machine,
    instruction: &DecodedInstruction,
    offset: u64,
    arguments: Vec<Register>,
) -> Placement {
    Placement {
        offset,
        arguments,
        machine,
        is_emulated: instruction.is_emulated,
        mnemonic: instruction.mnemonic.clone(),
    }
}

/// Decodes the whole function. Fails at the first bytes that are not an instruction.
fn decode(machine: Machine, function: &Function<'_>) -> Result<Vec<DecodedInstruction>> {
    let code = match machine {
        Machine::X86_64 => x86_64::decode(function)?,
        Machine::Arm64 => arm64::decode(function)?,
    };
    ensure!(!code.is_empty(), "the function is empty");
    Ok(code)
}

/// Returns whether the function jumps into the code after its entry up to `offset`. A probe at `offset` could
/// then be hit twice in one call, or not at all.
fn is_branched_into(code: &[DecodedInstruction], address: u64, offset: u64) -> bool {
    code.iter().any(|instruction| match instruction.flow {
        Flow::Branch(target) | Flow::Jump(target) | Flow::Call(Some(target)) => {
            target > address && target <= address + offset
        }
        _ => false,
    })
}

/// The registers that hold each argument, updated instruction by instruction.
struct ArgumentRegisters {
    /// The register of each argument in the calling convention.
    abi_registers: &'static [Register],
    /// The registers that hold each argument now.
    registers: Vec<Vec<Register>>,
}

impl ArgumentRegisters {
    fn at_entry(machine: Machine, count: usize) -> Self {
        let abi_registers = match machine {
            Machine::X86_64 => &x86_64::ARGUMENTS,
            Machine::Arm64 => &arm64::ARGUMENTS,
        };
        let abi_registers = &abi_registers[..count.min(abi_registers.len())];
        Self {
            abi_registers,
            registers: abi_registers.iter().map(|home| vec![*home]).collect(),
        }
    }

    fn abi_registers(&self) -> Vec<Register> {
        self.abi_registers.to_vec()
    }

    /// Returns whether each argument is still in its register of the calling convention.
    fn all_in_abi_registers(&self) -> bool {
        let mut arguments = self.registers.iter().zip(self.abi_registers);
        arguments.all(|(registers, home)| registers.contains(home))
    }

    /// Returns one register for each argument. `None` when an argument is lost.
    fn registers(&self) -> Option<Vec<Register>> {
        let firsts = self.registers.iter();
        firsts.map(|registers| registers.first().copied()).collect()
    }

    /// Applies an instruction: written registers are dropped, the destination of a copy is added.
    fn update(&mut self, instruction: &DecodedInstruction) {
        for registers in &mut self.registers {
            let gained = instruction
                .copy
                .filter(|(_, from)| registers.contains(from));
            registers.retain(|register| instruction.writes & 1 << register == 0);
            if let Some((to, _)) = gained {
                registers.push(to);
            }
        }
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
