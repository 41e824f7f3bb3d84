// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which members a function of nginx touches: its code is followed along every branch, with what is
//! known of each register, as a pointer into one of nginx's structs. Nothing is run. Where branches
//! meet, what both agree in stays known, so that every instruction is looked at a few times only.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::HashMap;
use std::rc::Rc;

use crate::code::Flow;
use crate::code::Machine;

/// What arm64's instructions do.
mod arm64;
/// What x86-64's instructions do.
mod x86_64;

/// Instructions that are followed; the functions asked about have some hundred.
const STEPS_MAX: u32 = 20_000;

/// Bytes of a pointer.
const POINTER_BYTES: i64 = 8;

/// Larger than any struct of nginx: what runs through an array ends here.
const STRUCT_BYTES_MAX: i64 = 4096;

/// A struct, by its C name, and a byte in it.
pub type Touched = (&'static str, i64);

/// A general register, by number.
type Register = u8;

/// What a register or a place on the stack is known to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pointer {
    /// Into the function's own frame: bytes from where the stack pointer is at its entry.
    Stack(i64),
    /// Into a struct: bytes from its beginning.
    Struct(&'static str, i64),
}

impl Pointer {
    /// So many bytes further on.
    fn plus(self, bytes: i64) -> Self {
        match self {
            Self::Stack(at) => Self::Stack(at.wrapping_add(bytes)),
            Self::Struct(name, at) => Self::Struct(name, at.wrapping_add(bytes)),
        }
    }

    /// So many bytes further on as no one knows: another element of the same array.
    fn plus_unknown(self) -> Option<Self> {
        Some(self).filter(|pointer| matches!(pointer, Self::Struct(..)))
    }
}

/// What is known before an instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
struct State {
    /// By number.
    registers: [Option<Pointer>; 32],
    /// By bytes from where the stack pointer is at the entry.
    stack: BTreeMap<i64, Pointer>,
}

impl State {
    /// At the entry of a function whose first argument points to `argument`.
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

    /// What a register holds.
    fn get(&self, register: Register) -> Option<Pointer> {
        self.registers[usize::from(register)]
    }

    /// A whole register is written.
    fn set(&mut self, register: Register, value: Option<Pointer>) {
        let is_inside = |pointer: &Pointer| match pointer {
            Pointer::Stack(_) => true,
            Pointer::Struct(_, at) => (0..STRUCT_BYTES_MAX).contains(at),
        };
        self.registers[usize::from(register)] = value.filter(is_inside);
    }

    /// So many bytes are written to memory: a pointer, or what is none.
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

    /// What is known wherever one comes from: of this and of another way here. Whether anything of
    /// this is lost by it.
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

/// What was seen of a function.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reads {
    /// The members that it reads or writes.
    pub touched: BTreeSet<Touched>,
    /// Those of them that it reads or writes with fewer bytes than a pointer has.
    pub narrow: BTreeSet<Touched>,
    /// The addresses that it computes from its own: of functions, and of data.
    pub addresses: BTreeSet<u64>,
    /// The constants that it loads, which are addresses in a binary that is not relocated.
    pub constants: BTreeSet<u64>,
}

impl Reads {
    /// Whether any member of a struct is touched.
    pub fn has(&self, name: &str) -> bool {
        self.touched.iter().any(|(touched, _)| *touched == name)
    }

    /// What several functions do together. `None` of no function.
    pub fn of_all(all: &[Rc<Self>]) -> Option<Rc<Self>> {
        let [first, rest @ ..] = all else {
            return None;
        };
        if rest.is_empty() {
            return Some(Rc::clone(first));
        }
        let mut sum = Self::clone(first);
        for reads in rest {
            sum.touched.extend(&reads.touched);
            sum.narrow.extend(&reads.narrow);
            sum.addresses.extend(&reads.addresses);
            sum.constants.extend(&reads.constants);
        }
        Some(Rc::new(sum))
    }
}

/// What a function does whose first argument points to `argument`, at `address`. `code_from` has
/// the code from an address on, `follow` tells which struct a member points to.
pub fn of<'data>(
    machine: Machine,
    code_from: &dyn Fn(u64) -> Option<&'data [u8]>,
    address: u64,
    argument: &'static str,
    follow: &dyn Fn(Touched) -> Option<&'static str>,
) -> Reads {
    let mut walk = Walk {
        follow,
        found: Reads::default(),
        pages: HashMap::new(),
    };
    let step = match machine {
        Machine::X86_64 => x86_64::step,
        Machine::Arm64 => arm64::step,
    };
    let mut known: HashMap<u64, State> = HashMap::new();
    let mut open = vec![(address, State::at_entry(machine, argument))];
    let mut steps = 0;
    while let Some((mut address, mut state)) = open.pop() {
        let mut code = code_from(address).unwrap_or_default();
        while steps < STEPS_MAX {
            steps += 1;
            if let Some(before) = known.get_mut(&address) {
                if !before.meet(&state) {
                    break;
                }
                state.clone_from(before);
            } else {
                known.insert(address, state.clone());
            }
            let Some((bytes, flow)) = step(&mut walk, address, code, &mut state) else {
                break;
            };
            match flow {
                Flow::Next | Flow::Call(_) => {}
                Flow::Branch(target) => open.push((target, state.clone())),
                Flow::Jump(target) => {
                    open.push((target, state));
                    break;
                }
                Flow::End => break,
            }
            address += bytes as u64;
            code = &code[bytes..];
        }
    }
    walk.found
}

/// One walk through a function.
struct Walk<'a> {
    /// Which struct a member points to.
    follow: &'a dyn Fn(Touched) -> Option<&'static str>,
    /// What was found.
    found: Reads,
    /// The address that an instruction last stated for a register.
    pages: HashMap<Register, u64>,
}

impl Walk<'_> {
    /// So many bytes of memory are read or written there.
    fn touch(&mut self, address: Option<Pointer>, bytes: i64) {
        if let Some(Pointer::Struct(name, at)) = address {
            self.found.touched.insert((name, at));
            if bytes < POINTER_BYTES {
                self.found.narrow.insert((name, at));
            }
        }
    }

    /// What a register holds after it was stored there: when no one knew, and the member points to a
    /// struct, it is a pointer to that struct. (A new upstream is allocated, then stored.)
    fn stored(&self, address: Option<Pointer>, value: Option<Pointer>) -> Option<Pointer> {
        value.or_else(|| match address? {
            Pointer::Stack(_) => None,
            Pointer::Struct(name, at) => {
                (self.follow)((name, at)).map(|name| Pointer::Struct(name, 0))
            }
        })
    }

    /// What eight bytes in memory hold.
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
mod tests;
