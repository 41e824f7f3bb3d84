// SPDX-License-Identifier: MIT OR Apache-2.0
//! The transfer function of arm64.

use super::Analysis;
use super::POINTER_BYTES;
use super::Pointer;
use super::State;
use crate::code::Flow;
use crate::code::Register;
use crate::code::Registers;
use crate::code::arm64;
use crate::code::arm64::Access;
use crate::code::arm64::Index;
use crate::code::arm64::Instruction;
use crate::code::arm64::Operation;

/// The stack pointer, `sp`.
pub const STACK: Register = arm64::SP;

/// The first argument, `x0`.
pub const ARGUMENT: Register = 0;

/// Applies one instruction to the state, and records its effects. Returns its length in bytes and its
/// control flow; `None` when the code does not decode.
pub fn transfer(
    analysis: &mut Analysis<'_>,
    address: u64,
    code: &[u8],
    state: &mut State,
) -> Option<(usize, Flow)> {
    let instruction = Instruction::decode(address, code)?;
    match instruction.operation() {
        Operation::Add(to, from, bytes) => {
            let value = state.get(from).map(|pointer| pointer.plus(bytes));
            state.set(to, value);
            if bytes != 0 {
                analysis.locate(value);
            }
            if let Some(page) = analysis.pages.get(&from) {
                let address = page.wrapping_add_signed(bytes);
                analysis.effects.addresses.insert(address);
            }
        }
        Operation::Sum(to, from) => {
            let known = from.map(|register| state.get(register?));
            state.set(
                to,
                match known {
                    [Some(pointer), None] | [None, Some(pointer)] => pointer.plus_unknown(),
                    _ => None,
                },
            );
        }
        Operation::Address(to, address) => {
            analysis.pages.insert(to, address);
            state.set(to, None);
        }
        Operation::Access(access) => apply_access(analysis, &access, state),
        other => forget(state, other.writes()),
    }
    Some((arm64::BYTES, instruction.flow()))
}

/// Applies a load, a store or an atomic instruction.
fn apply_access(analysis: &mut Analysis<'_>, access: &Access, state: &mut State) {
    let address = operand(state, access);
    let base = state.get(access.base);
    let places = [address, address.map(|address| address.plus(access.bytes))];
    let places = if access.is_pair {
        &places[..]
    } else {
        &places[..1]
    };
    for place in places {
        analysis.touch(*place, access.bytes);
    }
    let values: Vec<_> = places
        .iter()
        .map(|place| analysis.load(state, *place))
        .collect();
    forget(state, access.writes());
    for ((place, register), value) in places.iter().zip(access.values).zip(values) {
        if access.is_store {
            let value = register.and_then(|register| state.get(register));
            state.store(*place, access.bytes, value);
            if let Some(register) = register.filter(|_| access.bytes == POINTER_BYTES) {
                state.set(register, analysis.stored(*place, value));
            }
        } else if let Some(register) = register {
            state.set(register, value);
        }
    }
    let increment = access.increment.filter(|bytes| *bytes != 0);
    if let (Some(base), Some(bytes)) = (base, increment) {
        state.set(access.base, Some(base.plus(bytes)));
    }
}

fn forget(state: &mut State, written: Registers) {
    for register in (0..32).filter(|register| written & 1 << register != 0) {
        state.set(register, None);
    }
}

/// Returns the value of an address.
fn operand(state: &State, access: &Access) -> Option<Pointer> {
    let base = state.get(access.base);
    let pointer = match (base, access.index) {
        (Some(base), Index::None) => base,
        (Some(base), _) => base.plus_unknown()?,
        (None, Index::Whole(index)) => state.get(index)?.plus_unknown()?,
        (None, _) => return None,
    };
    Some(pointer.plus(access.displacement))
}
