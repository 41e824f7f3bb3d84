// SPDX-License-Identifier: MIT OR Apache-2.0
//! Dataflow analysis: the struct members that a function of nginx accesses. The abstract state maps
//! registers and stack slots to pointers into nginx's structs. It is carried along every path; where
//! paths join, it keeps the pointers of each, up to a bound, so that the analysis reaches a fixed point. No code
//! is run.

use std::collections::BTreeSet;
use std::rc::Rc;

use crate::code::Flow;
use crate::code::Machine;
use state::Pointer;
use state::Pointers;
use state::State;

mod arm64;
mod graph;
mod state;
mod x86_64;

/// The most instructions of a function that are decoded. The functions that are asked for have up to 2,500, with
/// those that they jump to.
const INSTRUCTIONS_MAX: usize = 20_000;

/// The most steps of the analysis of a function. nginx's functions take up to 12,000.
const STEPS_MAX: usize = 50_000;

/// The steps that an edge between blocks counts for, while an instruction is one: the states before and after it are
/// merged.
const EDGE_STEPS: usize = 8;

/// A member: the C name of a struct, and an offset in it in bytes.
pub type MemberByte = (&'static str, i64);

/// The effects of a function, as far as the analysis could follow it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FunctionEffects {
    /// The members that the function reads or writes.
    pub touched: BTreeSet<MemberByte>,
    /// The members that it reads or writes with fewer bytes than a pointer has.
    pub narrow: BTreeSet<MemberByte>,
    /// The members whose addresses it computes, to pass them on or to access them later.
    pub located: BTreeSet<MemberByte>,
    /// The addresses that it computes relative to its own code: of functions and of data.
    pub addresses: BTreeSet<u64>,
    /// The constants that it loads, which may be addresses in a binary that is not relocated.
    pub constants: BTreeSet<u64>,
    /// The addresses of the words that it loads into vector registers. Compilers keep pointers there of which the
    /// code stores two at once.
    pub pooled: BTreeSet<u64>,
}

impl FunctionEffects {
    /// Returns whether any member of the struct is accessed.
    pub fn has(&self, name: &str) -> bool {
        self.touched.iter().any(|(touched, _)| *touched == name)
    }

    /// Returns the union of the effects of several functions. `None` when there is no function.
    pub fn union(all: &[Rc<Self>]) -> Option<Rc<Self>> {
        let [first, rest @ ..] = all else {
            return None;
        };
        if rest.is_empty() {
            return Some(Rc::clone(first));
        }
        let mut sum = Self::clone(first);
        for effects in rest {
            sum.touched.extend(&effects.touched);
            sum.narrow.extend(&effects.narrow);
            sum.located.extend(&effects.located);
            sum.addresses.extend(&effects.addresses);
            sum.constants.extend(&effects.constants);
            sum.pooled.extend(&effects.pooled);
        }
        Some(Rc::new(sum))
    }
}

/// Analyzes the function at `address` whose first argument points to the struct `argument`. `code_from`
/// returns the code from an address on, `follow` the struct that a member points to. The
/// analysis ends after `STEPS_MAX` steps; code that does not decode ends a path.
pub fn analyze<'data>(
    machine: Machine,
    code_from: &dyn Fn(u64) -> Option<&'data [u8]>,
    address: u64,
    argument: &'static str,
    follow: &dyn Fn(MemberByte) -> Option<&'static str>,
) -> FunctionEffects {
    let mut analysis = Analysis {
        follow,
        effects: FunctionEffects::default(),
    };
    let transfer: Transfer = match machine {
        Machine::X86_64 => x86_64::transfer,
        Machine::Arm64 => arm64::transfer,
    };
    let blocks = graph::blocks(code_from, decoder(machine), address, INSTRUCTIONS_MAX);
    let mut before: Vec<Option<State>> = vec![None; blocks.len()];
    before[0] = Some(State::at_entry(machine, argument));
    let mut waiting = BTreeSet::from([0]);
    let mut steps = 0;
    while let Some(number) = waiting.pop_first() {
        let block = &blocks[number];
        steps += block.length + EDGE_STEPS * block.successors.len();
        let Some(mut state) = before[number].clone().filter(|_| steps <= STEPS_MAX) else {
            break;
        };
        let mut code = code_from(block.address).unwrap_or_default();
        let mut address = block.address;
        for _ in 0..block.length {
            let bytes = transfer(&mut analysis, address, code, &mut state);
            address += bytes as u64;
            code = &code[bytes..];
        }
        for (successor, edge) in &block.successors {
            let has_more = match &mut before[*successor] {
                Some(known) => known.merge(&state, *edge),
                unknown => {
                    *unknown = Some(state.clone());
                    true
                }
            };
            if has_more {
                waiting.insert(*successor);
            }
        }
    }
    analysis.effects
}

/// Returns the addresses of the functions that the function at `address` calls, as far as its code states them.
pub fn calls<'data>(
    machine: Machine,
    code_from: &dyn Fn(u64) -> Option<&'data [u8]>,
    address: u64,
) -> BTreeSet<u64> {
    let step = decoder(machine);
    let mut found = BTreeSet::new();
    for block in graph::blocks(code_from, step, address, INSTRUCTIONS_MAX) {
        let mut address = block.address;
        let mut code = code_from(address).unwrap_or_default();
        for _ in 0..block.length {
            let Some((bytes, flow)) = step(address, code) else {
                break;
            };
            if let Flow::Call(Some(function)) = flow {
                found.insert(function);
            }
            address += bytes as u64;
            code = &code[bytes..];
        }
    }
    found
}

/// Returns how many bytes of the code at an address are instructions, up to the first that is none.
pub fn decodable(machine: Machine, address: u64, code: &[u8]) -> usize {
    let step = decoder(machine);
    let mut length = 0;
    while let Some((bytes, _)) = step(address + length as u64, &code[length..]) {
        length += bytes;
    }
    length
}

/// Returns the decoder of a machine's instructions.
fn decoder(machine: Machine) -> graph::Decode {
    match machine {
        Machine::X86_64 => x86_64::step,
        Machine::Arm64 => arm64::step,
    }
}

/// Applies one instruction to the state, and records its effects. Returns its length in bytes.
type Transfer = fn(&mut Analysis<'_>, u64, &[u8], &mut State) -> usize;

/// The analysis of one function.
struct Analysis<'a> {
    /// Returns the struct that a member points to.
    follow: &'a dyn Fn(MemberByte) -> Option<&'static str>,
    effects: FunctionEffects,
}

impl Analysis<'_> {
    /// Records an access to `bytes` bytes of memory.
    fn touch(&mut self, address: &Pointers, bytes: i64) {
        for pointer in address.iter() {
            if let Pointer::Struct(name, at) = pointer {
                self.effects.touched.insert((name, at));
                if bytes < state::POINTER_BYTES {
                    self.effects.narrow.insert((name, at));
                }
            }
        }
    }

    /// Records the computation of an address.
    fn locate(&mut self, address: &Pointers) {
        for pointer in address.iter() {
            if let Pointer::Struct(name, at) = pointer {
                self.effects.located.insert((name, at));
            }
        }
    }

    /// Returns the value of a register after it was stored. If it was unknown and the member points to a
    /// struct, it must point to that struct: nginx allocates an upstream, then stores it.
    fn stored(&self, address: &Pointers, value: Pointers) -> Pointers {
        if !value.is_empty() {
            return value;
        }
        let members = address.iter();
        let targets = members.filter_map(|pointer| self.target(pointer));
        Pointers::of_paths(targets.map(Pointers::from))
    }

    /// Loads a pointer from memory.
    fn load(&self, state: &State, address: &Pointers) -> Pointers {
        Pointers::of_paths(address.iter().filter_map(|pointer| match pointer {
            Pointer::Stack(at) => state.slot(at).cloned(),
            _ => self.target(pointer).map(Pointers::from),
        }))
    }

    /// Returns what a member points to. `None` when it does not point to a struct.
    fn target(&self, member: Pointer) -> Option<Pointer> {
        match member {
            Pointer::Struct(name, at) => {
                (self.follow)((name, at)).map(|name| Pointer::Struct(name, 0))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
