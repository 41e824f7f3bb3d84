// SPDX-License-Identifier: MIT OR Apache-2.0
//! arm64's instructions, as far as a probe is concerned.

use anyhow::Context as _;
use anyhow::Result;

use super::Instruction;
use super::Register;
use crate::arm64;
use crate::arm64::Operation;
use crate::elf::Function;

/// Registers of the first arguments in the procedure call standard: `x0`, `x1`.
pub const ARGUMENTS: [Register; 2] = [0, 1];

/// `x0`
pub fn name(number: Register) -> String {
    format!("x{number}")
}

/// All instructions of a function. Fails at the first bytes that are none.
pub fn decode(function: &Function<'_>) -> Result<Vec<Instruction>> {
    let words = function.code.chunks(arm64::BYTES);
    let addresses = (function.address..).step_by(arm64::BYTES);
    let instructions = addresses.zip(words).map(|(address, bytes)| {
        let instruction = arm64::Instruction::decode(address, bytes)
            .with_context(|| format!("no instruction at {address:#x}"))?;
        let operation = instruction.operation();
        Ok(Instruction {
            address,
            mnemonic: instruction.mnemonic().to_owned(),
            is_emulated: instruction.is_emulated(),
            is_refused: instruction.is_refused(),
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
