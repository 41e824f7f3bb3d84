// SPDX-License-Identifier: MIT OR Apache-2.0
//! What arm64's instructions do to what is known.

use super::POINTER_BYTES;
use super::Pointer;
use super::State;
use super::Walk;
use crate::code::Flow;
use crate::code::arm64;
use crate::code::arm64::Access;
use crate::code::arm64::Index;
use crate::code::arm64::Instruction;
use crate::code::arm64::Operation;

/// `sp`
pub const STACK: u8 = arm64::SP;

/// `x0`
pub const ARGUMENT: u8 = 0;

/// Notes what an instruction touches, and what is known behind it. Returns how long it is, and where
/// control goes; `None` when the bytes are none.
pub fn step(
    walk: &mut Walk<'_>,
    address: u64,
    code: &[u8],
    state: &mut State,
) -> Option<(usize, Flow)> {
    let instruction = Instruction::decode(address, code)?;
    match instruction.operation() {
        Operation::Add(to, from, bytes) => {
            let value = state.get(from).map(|pointer| pointer.plus(bytes));
            state.set(to, value);
            if let Some(page) = walk.pages.get(&from) {
                let address = page.wrapping_add_signed(bytes);
                walk.found.addresses.insert(address);
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
            walk.pages.insert(to, address);
            state.set(to, None);
        }
        Operation::Access(access) => run(walk, &access, state),
        other => forget(state, other.writes()),
    }
    Some((arm64::BYTES, instruction.flow()))
}

/// Memory is read or written.
fn run(walk: &mut Walk<'_>, access: &Access, state: &mut State) {
    let address = operand(state, access);
    let base = state.get(access.base);
    let places = [address, address.map(|address| address.plus(access.bytes))];
    let places = if access.is_pair {
        &places[..]
    } else {
        &places[..1]
    };
    for place in places {
        walk.touch(*place, access.bytes);
    }
    let values: Vec<_> = places
        .iter()
        .map(|place| walk.load(state, *place))
        .collect();
    forget(state, access.writes());
    for ((place, register), value) in places.iter().zip(access.values).zip(values) {
        match register {
            Some(register) if access.is_load => state.set(register, value),
            _ if access.is_load => {}
            register => {
                let value = register.and_then(|register| state.get(register));
                state.store(*place, access.bytes, value);
                if let Some(register) = register.filter(|_| access.bytes == POINTER_BYTES) {
                    state.set(register, walk.stored(*place, value));
                }
            }
        }
    }
    let increment = access.increment.filter(|bytes| *bytes != 0);
    if let (Some(base), Some(bytes)) = (base, increment) {
        state.set(access.base, Some(base.plus(bytes)));
    }
}

/// Registers are overwritten.
fn forget(state: &mut State, written: arm64::Registers) {
    for register in (0..32).filter(|register| written & 1 << register != 0) {
        state.set(register, None);
    }
}

/// Where memory is read or written.
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
