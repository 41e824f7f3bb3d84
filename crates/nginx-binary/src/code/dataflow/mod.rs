// SPDX-License-Identifier: MIT OR Apache-2.0
//! Dataflow analysis: the struct members that a function of nginx accesses. The abstract state maps
//! registers and stack slots to pointers into nginx's structs. A worklist carries it along every path;
//! where paths join, the meet keeps what both agree on, so the analysis reaches a fixed point. No code is
//! run.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::HashMap;
use std::rc::Rc;

use crate::code::Flow;
use crate::code::Machine;
use crate::code::Register;

mod arm64;
mod x86_64;

/// The most instructions that are analyzed. The functions that are asked for have some hundred.
const STEPS_MAX: u32 = 20_000;

/// The size of a pointer in bytes.
const POINTER_BYTES: i64 = 8;

/// The bound on offsets in a struct, in bytes. No struct of nginx is larger. A pointer that a loop moves
/// through an array is dropped at this offset.
const STRUCT_BYTES_MAX: i64 = 4096;

/// A member: the C name of a struct, and an offset in it in bytes.
pub type MemberByte = (&'static str, i64);

/// An abstract value: what a register or a stack slot is known to point to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pointer {
    /// The function's stack frame, at a distance in bytes from the stack pointer at the entry.
    Stack(i64),
    /// A struct, at an offset in bytes.
    Struct(&'static str, i64),
}

impl Pointer {
    /// Adds a constant.
    fn plus(self, bytes: i64) -> Self {
        match self {
            Self::Stack(at) => Self::Stack(at.wrapping_add(bytes)),
            Self::Struct(name, at) => Self::Struct(name, at.wrapping_add(bytes)),
        }
    }

    /// Adds an unknown number: of a struct, this is taken for another element of the same array.
    fn plus_unknown(self) -> Option<Self> {
        Some(self).filter(|pointer| matches!(pointer, Self::Struct(..)))
    }
}

/// The abstract state before an instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
struct State {
    /// The value of each register, by number.
    registers: [Option<Pointer>; 32],
    /// The values of stack slots, by their distance from the stack pointer at the entry.
    stack: BTreeMap<i64, Pointer>,
}

impl State {
    /// Returns the state at the entry of a function whose first argument points to the struct `argument`.
    fn at_entry(machine: Machine, argument: &'static str) -> Self {
        let mut state = Self {
            registers: [None; 32],
            stack: BTreeMap::new(),
        };
        let (stack, first) = match machine {
            Machine::X86_64 => (x86_64::STACK, x86_64::ARGUMENT),
            Machine::Arm64 => (arm64::STACK, arm64::ARGUMENT),
        };
        state.set(stack, Some(Pointer::Stack(0)));
        state.set(first, Some(Pointer::Struct(argument, 0)));
        state
    }

    fn get(&self, register: Register) -> Option<Pointer> {
        self.registers[usize::from(register)]
    }

    /// Overwrites a whole register.
    fn set(&mut self, register: Register, value: Option<Pointer>) {
        let is_inside = |pointer: &Pointer| match pointer {
            Pointer::Stack(_) => true,
            Pointer::Struct(_, at) => (0..STRUCT_BYTES_MAX).contains(at),
        };
        self.registers[usize::from(register)] = value.filter(is_inside);
    }

    /// Overwrites `bytes` bytes of memory. Every slot that they reach into is lost.
    fn store(&mut self, address: Option<Pointer>, bytes: i64, value: Option<Pointer>) {
        if let Some(Pointer::Stack(at)) = address {
            self.stack.retain(|slot, _| {
                slot.saturating_add(POINTER_BYTES) <= at || at.saturating_add(bytes) <= *slot
            });
            if let Some(value) = value {
                self.stack.insert(at, value);
            }
        }
    }

    /// Dataflow meet: keeps what both paths agree on. Returns true if this state lost information.
    fn meet(&mut self, other: &Self) -> bool {
        let before = self.clone();
        for (ours, theirs) in self.registers.iter_mut().zip(&other.registers) {
            *ours = ours.filter(|_| ours == theirs);
        }
        self.stack
            .retain(|at, ours| other.stack.get(at) == Some(ours));
        *self != before
    }
}

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
        }
        Some(Rc::new(sum))
    }
}

/// Analyzes the function at `address` whose first argument points to the struct `argument`. `code_from`
/// returns the code from an address on, `follow` the struct that a member points to. At most
/// `STEPS_MAX` instructions are analyzed; code that does not decode ends a path.
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
        pages: HashMap::new(),
    };
    let transfer = match machine {
        Machine::X86_64 => x86_64::transfer,
        Machine::Arm64 => arm64::transfer,
    };
    let mut before: HashMap<u64, State> = HashMap::new();
    let mut worklist = vec![(address, State::at_entry(machine, argument))];
    let mut steps = 0;
    while let Some((mut address, mut state)) = worklist.pop() {
        let mut code = code_from(address).unwrap_or_default();
        while steps < STEPS_MAX {
            steps += 1;
            if let Some(known) = before.get_mut(&address) {
                if !known.meet(&state) {
                    break;
                }
                state.clone_from(known);
            } else {
                before.insert(address, state.clone());
            }
            let Some((bytes, flow)) = transfer(&mut analysis, address, code, &mut state) else {
                break;
            };
            match flow {
                Flow::Next | Flow::Call(_) => {}
                Flow::Branch(target) => worklist.push((target, state.clone())),
                Flow::Jump(target) => {
                    worklist.push((target, state));
                    break;
                }
                Flow::End => break,
            }
            address += bytes as u64;
            code = &code[bytes..];
        }
    }
    analysis.effects
}

/// The analysis of one function.
struct Analysis<'a> {
    /// Returns the struct that a member points to.
    follow: &'a dyn Fn(MemberByte) -> Option<&'static str>,
    effects: FunctionEffects,
    /// The address that an `adr` or `adrp` last wrote to a register, by the register.
    pages: HashMap<Register, u64>,
}

impl Analysis<'_> {
    /// Records an access to `bytes` bytes of memory.
    fn touch(&mut self, address: Option<Pointer>, bytes: i64) {
        if let Some(Pointer::Struct(name, at)) = address {
            self.effects.touched.insert((name, at));
            if bytes < POINTER_BYTES {
                self.effects.narrow.insert((name, at));
            }
        }
    }

    /// Records the computation of an address.
    fn locate(&mut self, address: Option<Pointer>) {
        if let Some(Pointer::Struct(name, at)) = address {
            self.effects.located.insert((name, at));
        }
    }

    /// Returns the value of a register after it was stored. If it was unknown and the member points to a
    /// struct, it must point to that struct: nginx allocates an upstream, then stores it.
    fn stored(&self, address: Option<Pointer>, value: Option<Pointer>) -> Option<Pointer> {
        value.or_else(|| match address? {
            Pointer::Stack(_) => None,
            Pointer::Struct(name, at) => {
                (self.follow)((name, at)).map(|name| Pointer::Struct(name, 0))
            }
        })
    }

    /// Loads a pointer from memory.
    fn load(&self, state: &State, address: Option<Pointer>) -> Option<Pointer> {
        match address? {
            Pointer::Stack(at) => state.stack.get(&at).copied(),
            Pointer::Struct(name, at) => {
                (self.follow)((name, at)).map(|name| Pointer::Struct(name, 0))
            }
        }
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
