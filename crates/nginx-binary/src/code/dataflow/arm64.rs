// SPDX-License-Identifier: MIT OR Apache-2.0
//! The transfer function of arm64.

use super::Analysis;
use super::graph::Step;
use super::state::POINTER_BYTES;
use super::state::Pointer;
use super::state::Pointers;
use super::state::State;
use crate::code::Register;
use crate::code::arm64;
use crate::code::arm64::Access;
use crate::code::arm64::Index;
use crate::code::arm64::Instruction;
use crate::code::arm64::Operation;

/// The stack pointer, `sp`.
pub const STACK: Register = arm64::SP;

/// The first argument, `x0`.
pub const ARGUMENT: Register = 0;

/// Decodes an instruction. `None` when it is invalid.
pub fn step(address: u64, code: &[u8]) -> Option<Step> {
    Instruction::decode(address, code).map(|instruction| (arm64::BYTES, instruction.flow()))
}

/// Applies one instruction to the state, and records its effects. Returns its length in bytes.
pub fn transfer(
    analysis: &mut Analysis<'_>,
    address: u64,
    code: &[u8],
    state: &mut State,
) -> usize {
    if let Some(instruction) = Instruction::decode(address, code) {
        apply(analysis, instruction.operation(), state);
    }
    arm64::BYTES
}

/// Applies what an instruction does to the state, and records its effects.
fn apply(analysis: &mut Analysis<'_>, operation: Operation, state: &mut State) {
    match operation {
        Operation::Add(to, from, bytes) => {
            for pointer in state.get(from).iter() {
                if let Pointer::Address(page) = pointer {
                    let address = page.wrapping_add_signed(bytes);
                    analysis.effects.addresses.insert(address);
                }
            }
            let sum = state.get(from).plus(bytes);
            if bytes != 0 {
                analysis.locate(&sum);
            }
            state.set(to, sum);
        }
        Operation::Sum(to, from) => {
            let from = from.into_iter().flatten();
            let values = from.map(|register| state.get(register));
            let mut known = values.filter(|value| !value.is_empty());
            let sum = match (known.next(), known.next()) {
                (Some(pointers), None) => pointers.plus_unknown(),
                _ => Pointers::none(),
            };
            state.set(to, sum);
        }
        Operation::Select(to, from) => {
            let from = from.into_iter().flatten();
            let choices = from.map(|register| state.get(register).clone());
            state.set(to, Pointers::of_paths(choices));
        }
        Operation::Address(to, address) => state.set(to, Pointer::Address(address).into()),
        Operation::Access(access) => apply_access(analysis, &access, state),
        other @ Operation::Other(_) => state.forget(other.writes()),
    }
}

/// Applies a load, a store or an atomic instruction.
fn apply_access(analysis: &mut Analysis<'_>, access: &Access, state: &mut State) {
    let address = operand(state, access);
    let base = state.get(access.base).clone();
    let second = address.plus(access.bytes);
    let mut places = vec![address];
    places.extend(access.is_pair.then_some(second));
    for place in &places {
        analysis.touch(place, access.bytes);
    }
    let values: Vec<Pointers> = places
        .iter()
        .map(|place| analysis.load(state, place))
        .collect();
    state.forget(access.writes());
    for ((place, register), value) in places.iter().zip(access.values).zip(values) {
        if access.is_store {
            let value = register.map(|register| state.get(register).clone());
            let value = value.unwrap_or_default();
            state.store(place, access.bytes, &value);
            if let Some(register) = register.filter(|_| access.bytes == POINTER_BYTES) {
                state.set(register, analysis.stored(place, value));
            }
        } else if let Some(register) = register {
            state.set(register, value);
        }
    }
    if let Some(bytes) = access.increment.filter(|bytes| *bytes != 0)
        && !base.is_empty()
    {
        state.set(access.base, base.plus(bytes));
    }
}

/// Returns the value of an address.
fn operand(state: &State, access: &Access) -> Pointers {
    let base = state.get(access.base);
    let pointers = match (base.is_empty(), access.index) {
        (false, Index::None) => base.clone(),
        (false, _) => base.plus_unknown(),
        (true, Index::Whole(index)) => state.get(index).plus_unknown(),
        (true, _) => return Pointers::none(),
    };
    pointers.plus(access.displacement)
}
