// SPDX-License-Identifier: MIT OR Apache-2.0

use super::CodeFile;
use super::REGISTERS;
use super::Stack;
use crate::built;
use crate::code::Machine;

/// Two functions whose frames are known: `middle` keeps a register and calls `leaf`, which has 24 bytes.
const SOURCE: &str = r#"
    __asm__(".text\n"
            ".globl leaf\n.type leaf, @function\nleaf:\n.cfi_startproc\n"
            "sub $24, %rsp\n.cfi_adjust_cfa_offset 24\n"
            ".globl at\nat: nop\nadd $24, %rsp\n.cfi_adjust_cfa_offset -24\nret\n"
            ".cfi_endproc\n.size leaf, . - leaf\n"
            ".globl middle\n.type middle, @function\nmiddle:\n.cfi_startproc\n"
            "push %rbx\n.cfi_adjust_cfa_offset 8\n.cfi_offset %rbx, -16\n"
            "call leaf\n.globl after\n.type after, @object\nafter: pop %rbx\n.cfi_adjust_cfa_offset -8\nret\n"
            ".cfi_endproc\n.size middle, . - middle\n"
            ".globl bare\n.type bare, @function\nbare: nop\nret\n.size bare, . - bare\n");
    void middle(void);
    int main(void) { middle(); return 0; }"#;

/// The distance of the addresses in the process.
const BIAS: u64 = 0x5555_0000_0000;

/// The address of the copy.
const START: u64 = 0x7fff_0000_0000;

/// Check that callers are found by the rules, with the registers that they kept, that nothing is found
/// outside of the copy, and where there are no rules.
#[test]
#[cfg(target_arch = "x86_64")]
fn callers() {
    let (_folder, file) = built::compiled(SOURCE, "-O1 -fPIE -pie -rdynamic");
    let code = CodeFile::read(&built::image(&file)).unwrap();
    let address = |name: &str| {
        let mut symbols = code.symbols.iter();
        symbols.find(|(_, known)| &**known == name).unwrap().0.start
    };
    let (leaf, middle) = (address("leaf"), address("middle"));
    /* `sub` has 4 bytes; `push` has one, and `call` five. */
    let (at, after) = (leaf + 4, middle + 6);
    let words = [1, 2, 3, BIAS + after, 77, 0x1234];
    let bytes: Vec<u8> = words
        .iter()
        .flat_map(|word: &u64| word.to_le_bytes())
        .collect();
    let mut registers = [None; REGISTERS];
    registers[3] = Some(5);
    registers[7] = Some(START);
    let mut stack = Stack {
        pc: BIAS + at,
        registers,
        start: START,
        bytes: &bytes,
        is_caller: false,
    };
    assert_eq!(code.symbol_at(at), Some(("leaf", 4)));
    code.to_caller(&mut stack, BIAS).unwrap();
    assert_eq!(
        (stack.pc, stack.registers[7]),
        (BIAS + after, Some(START + 32))
    );
    assert_eq!(stack.registers[3], Some(5));
    assert_eq!(code.symbol_at(stack.pc - BIAS), Some(("middle", 6)));
    let mut short = stack.clone();
    code.to_caller(&mut stack, BIAS).unwrap();
    assert_eq!((stack.pc, stack.registers[7]), (0x1234, Some(START + 48)));
    assert_eq!(stack.registers[3], Some(77));
    assert!(code.to_caller(&mut stack, BIAS).is_err());
    short.bytes = &bytes[..40];
    assert!(code.to_caller(&mut short, BIAS).is_err());
    stack.pc = BIAS + address("bare");
    assert!(code.to_caller(&mut stack, BIAS).is_err());
}

/// Check that an address in the file leads to the one as linked, and that a broken file is an error or has
/// no callers.
#[test]
fn files() {
    let (_folder, file) = built::compiled("int main(void) { return 0; }", "-O1");
    let image = built::image(&file);
    let code = CodeFile::read(&image).unwrap();
    assert_eq!(code.machine, Machine::OWN);
    let (range, start) = code.segments.last().unwrap().clone();
    assert_eq!(code.address_of(range.start + 1), Some(start + 1));
    assert_eq!(code.address_of(u64::MAX), None);
    assert_eq!(code.symbol_at(u64::MAX), None);
}
