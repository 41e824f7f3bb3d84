// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where in a function a probe goes: on an instruction that the kernel emulates instead of
//! single-stepping it (a tenth of the cost), early enough that the arguments are still in
//! registers. The kernel checks none of this: a probe inside an instruction kills nginx.

use anyhow::Result;
use anyhow::ensure;

use crate::code::Flow;
use crate::code::Machine;
use crate::elf::Function;

/// arm64's instructions.
mod arm64;
/// x86-64's instructions.
mod x86_64;

/// A general register, by the number that `bpf/arg.bpf.h` has for it.
type Register = u8;

/// A place for a probe.
#[derive(Debug, PartialEq, Eq)]
pub struct Site {
    /// Bytes from the function's first instruction.
    pub offset: u64,
    /// Where each argument is at that moment.
    arguments: Vec<Register>,
    /// The machine whose registers these are.
    machine: Machine,
    /// Whether the kernel emulates the instruction (else it single-steps it).
    pub emulated: bool,
    /// The instruction's name, as in assembly.
    pub mnemonic: String,
}

impl Site {
    /// Where the arguments are, for `bpf/arg.bpf.h`: one byte an argument.
    pub fn cookie(&self) -> u64 {
        let numbers = self.arguments.iter().rev();
        numbers.fold(0, |cookie, number| cookie << 8 | u64::from(*number))
    }

    /// The same, as in assembly: `rdi`.
    pub fn register_names(&self) -> Vec<String> {
        let numbers = self.arguments.iter();
        let name = |number: &Register| register_name(self.machine, *number);
        numbers.map(name).collect()
    }
}

/// Returns the name of the register that has this number in `bpf/arg.bpf.h`: `rdi`, `x0`.
pub fn register_name(machine: Machine, number: Register) -> String {
    match machine {
        Machine::X86_64 => x86_64::name(number),
        Machine::Arm64 => arm64::name(number),
    }
}

/// One instruction, as far as a probe is concerned.
struct Instruction {
    /// Where it stands.
    address: u64,
    /// Its name, as in assembly.
    mnemonic: String,
    /// Whether the kernel emulates it when a probe sits on it.
    is_emulated: bool,
    /// Whether the kernel takes no probe on it.
    is_refused: bool,
    /// Where control goes.
    flow: Flow,
    /// The register that it makes equal to another one, and that one.
    copy: Option<(Register, Register)>,
    /// The registers that it may write, one bit each.
    writes: u32,
}

/// The first emulated instruction of the straight line from the entry at which the first
/// `arguments` arguments are at hand; the entry itself where there is none. No call with a shadow
/// stack: kernels that emulate it do not put the address there that the function returns to, for which
/// the process would be killed (`branch_emulate_op()` in arch/x86/kernel/uprobes.c).
///
/// Fails when the function's code does not decode, or the kernel takes no probe there.
pub fn find(
    machine: Machine,
    function: &Function<'_>,
    arguments: usize,
    has_shadow_stack: bool,
) -> Result<Site> {
    let code = decode(machine, function)?;
    let mut live = Arguments::at_entry(machine, arguments);
    for instruction in &code {
        let offset = instruction.address - function.address;
        let Some(arguments) = live.registers() else {
            break;
        };
        let is_safe = !has_shadow_stack || !matches!(instruction.flow, Flow::Call(_));
        if instruction.is_emulated && is_safe {
            if is_branched_into(&code, function.address, offset) {
                break;
            }
            return Ok(site(machine, instruction, offset, arguments));
        }
        if instruction.flow != Flow::Next {
            break;
        }
        live.step(instruction);
    }
    let entry = &code[0];
    ensure!(
        !entry.is_refused,
        "the kernel takes no probe on the instruction at its entry"
    );
    Ok(site(
        machine,
        entry,
        0,
        Arguments::at_entry(machine, arguments).homes(),
    ))
}

/// Where the straight line from the entry jumps out of the function with the arguments where the
/// caller put them. `None` when it does not, or can be entered on the way.
///
/// Fails when the function's code does not decode.
pub fn tail_jump(
    machine: Machine,
    function: &Function<'_>,
    arguments: usize,
) -> Result<Option<u64>> {
    let code = decode(machine, function)?;
    let end = function.address + function.code.len() as u64;
    let mut live = Arguments::at_entry(machine, arguments);
    for instruction in &code {
        match instruction.flow {
            Flow::Next | Flow::Call(_) | Flow::Branch(_) => live.step(instruction),
            Flow::Jump(target) => {
                let offset = instruction.address - function.address;
                let is_tail = !(function.address..end).contains(&target)
                    && live.are_at_home()
                    && !is_branched_into(&code, function.address, offset);
                return Ok(is_tail.then_some(target));
            }
            Flow::End => break,
        }
    }
    Ok(None)
}

/// The place at an instruction.
fn site(
    machine: Machine,
    instruction: &Instruction,
    offset: u64,
    arguments: Vec<Register>,
) -> Site {
    Site {
        offset,
        arguments,
        machine,
        emulated: instruction.is_emulated,
        mnemonic: instruction.mnemonic.clone(),
    }
}

/// Decodes the whole function. Fails at the first bytes that are no instruction.
fn decode(machine: Machine, function: &Function<'_>) -> Result<Vec<Instruction>> {
    let code = match machine {
        Machine::X86_64 => x86_64::decode(function)?,
        Machine::Arm64 => arm64::decode(function)?,
    };
    ensure!(!code.is_empty(), "no code");
    Ok(code)
}

/// Whether the function jumps to what lies behind its entry and not behind `offset`: then the
/// line is not straight, and a probe at `offset` could be passed twice, or not at all.
fn is_branched_into(code: &[Instruction], address: u64, offset: u64) -> bool {
    code.iter().any(|instruction| match instruction.flow {
        Flow::Branch(target) | Flow::Jump(target) | Flow::Call(Some(target)) => {
            target > address && target <= address + offset
        }
        _ => false,
    })
}

/// The registers that hold each argument, as the line runs on.
struct Arguments {
    /// Where the caller passes each.
    homes: &'static [Register],
    /// Where each is now.
    registers: Vec<Vec<Register>>,
}

impl Arguments {
    /// As the caller passes them.
    fn at_entry(machine: Machine, count: usize) -> Self {
        let homes = match machine {
            Machine::X86_64 => &x86_64::ARGUMENTS,
            Machine::Arm64 => &arm64::ARGUMENTS,
        };
        let homes = &homes[..count.min(homes.len())];
        Self {
            homes,
            registers: homes.iter().map(|home| vec![*home]).collect(),
        }
    }

    /// Where the caller passes each.
    fn homes(&self) -> Vec<Register> {
        self.homes.to_vec()
    }

    /// Whether each is where a caller passes it.
    fn are_at_home(&self) -> bool {
        let mut arguments = self.registers.iter().zip(self.homes);
        arguments.all(|(registers, home)| registers.contains(home))
    }

    /// One for each; `None` when one of them is lost.
    fn registers(&self) -> Option<Vec<Register>> {
        let firsts = self.registers.iter();
        firsts.map(|registers| registers.first().copied()).collect()
    }

    /// What the instruction leaves of them: a register that is written is lost, a copy is gained.
    fn step(&mut self, instruction: &Instruction) {
        for registers in &mut self.registers {
            let gained = instruction
                .copy
                .filter(|(_, from)| registers.contains(from));
            registers.retain(|register| instruction.writes & 1 << register == 0);
            if let Some((to, _)) = gained {
                registers.push(to);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Function;
    use super::Machine;
    use super::Site;
    use super::find;

    /// The site of a function with this code and two arguments.
    fn site(code: &[u8]) -> Site {
        let function = Function {
            file_offset: 0,
            address: 0x1000,
            code,
        };
        find(Machine::X86_64, &function, 2, false).unwrap()
    }

    /// The same, of arm64.
    fn arm64_site(code: &[u32]) -> Site {
        let function = Function {
            file_offset: 0,
            address: 0x1000,
            code: &code
                .iter()
                .flat_map(|word| word.to_le_bytes())
                .collect::<Vec<_>>(),
        };
        find(Machine::Arm64, &function, 2, false).unwrap()
    }

    /// Check that a push at the entry is taken.
    #[test]
    fn push_at_entry() {
        let expected = Site {
            offset: 0,
            arguments: vec![7, 6],
            machine: Machine::X86_64,
            emulated: true,
            mnemonic: "push".to_owned(),
        };
        assert_eq!(expected.cookie(), 0x0607);
        assert_eq!(expected.register_names(), ["rdi", "rsi"]);
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
        assert_eq!(found.register_names(), ["rbx", "rsi"]);
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
            assert!(find(Machine::X86_64, &function, 2, false).is_err());
        }
    }

    /// Check that on arm64 the first emulated instruction is taken, and that a copy of an argument
    /// is what is left of it: `ngx_http_init_connection()` and `ngx_http_free_request()` as Debian
    /// bookworm has them.
    #[test]
    fn arm64_first_emulated() {
        let found = arm64_site(&[
            0xa9bc_7bfd, // stp x29, x30, [sp, #-64]!
            0xd280_0802, // mov x2, #0x40
            0x9100_03fd, // mov x29, sp
            0xa901_53f3, // stp x19, x20, [sp, #16]
            0xaa00_03f3, // mov x19, x0
            0xf940_2c00, // ldr x0, [x0, #88]
            0x97fe_f68b, // bl
        ]);
        assert_eq!((found.offset, found.emulated), (24, true));
        assert_eq!(found.register_names(), ["x19", "x1"]);
        assert_eq!(found.cookie(), 0x0113);
        assert_eq!(found.mnemonic, "bl");
    }

    /// Check that what signs the return address, or may be branched to, is stepped over, and taken
    /// itself where an argument is lost behind it.
    #[test]
    fn arm64_entry() {
        let found = arm64_site(&[0xd503_233f, 0xf000_0002, 0xd65f_03c0]); // paciasp; adrp x2; ret
        assert_eq!((found.offset, found.mnemonic.as_str()), (4, "adrp"));
        // bti c; ldr w1, [x1]; cbz x0, .
        let found = arm64_site(&[0xd503_245f, 0xb940_0021, 0xb400_0000]);
        assert_eq!((found.offset, found.emulated), (0, false));
        assert_eq!(found.mnemonic, "bti");
    }

    /// Check that a line on arm64 that is jumped into is not taken for straight.
    #[test]
    fn arm64_branched_into() {
        // mov x19, x0; cbz x2, .+4; b .-4
        let found = arm64_site(&[0xaa00_03f3, 0xb400_0022, 0x17ff_ffff]);
        assert_eq!((found.offset, found.emulated), (0, false));
    }

    /// Check that what the kernel refuses is an error, and no code is, too.
    #[test]
    fn arm64_refused() {
        for code in [
            &[0x5800_0040_u32, 0xd65f_03c0][..], // ldr x0, .+8; ret
            &[0xc85f_7c20],                      // ldxr x0, [x1]
            &[0xd503_23bf],                      // autiasp
            &[0xd65f_0bff],                      // retaa
            &[0x0000_0000],
            &[],
        ] {
            let bytes: Vec<u8> = code.iter().flat_map(|word| word.to_le_bytes()).collect();
            let function = Function {
                file_offset: 0,
                address: 0,
                code: &bytes,
            };
            assert!(
                find(Machine::Arm64, &function, 1, false).is_err(),
                "{code:x?}"
            );
        }
    }
}
