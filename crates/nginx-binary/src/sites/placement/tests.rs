// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests of the placement of probes on short pieces of code.

use super::Function;
use super::Machine;
use super::Placement;
use super::place_probe;

/// Places a probe in an x86-64 function with two arguments.
fn x86_64_placement(code: &[u8]) -> Placement {
    let function = Function {
        file_offset: 0,
        address: 0x1000,
        code,
    };
    place_probe(Machine::X86_64, &function, 2, false).unwrap()
}

/// Places a probe in an arm64 function with two arguments.
fn arm64_placement(code: &[u32]) -> Placement {
    let function = Function {
        file_offset: 0,
        address: 0x1000,
        code: &code
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect::<Vec<_>>(),
    };
    place_probe(Machine::Arm64, &function, 2, false).unwrap()
}

/// Check that a probe is placed on a push at the entry.
#[test]
fn push_at_entry() {
    let expected = Placement {
        offset: 0,
        arguments: vec![7, 6],
        machine: Machine::X86_64,
        is_emulated: true,
        mnemonic: "push".to_owned(),
    };
    assert_eq!(expected.cookie(), 0x0607);
    assert_eq!(expected.register_names(), ["rdi", "rsi"]);
    assert_eq!(x86_64_placement(b"\x41\x55\xc3"), expected); // push %r13; ret
    assert_eq!(x86_64_placement(b"\x55\xc3"), expected); // push %rbp; ret
}

/// Check that a probe is placed after `endbr64`.
#[test]
fn after_endbr64() {
    let found = x86_64_placement(b"\xf3\x0f\x1e\xfa\x41\x55\xc3"); // endbr64; push %r13; ret
    assert_eq!((found.offset, found.is_emulated), (4, true));
}

/// Check that a copy is used once the argument's own register is overwritten.
#[test]
fn argument_moved() {
    // mov %rdi,%rbx; xor %edi,%edi; push %rbp; ret
    let found = x86_64_placement(b"\x48\x89\xfb\x31\xff\x55\xc3");
    assert_eq!(found.offset, 5);
    assert_eq!(found.register_names(), ["rbx", "rsi"]);
}

/// Check that the entry is used, single-stepped, when an argument is lost before an emulated instruction.
#[test]
fn argument_lost() {
    let found = x86_64_placement(b"\x31\xf6\x55\xc3"); // xor %esi,%esi; push %rbp; ret
    assert_eq!((found.offset, found.is_emulated), (0, false));
}

/// Check that code that is jumped into is not taken for straight-line code.
#[test]
fn branched_into() {
    // mov %rdi,%rbx; push %rbp; jmp .-1
    let found = x86_64_placement(b"\x48\x89\xfb\x55\xeb\xfd");
    assert_eq!((found.offset, found.is_emulated), (0, false));
}

/// Check that a nop with a prefix or an operand, which older kernels single-step, is skipped.
#[test]
fn long_nop() {
    let found = x86_64_placement(b"\x66\x90\x0f\x1f\x40\x00\x90\xc3");
    assert_eq!((found.offset, found.is_emulated), (6, true));
}

/// Check that bytes that are not code are refused.
#[test]
fn invalid_code() {
    for code in [&b""[..], b"\x06", b"\x55\x0f"] {
        let function = Function {
            file_offset: 0,
            address: 0,
            code,
        };
        assert!(place_probe(Machine::X86_64, &function, 2, false).is_err());
    }
}

/// Check that on arm64 the first emulated instruction is used, and the copy of an argument whose own
/// register is overwritten: `ngx_http_free_request()` of Debian bookworm.
#[test]
fn arm64_first_emulated() {
    let found = arm64_placement(&[
        0xa9bc_7bfd, // stp x29, x30, [sp, #-64]!
        0xd280_0802, // mov x2, #0x40
        0x9100_03fd, // mov x29, sp
        0xa901_53f3, // stp x19, x20, [sp, #16]
        0xaa00_03f3, // mov x19, x0
        0xf940_2c00, // ldr x0, [x0, #88]
        0x97fe_f68b, // bl
    ]);
    assert_eq!((found.offset, found.is_emulated), (24, true));
    assert_eq!(found.register_names(), ["x19", "x1"]);
    assert_eq!(found.cookie(), 0x0113);
    assert_eq!(found.mnemonic, "bl");
}

/// Check that instructions that sign the return address or mark branch targets are skipped, and used
/// when an argument is lost after them.
#[test]
fn arm64_entry() {
    let found = arm64_placement(&[0xd503_233f, 0xf000_0002, 0xd65f_03c0]); // paciasp; adrp x2; ret
    assert_eq!((found.offset, found.mnemonic.as_str()), (4, "adrp"));
    // bti c; ldr w1, [x1]; cbz x0, .
    let found = arm64_placement(&[0xd503_245f, 0xb940_0021, 0xb400_0000]);
    assert_eq!((found.offset, found.is_emulated), (0, false));
    assert_eq!(found.mnemonic, "bti");
}

/// Check that arm64 code that is jumped into is not taken for straight-line code.
#[test]
fn arm64_branched_into() {
    // mov x19, x0; cbz x2, .+4; b .-4
    let found = arm64_placement(&[0xaa00_03f3, 0xb400_0022, 0x17ff_ffff]);
    assert_eq!((found.offset, found.is_emulated), (0, false));
}

/// Check that instructions that the kernel refuses are an error, and that invalid code is.
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
            place_probe(Machine::Arm64, &function, 1, false).is_err(),
            "{code:x?}"
        );
    }
}
