// SPDX-License-Identifier: MIT OR Apache-2.0
//! The abstract state: what registers and stack slots may point to.

use std::collections::BTreeMap;

use super::arm64;
use super::x86_64;
use crate::code::Machine;
use crate::code::Register;
use crate::code::Registers;

/// The size of a pointer in bytes.
pub const POINTER_BYTES: i64 = 8;

/// The bound on offsets in a struct, in bytes. No struct of nginx is larger. A pointer that code moves beyond it
/// is dropped.
pub const STRUCT_BYTES_MAX: i64 = 4096;

/// The most pointers that one register or stack slot may hold. Those beyond are dropped. The handlers of
/// nginx's variables choose between four members.
pub const POINTERS_MAX: usize = 8;

/// The most stack slots that hold pointers. Those beyond are dropped. nginx's functions have some ten.
const SLOTS_MAX: usize = 64;

/// An abstract value: what a register or a stack slot points to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pointer {
    /// The function's stack frame, at a distance in bytes from the stack pointer at the entry.
    Stack(i64),
    /// A struct, at an offset in bytes.
    Struct(&'static str, i64),
    /// An address that an instruction states, such as that of a page.
    Address(u64),
    /// No pointer yet: a constant and a multiple of something unknown. Added to the address of an array, it is the
    /// member at this offset in one of its elements.
    Offset(i64),
}

impl Pointer {
    /// Adds a constant. `None` where the sum is outside a struct, or is no longer followed.
    fn plus(self, bytes: i64) -> Option<Self> {
        let sum = match self {
            Self::Stack(at) => Self::Stack(at.wrapping_add(bytes)),
            Self::Struct(name, at) => Self::Struct(name, at.wrapping_add(bytes)),
            Self::Offset(at) => Self::Offset(at.wrapping_add(bytes)),
            Self::Address(_) => return None,
        };
        Some(sum)
    }

    /// Returns whether a register may hold this. A memory operand may be outside, relative to a register that is
    /// inside.
    fn is_inside(self) -> bool {
        match self {
            Self::Stack(_) | Self::Address(_) => true,
            Self::Struct(_, at) | Self::Offset(at) => (0..STRUCT_BYTES_MAX).contains(&at),
        }
    }

    /// Returns whether both point into the stack, or into a struct of the same type, or are of another kind.
    fn is_beside(self, other: Self) -> bool {
        match (self, other) {
            (Self::Struct(one, _), Self::Struct(another, _)) => one == another,
            _ => std::mem::discriminant(&self) == std::mem::discriminant(&other),
        }
    }
}

/// The pointers that a register or a stack slot may hold, by the path on which the code is reached. Empty when
/// nothing is known. On a path for which nothing is known the code is taken to do what it does on the others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pointers(Vec<Pointer>);

impl From<Pointer> for Pointers {
    fn from(pointer: Pointer) -> Self {
        Self(vec![pointer])
    }
}

impl Pointers {
    /// Nothing that is known.
    pub const fn none() -> Self {
        Self(Vec::new())
    }

    /// Returns whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns each pointer.
    pub fn iter(&self) -> impl Iterator<Item = Pointer> {
        self.0.iter().copied()
    }

    /// Adds a constant to each pointer.
    pub fn plus(&self, bytes: i64) -> Self {
        Self(self.iter().filter_map(|one| one.plus(bytes)).collect())
    }

    /// Adds an unknown number: of a struct, this is taken for another element of the same array.
    pub fn plus_unknown(&self) -> Self {
        let is_kept = |one: &Pointer| matches!(one, Pointer::Struct(..) | Pointer::Offset(_));
        Self(self.iter().filter(is_kept).collect())
    }

    /// Adds two registers, which is known if at most one of them is a pointer.
    pub fn plus_each(&self, others: &Self) -> Self {
        if self.is_empty() || others.is_empty() {
            return Self::of_paths([self, others].map(Self::plus_unknown).into_iter());
        }
        let sums = |pointers: &Self, offsets: &Self| {
            let all = offsets.iter().filter_map(|offset| match offset {
                Pointer::Offset(bytes) => Some(pointers.plus_unknown().plus(bytes)),
                _ => None,
            });
            Self::of_paths(all)
        };
        Self::of_paths([sums(self, others), sums(others, self)].into_iter())
    }

    /// Returns those of several paths.
    pub fn of_paths(all: impl Iterator<Item = Self>) -> Self {
        all.reduce(|mut sum, others| {
            sum.merge(&others, Edge::Forward);
            sum
        })
        .unwrap_or_default()
    }

    /// Adds those of another path. Returns whether these are more than before. A path that goes around a loop adds
    /// no pointer beside one that is known: it would be that of the next element of an array.
    pub fn merge(&mut self, others: &Self, edge: Edge) -> bool {
        let before = self.0.len();
        for other in others.iter() {
            let is_next = || edge == Edge::Back && self.iter().any(|own| own.is_beside(other));
            if self.0.len() < POINTERS_MAX && !self.0.contains(&other) && !is_next() {
                self.0.push(other);
            }
        }
        self.0.len() > before
    }
}

/// How control reaches a block from another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    Forward,
    /// Around a loop.
    Back,
}

/// The abstract state before an instruction.
#[derive(Clone, Debug)]
pub struct State {
    /// The value of each register, by number.
    registers: [Pointers; 32],
    /// The values of stack slots, by their distance from the stack pointer at the entry.
    stack: BTreeMap<i64, Pointers>,
}

impl State {
    /// Returns the state at the entry of a function whose first argument points to the struct `argument`.
    pub fn at_entry(machine: Machine, argument: &'static str) -> Self {
        let mut state = Self {
            registers: [const { Pointers::none() }; 32],
            stack: BTreeMap::new(),
        };
        let (stack, first) = match machine {
            Machine::X86_64 => (x86_64::STACK, x86_64::ARGUMENT),
            Machine::Arm64 => (arm64::STACK, arm64::ARGUMENT),
        };
        state.set(stack, Pointer::Stack(0).into());
        state.set(first, Pointer::Struct(argument, 0).into());
        state
    }

    /// Returns what a register may hold.
    pub fn get(&self, register: Register) -> &Pointers {
        &self.registers[usize::from(register)]
    }

    /// Returns what a stack slot may hold.
    pub fn slot(&self, at: i64) -> Option<&Pointers> {
        self.stack.get(&at)
    }

    /// Overwrites a whole register.
    pub fn set(&mut self, register: Register, mut value: Pointers) {
        value.0.retain(|pointer| pointer.is_inside());
        self.registers[usize::from(register)] = value;
    }

    /// Drops what registers hold.
    pub fn forget(&mut self, written: Registers) {
        for (number, value) in self.registers.iter_mut().enumerate() {
            if written >> number & 1 == 1 {
                *value = Pointers::none();
            }
        }
    }

    /// Overwrites `bytes` bytes of memory. Every slot that they reach into is lost, if it is certain that they are
    /// in the stack.
    pub fn store(&mut self, address: &Pointers, bytes: i64, value: &Pointers) {
        if let [Pointer::Stack(at)] = address.0[..] {
            self.stack.retain(|slot, _| {
                slot.saturating_add(POINTER_BYTES) <= at || at.saturating_add(bytes) <= *slot
            });
        }
        for pointer in address.iter() {
            if let Pointer::Stack(at) = pointer {
                self.add_to_slot(at, value, Edge::Forward);
            }
        }
    }

    /// Adds the state of another path. Returns whether this state has more pointers than before.
    pub fn merge(&mut self, other: &Self, edge: Edge) -> bool {
        let mut has_more = false;
        for (ours, theirs) in self.registers.iter_mut().zip(&other.registers) {
            has_more |= ours.merge(theirs, edge);
        }
        for (at, theirs) in &other.stack {
            has_more |= self.add_to_slot(*at, theirs, edge);
        }
        has_more
    }

    /// Adds to what a stack slot may hold. Returns whether that is more than before.
    fn add_to_slot(&mut self, at: i64, value: &Pointers, edge: Edge) -> bool {
        if value.is_empty() {
            return false;
        }
        if let Some(known) = self.stack.get_mut(&at) {
            return known.merge(value, edge);
        }
        let has_room = self.stack.len() < SLOTS_MAX;
        if has_room {
            self.stack.insert(at, value.clone());
        }
        has_room
    }
}
