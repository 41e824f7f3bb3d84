// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which members a function of nginx touches: its code is followed along every branch, with what is
//! known of each register, as a pointer into one of nginx's structs. Nothing is run. Where branches
//! meet, what both agree in stays known, so that every instruction is looked at a few times only.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::HashMap;
use std::rc::Rc;

use crate::nginx_binary::machine::Flow;
use crate::nginx_binary::machine::Machine;

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
mod tests {
    use std::collections::BTreeSet;
    use std::io::Write as _;
    use std::process::Command;
    use std::process::Stdio;

    use object::Object as _;
    use object::ObjectSection as _;

    use super::Machine;
    use super::Reads;
    use super::Touched;
    use super::of;

    /// What the code touches of `s`, a struct whose member at 8 points to another `s`.
    fn touched(machine: Machine, code: &str) -> BTreeSet<Touched> {
        reads(machine, code).touched
    }

    /// What the code does with that struct.
    fn reads(machine: Machine, code: &str) -> Reads {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.o");
        let target = match machine {
            Machine::X86_64 => "x86_64-linux-gnu",
            Machine::Arm64 => "aarch64-linux-gnu",
        };
        let mut clang = Command::new("clang")
            .args(["-target", target, "-x", "assembler", "-c", "-", "-o"])
            .arg(&file)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let text = code.replace("; ", "\n") + "\n";
        let mut stdin = clang.stdin.take().unwrap();
        stdin.write_all(text.as_bytes()).unwrap();
        drop(stdin);
        assert!(clang.wait().unwrap().success());
        let bytes = std::fs::read(file).unwrap();
        let object = object::File::parse(bytes.as_slice()).unwrap();
        let code = object.section_by_name(".text").unwrap().data().unwrap();
        let code_from = |address| code.get(usize::try_from(address).ok()?..);
        of(machine, &code_from, 0, "s", &|member| {
            (member == ("s", 8)).then_some("s")
        })
    }

    /// Check that copies, the stack and constants that are added keep a pointer known, and that what
    /// is overwritten is not.
    #[test]
    fn registers() {
        let touched = touched(
            Machine::X86_64,
            "push %rbx; mov %rdi, %rbx; mov %rdi, -24(%rsp); xor %edi, %edi; mov 100(%rdi), %rax; \
             mov 16(%rbx), %rax; lea 32(%rbx), %rcx; add $8, %rcx; mov (%rcx), %rax; \
             mov -24(%rsp), %rdx; mov %rax, 48(%rdx); pop %rbx; mov 200(%rbx), %rax; ret",
        );
        assert_eq!(touched, [("s", 16), ("s", 40), ("s", 48)].into());
    }

    /// Check that a store ends what is known of every slot that it reaches into, and of no other.
    #[test]
    fn stores() {
        let expected = BTreeSet::from([("s", 16)]);
        let found = touched(
            Machine::X86_64,
            "mov %rdi, -16(%rsp); movups %xmm0, -24(%rsp); mov -16(%rsp), %rdx; mov 100(%rdx), %rax; \
             mov %rdi, -40(%rsp); movl $0, -36(%rsp); mov -40(%rsp), %rdx; mov 104(%rdx), %rax; \
             mov %rdi, -64(%rsp); cmpl $0, -60(%rsp); movups %xmm0, -56(%rsp); mov -64(%rsp), %rdx; \
             mov 16(%rdx), %rax; ret",
        );
        assert_eq!(found, expected);
        let found = touched(
            Machine::Arm64,
            "str x0, [sp, #24]; str q0, [sp, #16]; ldr x2, [sp, #24]; ldr x3, [x2, #80]; \
             str x0, [sp, #40]; str wzr, [sp, #44]; ldr x2, [sp, #40]; ldr x3, [x2, #88]; \
             str x0, [sp, #56]; str q0, [sp, #64]; ldr x2, [sp, #56]; ldr x3, [x2, #16]; ret",
        );
        assert_eq!(found, expected);
    }

    /// Check that pointers are followed, a call loses what it may overwrite, and both ways of a branch
    /// are gone, each with what is known on it.
    #[test]
    fn ways() {
        let touched = touched(
            Machine::X86_64,
            "mov %rdi, %rbx; call *%rax; mov 100(%rdi), %rax; test %eax, %eax; je 1f; \
             mov 8(%rbx), %rcx; cmpq $0, 24(%rcx); jmp 2f; 1: mov 32(%rbx), %eax; \
             2: mov 200(%rcx), %rax; mov 40(%rbx), %rax; ret",
        );
        let expected = [8, 24, 32, 40, 200].map(|at| ("s", at));
        assert_eq!(touched, expected.into());
    }

    /// Check that a walk through an array, and a loop without an end, end.
    #[test]
    fn loops() {
        let touched = touched(
            Machine::X86_64,
            "1: mov 16(%rdi), %rax; add $64, %rdi; add %rdx, %rdi; test %eax, %eax; jne 1b; \
             2: jmp 2b",
        );
        assert!(
            touched.contains(&("s", 16)) && touched.len() < 4,
            "{touched:?}"
        );
    }

    /// Check the same of arm64: copies, pairs, the stack, and what is overwritten.
    #[test]
    fn arm64_registers() {
        let touched = touched(
            Machine::Arm64,
            "stp x29, x30, [sp, #-32]!; mov x29, sp; stp x19, x0, [sp, #16]; mov x19, x0; \
             mov x0, #0; ldr x1, [x0, #104]; ldr w1, [x19, #16]; add x2, x19, #32; ldrb w3, [x2, #8]!; \
             ldp x4, x5, [x2, #8]; ldr x6, [x29, #24]; str xzr, [x6, #72]; ldrh w7, [x6], #80; \
             ldur q0, [x6, #16]; ldr x19, [sp, #16]; ldr x1, [x19, #200]; ldp x29, x30, [sp], #32; \
             mov x1, x30; ldr x1, [x1, #208]; ret; ldr x1, [x0, #216]",
        );
        let expected = [0, 16, 40, 48, 56, 72, 96].map(|at| ("s", at));
        assert_eq!(touched, expected.into());
    }

    /// Check that pointers are followed there, a call loses what it may overwrite, and both ways of a
    /// branch are gone.
    #[test]
    fn arm64_ways() {
        let touched = touched(
            Machine::Arm64,
            "mov x19, x0; blr x9; ldr x1, [x0, #104]; cbz w0, 1f; ldr x2, [x19, #8]; \
             ldr w3, [x2, #24]; b 2f; 1: ldr w0, [x19, #32]; tbnz w0, #3, 3f; \
             2: ldr x1, [x2, #200]; ldr x1, [x19, #40]; ret; 3: svc #0; ldr x1, [x19, #48]; br x1",
        );
        let expected = [8, 24, 32, 40, 48, 200].map(|at| ("s", at));
        assert_eq!(touched, expected.into());
    }

    /// Check that accesses that are narrower than a pointer are known, that addresses which are computed
    /// are, and that a pointer which no one knew is known once it is stored where a member points to a
    /// struct.
    #[test]
    fn stated() {
        let found = reads(
            Machine::X86_64,
            "mov %rdi, %rbx; call 1f; mov %rax, 8(%rbx); orb $1, 24(%rax); \
             cmpq $0, 32(%rax); lea 2f(%rip), %rcx; mov $4096, %edx; movq $8192, 40(%rbx); ret; \
             1: ret; .balign 64; 2: ret",
        );
        assert_eq!(found.touched, [8, 24, 32, 40].map(|at| ("s", at)).into());
        assert_eq!(found.narrow, [("s", 24)].into());
        assert_eq!(found.addresses, [64].into());
        assert_eq!(found.constants, [4096, 8192].into());
        let found = reads(
            Machine::Arm64,
            "mov x19, x0; bl 1f; str x20, [x19, #8]; \
             ldrb w1, [x20, #24]; ldr x1, [x20, #32]; adr x2, 2f; add x3, x2, #0; ret; \
             1: ret; .balign 64; 2: ret",
        );
        assert_eq!(found.touched, [8, 24, 32].map(|at| ("s", at)).into());
        assert_eq!(found.narrow, [("s", 24)].into());
        assert_eq!(found.addresses, [64].into());
    }

    /// Check that a walk through an array ends there, too, however it is indexed.
    #[test]
    fn arm64_loops() {
        let touched = touched(
            Machine::Arm64,
            "1: ldr x1, [x0, #16]; madd x0, x2, x3, x0; ldr x4, [x0, x5, lsl #3]; add x0, x0, x6; \
             cbnz x4, 1b; 2: b 2b",
        );
        assert!(
            touched.contains(&("s", 16)) && touched.len() < 4,
            "{touched:?}"
        );
    }
}
