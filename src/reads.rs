// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which members a function of nginx touches: its code is followed along every branch, with what is
//! known of each register, as a pointer into one of nginx's structs. Nothing is run. Where branches
//! meet, what both agree in stays known, so that every instruction is looked at a few times only.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::HashMap;

use iced_x86::Code;
use iced_x86::Decoder;
use iced_x86::DecoderOptions;
use iced_x86::FlowControl;
use iced_x86::Instruction;
use iced_x86::InstructionInfoFactory;
use iced_x86::OpAccess;
use iced_x86::OpKind;
use iced_x86::Register;

use crate::elf::Elf;

/// Instructions that are followed; the functions asked about have some hundred.
const STEPS_MAX: u32 = 20_000;

/// Larger than any struct of nginx: what runs through an array ends here.
const STRUCT_BYTES_MAX: i64 = 4096;

/// Registers that a call leaves as they are.
const CALLEE_SAVED: [Register; 6] = [
    Register::RBX,
    Register::RBP,
    Register::R12,
    Register::R13,
    Register::R14,
    Register::R15,
];

/// A struct, by its C name, and a byte in it.
pub type Touched = (&'static str, i64);

/// What a register or a place on the stack is known to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pointer {
    /// Into the function's own frame: bytes from its return address.
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

    /// So many bytes further on as nobody knows: another element of the same array.
    fn plus_unknown(self) -> Option<Self> {
        Some(self).filter(|pointer| matches!(pointer, Self::Struct(..)))
    }
}

/// What is known before an instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
struct State {
    /// By number.
    registers: [Option<Pointer>; 16],
    /// By bytes from the return address.
    stack: BTreeMap<i64, Pointer>,
}

impl State {
    /// What a register holds.
    fn get(&self, register: Register) -> Option<Pointer> {
        register
            .is_gpr64()
            .then(|| self.registers[register.number()])?
    }

    /// A whole register is written.
    fn set(&mut self, register: Register, value: Option<Pointer>) {
        let is_inside = |pointer: &Pointer| match pointer {
            Pointer::Stack(_) => true,
            Pointer::Struct(_, at) => (0..STRUCT_BYTES_MAX).contains(at),
        };
        if register.is_gpr() {
            self.registers[register.full_register().number()] = value.filter(is_inside);
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

    /// Where an instruction's memory operand points.
    fn address(&self, instruction: &Instruction) -> Option<Pointer> {
        let displacement = instruction.memory_displacement64().cast_signed();
        let base = self.get(instruction.memory_base());
        let index = instruction.memory_index();
        let pointer = match (base, index) {
            (Some(base), Register::None) => base,
            (Some(base), _) => base.plus_unknown()?,
            (None, _) if instruction.memory_index_scale() == 1 => {
                self.get(index)?.plus_unknown()?
            }
            (None, _) => return None,
        };
        Some(pointer.plus(displacement))
    }
}

/// What a function touches whose first argument points to `argument`, at `address`. `follow` tells
/// which struct a member points to.
pub fn of(
    elf: &Elf<'_>,
    address: u64,
    argument: &'static str,
    follow: &dyn Fn(Touched) -> Option<&'static str>,
) -> BTreeSet<Touched> {
    let mut entry = State {
        registers: [None; 16],
        stack: BTreeMap::new(),
    };
    entry.set(Register::RSP, Some(Pointer::Stack(0)));
    entry.set(Register::RDI, Some(Pointer::Struct(argument, 0)));
    let mut walk = Walk {
        follow,
        factory: InstructionInfoFactory::new(),
        touched: BTreeSet::new(),
    };
    let mut known: HashMap<u64, State> = HashMap::new();
    let mut open = vec![(address, entry)];
    let mut steps = 0;
    while let Some((address, mut state)) = open.pop() {
        let Some(code) = elf.code_from(address) else {
            continue;
        };
        for instruction in Decoder::with_ip(64, code, address, DecoderOptions::NONE) {
            steps += 1;
            if instruction.is_invalid() || steps > STEPS_MAX {
                break;
            }
            if let Some(before) = known.get_mut(&instruction.ip()) {
                if !before.meet(&state) {
                    break;
                }
                state.clone_from(before);
            } else {
                known.insert(instruction.ip(), state.clone());
            }
            walk.step(&instruction, &mut state);
            match instruction.flow_control() {
                FlowControl::Next | FlowControl::Call | FlowControl::IndirectCall => {}
                FlowControl::ConditionalBranch => {
                    open.push((instruction.near_branch_target(), state.clone()));
                }
                FlowControl::UnconditionalBranch => {
                    open.push((instruction.near_branch_target(), state));
                    break;
                }
                _ => break,
            }
        }
    }
    walk.touched
}

/// One walk through a function.
struct Walk<'a> {
    /// Which struct a member points to.
    follow: &'a dyn Fn(Touched) -> Option<&'static str>,
    /// Of iced.
    factory: InstructionInfoFactory,
    /// What was found.
    touched: BTreeSet<Touched>,
}

impl Walk<'_> {
    /// Notes what an instruction touches, and what is known behind it.
    fn step(&mut self, instruction: &Instruction, state: &mut State) {
        let has_memory = (0..instruction.op_count())
            .any(|operand| instruction.op_kind(operand) == OpKind::Memory);
        let address = has_memory.then(|| state.address(instruction)).flatten();
        let is_lea = instruction.code() == Code::Lea_r64_m;
        if let Some(Pointer::Struct(name, at)) = address
            && !is_lea
        {
            self.touched.insert((name, at));
        }
        let to = instruction.op0_register();
        let from = state.get(instruction.op1_register());
        let immediate = matches!(
            instruction.op1_kind(),
            OpKind::Immediate8to64 | OpKind::Immediate32to64
        )
        .then(|| instruction.immediate(1).cast_signed());
        match instruction.code() {
            Code::Mov_r64_rm64 if has_memory => state.set(to, self.load(state, address)),
            Code::Mov_rm64_r64 if has_memory => store(state, address, from),
            Code::Mov_r64_rm64 | Code::Mov_rm64_r64 => state.set(to, from),
            Code::Lea_r64_m => state.set(to, address),
            Code::Push_r64 => {
                let top = state.get(Register::RSP).map(|top| top.plus(-8));
                state.set(Register::RSP, top);
                store(state, top, state.get(to));
            }
            Code::Pop_r64 => {
                let top = state.get(Register::RSP);
                state.set(to, self.load(state, top));
                state.set(Register::RSP, top.map(|top| top.plus(8)));
            }
            Code::Add_rm64_imm8 | Code::Add_rm64_imm32 | Code::Add_RAX_imm32 if !has_memory => {
                let sum = state.get(to).zip(immediate);
                state.set(to, sum.map(|(pointer, bytes)| pointer.plus(bytes)));
            }
            Code::Sub_rm64_imm8 | Code::Sub_rm64_imm32 | Code::Sub_RAX_imm32 if !has_memory => {
                let sum = state.get(to).zip(immediate);
                state.set(
                    to,
                    sum.map(|(pointer, bytes)| pointer.plus(bytes.wrapping_neg())),
                );
            }
            Code::Add_r64_rm64 | Code::Add_rm64_r64
                if instruction.op0_kind() == OpKind::Register =>
            {
                let sum = match (state.get(to), from) {
                    (Some(pointer), None) | (None, Some(pointer)) => pointer.plus_unknown(),
                    _ if has_memory => self.load(state, address).and_then(Pointer::plus_unknown),
                    _ => None,
                };
                state.set(to, sum);
            }
            _ => self.forget(instruction, state),
        }
    }

    /// Of any other instruction only what it overwrites matters.
    fn forget(&mut self, instruction: &Instruction, state: &mut State) {
        if matches!(
            instruction.flow_control(),
            FlowControl::Call | FlowControl::IndirectCall
        ) {
            for (number, register) in state.registers.iter_mut().enumerate() {
                let is_kept = CALLEE_SAVED.iter().any(|kept| kept.number() == number);
                if !is_kept && number != Register::RSP.number() {
                    *register = None;
                }
            }
            return;
        }
        for used in self.factory.info(instruction).used_registers() {
            let is_read = matches!(
                used.access(),
                OpAccess::None | OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess
            );
            if !is_read {
                state.set(used.register(), None);
            }
        }
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

/// Eight bytes are written to memory.
fn store(state: &mut State, address: Option<Pointer>, value: Option<Pointer>) {
    if let Some(Pointer::Stack(at)) = address {
        match value {
            Some(value) => state.stack.insert(at, value),
            None => state.stack.remove(&at),
        };
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs::File;
    use std::io::Write as _;
    use std::process::Command;

    use super::Touched;
    use super::of;
    use crate::elf::Elf;
    use crate::image::Image;

    /// What the code touches of `s`, a struct whose member at 8 points to another `s`.
    fn touched(code: &str) -> BTreeSet<Touched> {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("a.s");
        let text = format!(
            ".globl f\n.type f,@function\nf:\n{}\n.size f,.-f\n",
            code.replace("; ", "\n")
        );
        File::create(&source)
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
        let library = folder.path().join("a.so");
        let status = Command::new("clang")
            .args(["-shared", "-nostdlib", "-o"])
            .args([&library, &source])
            .status()
            .unwrap();
        assert!(status.success());
        let image = Image::read(&File::open(library).unwrap()).unwrap();
        let elf = Elf::parse(&image).unwrap();
        let address = elf.function("f").unwrap().address;
        of(&elf, address, "s", &|member| {
            (member == ("s", 8)).then_some("s")
        })
    }

    /// Check that copies, the stack and constants that are added keep a pointer known, and that what
    /// is overwritten is not.
    #[test]
    fn registers() {
        let touched = touched(
            "push %rbx; mov %rdi, %rbx; mov %rdi, -24(%rsp); xor %edi, %edi; mov 100(%rdi), %rax; \
             mov 16(%rbx), %rax; lea 32(%rbx), %rcx; add $8, %rcx; mov (%rcx), %rax; \
             mov -24(%rsp), %rdx; mov %rax, 48(%rdx); pop %rbx; mov 200(%rbx), %rax; ret",
        );
        assert_eq!(touched, [("s", 16), ("s", 40), ("s", 48)].into());
    }

    /// Check that pointers are followed, a call loses what it may overwrite, and both ways of a branch
    /// are gone, each with what is known on it.
    #[test]
    fn ways() {
        let touched = touched(
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
            "1: mov 16(%rdi), %rax; add $64, %rdi; add %rdx, %rdi; test %eax, %eax; jne 1b; \
             2: jmp 2b",
        );
        assert!(
            touched.contains(&("s", 16)) && touched.len() < 4,
            "{touched:?}"
        );
    }
}
