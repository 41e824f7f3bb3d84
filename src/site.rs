// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where in a function a probe goes: on an instruction that the kernel emulates instead of
//! single-stepping it (a tenth of the cost), early enough that the arguments are still in
//! registers. The kernel checks none of this: a probe inside an instruction kills nginx.

use anyhow::Context as _;
use anyhow::Result;
use anyhow::ensure;
use iced_x86::Code;
use iced_x86::Decoder;
use iced_x86::DecoderOptions;
use iced_x86::FlowControl;
use iced_x86::Instruction;
use iced_x86::InstructionInfoFactory;
use iced_x86::Mnemonic;
use iced_x86::OpAccess;
use iced_x86::OpKind;
use iced_x86::Register;

use crate::elf::Function;

/// Registers of the first arguments in the System V ABI.
const ARGUMENTS: [Register; 2] = [Register::RDI, Register::RSI];

/// Registers that a call leaves as they are.
const KEPT: [Register; 6] = [
    Register::RBX,
    Register::RBP,
    Register::R12,
    Register::R13,
    Register::R14,
    Register::R15,
];

/// A place for a probe.
#[derive(Debug, PartialEq, Eq)]
pub struct Site {
    /// Bytes from the function's first instruction.
    pub offset: u64,
    /// Where each argument is at that moment.
    pub arguments: Vec<Register>,
    /// Whether the kernel emulates the instruction (else it single-steps it).
    pub emulated: bool,
    /// The instruction's name, as in assembly.
    pub mnemonic: String,
}

impl Site {
    /// Where the arguments are, for `bpf/arg.h`: one byte an argument.
    pub fn cookie(&self) -> u64 {
        let numbers = self.arguments.iter().map(|register| register.number());
        numbers
            .rev()
            .fold(0, |cookie, number| cookie << 8 | number as u64)
    }

    /// The same, as in assembly: `rdi`.
    pub fn register_names(&self) -> Vec<String> {
        let names = self
            .arguments
            .iter()
            .map(|register| format!("{register:?}"));
        names.map(|name| name.to_lowercase()).collect()
    }
}

/// The first emulated instruction of the straight line from the entry at which the first
/// `arguments` arguments are at hand; the entry itself where there is none.
///
/// Fails when the function's code does not decode.
pub fn find(function: &Function<'_>, arguments: usize) -> Result<Site> {
    let code = decode(function)?;
    let mut live = Arguments::at_entry(arguments);
    let entry = Site {
        offset: 0,
        arguments: live.registers().context("arguments at the entry")?,
        emulated: code.first().is_some_and(is_emulated),
        mnemonic: code.first().map(mnemonic).unwrap_or_default(),
    };
    let mut factory = InstructionInfoFactory::new();
    for instruction in &code {
        let offset = instruction.ip() - function.address;
        let Some(arguments) = live.registers() else {
            break;
        };
        if is_emulated(instruction) {
            if is_branched_into(&code, function.address, offset) {
                break;
            }
            return Ok(Site {
                offset,
                arguments,
                emulated: true,
                mnemonic: mnemonic(instruction),
            });
        }
        if instruction.flow_control() != FlowControl::Next {
            break;
        }
        live.step(instruction, &mut factory);
    }
    Ok(entry)
}

/// Where the straight line from the entry jumps out of the function with the arguments where the
/// caller put them. `None` when it does not, or can be entered on the way.
///
/// Fails when the function's code does not decode.
pub fn tail_jump(function: &Function<'_>, arguments: usize) -> Result<Option<u64>> {
    let code = decode(function)?;
    let end = function.address + function.code.len() as u64;
    let mut live = Arguments::at_entry(arguments);
    let mut factory = InstructionInfoFactory::new();
    for instruction in &code {
        match instruction.flow_control() {
            FlowControl::Next => live.step(instruction, &mut factory),
            FlowControl::Call | FlowControl::IndirectCall => live.call(),
            FlowControl::ConditionalBranch => {}
            FlowControl::UnconditionalBranch => {
                let target = instruction.near_branch_target();
                let offset = instruction.ip() - function.address;
                let is_tail = !(function.address..end).contains(&target)
                    && live.are_at_home()
                    && !is_branched_into(&code, function.address, offset);
                return Ok(is_tail.then_some(target));
            }
            _ => break,
        }
    }
    Ok(None)
}

/// `push`, `endbr64`
fn mnemonic(instruction: &Instruction) -> String {
    format!("{:?}", instruction.mnemonic()).to_lowercase()
}

/// Decodes the whole function. Fails at the first bytes that are no instruction.
fn decode(function: &Function<'_>) -> Result<Vec<Instruction>> {
    let mut decoder = Decoder::with_ip(64, function.code, function.address, DecoderOptions::NONE);
    let mut code = Vec::new();
    while decoder.can_decode() {
        let instruction = decoder.decode();
        ensure!(
            !instruction.is_invalid(),
            "no instruction at {:#x}",
            instruction.ip()
        );
        code.push(instruction);
    }
    ensure!(!code.is_empty(), "no code");
    Ok(code)
}

/// Whether the kernel emulates this instruction when a probe sits on it: `branch_setup_xol_ops()`
/// and `push_setup_xol_ops()` in arch/x86/kernel/uprobes.c, in every kernel since 5.15.
fn is_emulated(instruction: &Instruction) -> bool {
    match instruction.code() {
        Code::Push_r64 | Code::Call_rel32_64 | Code::Jmp_rel8_64 | Code::Jmp_rel32_64 => true,
        Code::Nopd => instruction.len() == 1,
        _ => instruction.is_jcc_short_or_near(),
    }
}

/// Whether the function jumps to what lies behind its entry and not behind `offset`: then the
/// line is not straight, and a probe at `offset` could be passed twice, or not at all.
fn is_branched_into(code: &[Instruction], address: u64, offset: u64) -> bool {
    code.iter()
        .filter(|instruction| {
            matches!(
                instruction.op0_kind(),
                OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64
            )
        })
        .map(Instruction::near_branch_target)
        .any(|target| target > address && target <= address + offset)
}

/// The registers that hold each argument, as the line runs on.
struct Arguments(Vec<Vec<Register>>);

impl Arguments {
    /// As the caller passes them.
    fn at_entry(count: usize) -> Self {
        Self(
            ARGUMENTS
                .iter()
                .take(count)
                .map(|register| vec![*register])
                .collect(),
        )
    }

    /// Whether each is where a caller passes it.
    fn are_at_home(&self) -> bool {
        let mut arguments = self.0.iter().zip(ARGUMENTS);
        arguments.all(|(registers, home)| registers.contains(&home))
    }

    /// What a call leaves of them.
    fn call(&mut self) {
        for registers in &mut self.0 {
            registers.retain(|register| KEPT.contains(register));
        }
    }

    /// One for each; `None` when one of them is lost.
    fn registers(&self) -> Option<Vec<Register>> {
        let firsts = self.0.iter().map(|registers| registers.first().copied());
        firsts.collect()
    }

    /// What the instruction leaves of them: a register that is written is lost, a copy is gained.
    fn step(&mut self, instruction: &Instruction, factory: &mut InstructionInfoFactory) {
        let copy = (instruction.mnemonic() == Mnemonic::Mov
            && instruction.op0_kind() == OpKind::Register
            && instruction.op1_kind() == OpKind::Register
            && instruction.op0_register().is_gpr64())
        .then(|| (instruction.op0_register(), instruction.op1_register()));
        let info = factory.info(instruction);
        for registers in &mut self.0 {
            let gained = copy.filter(|(_, from)| registers.contains(from));
            for used in info.used_registers() {
                let written = !matches!(
                    used.access(),
                    OpAccess::None | OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess
                );
                if written {
                    registers.retain(|register| *register != used.register().full_register());
                }
            }
            if let Some((to, _)) = gained {
                registers.push(to);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use iced_x86::Register;

    use super::Function;
    use super::Site;
    use super::find;
    use crate::skel::types::reg;

    /// The site of a function with this code and two arguments.
    fn site(code: &[u8]) -> Site {
        find(
            &Function {
                file_offset: 0,
                address: 0x1000,
                code,
            },
            2,
        )
        .unwrap()
    }

    /// Check that both sides number registers alike.
    #[test]
    fn register_numbers() {
        for (register, number) in [
            (Register::RAX, reg::REG_AX),
            (Register::RBX, reg::REG_BX),
            (Register::RBP, reg::REG_BP),
            (Register::RSI, reg::REG_SI),
            (Register::RDI, reg::REG_DI),
            (Register::R8, reg::REG_R8),
            (Register::R15, reg::REG_R15),
        ] {
            assert_eq!(register.number(), number.0 as usize);
        }
    }

    /// Check that a push at the entry is taken.
    #[test]
    fn push_at_entry() {
        let expected = Site {
            offset: 0,
            arguments: vec![Register::RDI, Register::RSI],
            emulated: true,
            mnemonic: "push".to_owned(),
        };
        assert_eq!(
            expected.cookie(),
            u64::from(reg::REG_DI.0 | reg::REG_SI.0 << 8)
        );
        assert_eq!(site(b"\x41\x55\xc3"), expected); // push %r13; ret
        assert_eq!(site(b"\x55\xc3"), expected); // push %rbp; ret
    }

    /// Check that the instruction behind `endbr64` is taken.
    #[test]
    fn after_endbr64() {
        let found = site(b"\xf3\x0f\x1e\xfa\x41\x55\xc3"); // endbr64; push %r13; ret
        assert_eq!((found.offset, found.emulated), (4, true));
    }

    /// Check that a copy is used once the argument's own register is overwritten.
    #[test]
    fn argument_moved() {
        // mov %rdi,%rbx; xor %edi,%edi; push %rbp; ret
        let found = site(b"\x48\x89\xfb\x31\xff\x55\xc3");
        assert_eq!(found.offset, 5);
        assert_eq!(found.arguments, [Register::RBX, Register::RSI]);
    }

    /// Check that the entry is used, and said to be stepped, when an argument is lost before.
    #[test]
    fn argument_lost() {
        let found = site(b"\x31\xf6\x55\xc3"); // xor %esi,%esi; push %rbp; ret
        assert_eq!((found.offset, found.emulated), (0, false));
    }

    /// Check that a line that is jumped into is not taken for straight.
    #[test]
    fn branched_into() {
        // mov %rdi,%rbx; push %rbp; jmp .-1
        let found = site(b"\x48\x89\xfb\x55\xeb\xfd");
        assert_eq!((found.offset, found.emulated), (0, false));
    }

    /// Check that a nop with a prefix or an operand, which older kernels step, is passed over.
    #[test]
    fn long_nop() {
        let found = site(b"\x66\x90\x0f\x1f\x40\x00\x90\xc3");
        assert_eq!((found.offset, found.emulated), (6, true));
    }

    /// Check that bytes that are no code are refused.
    #[test]
    fn no_code() {
        for code in [&b""[..], b"\x06", b"\x55\x0f"] {
            let function = Function {
                file_offset: 0,
                address: 0,
                code,
            };
            assert!(find(&function, 2).is_err());
        }
    }
}
