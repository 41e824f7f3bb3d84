// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests of the dataflow analysis on short pieces of code.

use std::collections::BTreeSet;

use super::FunctionEffects;
use super::Machine;
use super::MemberByte;
use super::analyze;

/// Machine code by machine and assembler text. The head of the file says how a row is made.
const ASSEMBLED: &str = include_str!("../../../tests/data/assembled.tsv");

/// Returns the machine code of assembler text.
fn assembled(machine: Machine, text: &str) -> Vec<u8> {
    let machine = machine.to_string();
    let mut rows = ASSEMBLED.lines().map(|row| row.split('\t'));
    let hex = rows.find_map(|mut row| {
        let is_it = row.next() == Some(&machine) && row.next() == Some(text);
        is_it.then(|| row.next()).flatten()
    });
    let hex = hex.unwrap_or_else(|| panic!("assembled.tsv has no row for {text:?}"));
    let bytes = hex.as_bytes().chunks(2);
    let bytes = bytes.map(|digits| std::str::from_utf8(digits).unwrap());
    bytes
        .map(|digits| u8::from_str_radix(digits, 16).unwrap())
        .collect()
}

/// Returns the members that the code accesses when its argument points to `s`, a struct whose member at 8
/// points to another `s`.
fn touched(machine: Machine, code: &str) -> BTreeSet<MemberByte> {
    effects(machine, code).touched
}

/// Analyzes that code.
fn effects(machine: Machine, code: &str) -> FunctionEffects {
    let code = assembled(machine, code);
    let code_from = |address| code.get(usize::try_from(address).ok()?..);
    analyze(machine, &code_from, 0, "s", &|member| {
        (member == ("s", 8)).then_some("s")
    })
}

/// Check that a pointer stays known through copies, stack slots and added constants, and is dropped when it
/// is overwritten.
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

/// Check that every kind of push moves the stack, and stores what it is known to push.
#[test]
fn pushes() {
    let touched = touched(
        Machine::X86_64,
        "mov %rdi, 8(%rsp); sub $8, %rsp; push 16(%rdi); push $1; push %rdi; push 8(%rdi); pop %rdx; \
         cmpq $0, 24(%rdx); add $32, %rsp; mov 8(%rsp), %rbx; mov 32(%rbx), %eax; ret",
    );
    assert_eq!(touched, [8, 16, 24, 32].map(|at| ("s", at)).into());
}

/// Check that a store drops every slot that it reaches into, and no other.
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

/// Check that pointers are followed, that a call drops the registers that it may overwrite, and that both
/// paths of a branch are analyzed, each with its own state.
#[test]
fn paths() {
    let touched = touched(
        Machine::X86_64,
        "mov %rdi, %rbx; call *%rax; mov 100(%rdi), %rax; test %eax, %eax; je 1f; \
         mov 8(%rbx), %rcx; cmpq $0, 24(%rcx); jmp 2f; 1: mov 32(%rbx), %eax; \
         2: mov 200(%rcx), %rax; mov 40(%rbx), %rax; ret",
    );
    let expected = [8, 24, 32, 40, 200].map(|at| ("s", at));
    assert_eq!(touched, expected.into());
}

/// Check that the analysis of a loop over an array, and of an endless loop, terminates.
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

/// Check copies, pairs, stack slots and overwritten registers on arm64.
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

/// Check that an atomic instruction drops the stack slot that it writes, although it loads as well, and that
/// an ordered load does not.
#[test]
fn arm64_atomics() {
    let touched = touched(
        Machine::Arm64,
        "str x0, [sp]; ldadda x1, x2, [sp]; ldr x3, [sp]; ldr x4, [x3, #104]; str x0, [sp, #8]; \
         add x5, sp, #8; casa x1, x2, [x5]; ldr x3, [sp, #8]; ldr x4, [x3, #112]; str x0, [sp, #24]; \
         add x5, sp, #24; ldar x6, [x5]; ldr x3, [sp, #24]; ldr x4, [x3, #16]; ret",
    );
    assert_eq!(touched, [("s", 16)].into());
}

/// Check pointers, calls and branches on arm64.
#[test]
fn arm64_paths() {
    let touched = touched(
        Machine::Arm64,
        "mov x19, x0; blr x9; ldr x1, [x0, #104]; cbz w0, 1f; ldr x2, [x19, #8]; \
         ldr w3, [x2, #24]; b 2f; 1: ldr w0, [x19, #32]; tbnz w0, #3, 3f; \
         2: ldr x1, [x2, #200]; ldr x1, [x19, #40]; ret; 3: svc #0; ldr x1, [x19, #48]; br x1",
    );
    let expected = [8, 24, 32, 40, 48, 200].map(|at| ("s", at));
    assert_eq!(touched, expected.into());
}

/// Check that narrow accesses and computed addresses are recorded, and that an unknown pointer becomes
/// known once it is stored in a member that points to a struct.
#[test]
fn addresses() {
    let found = effects(
        Machine::X86_64,
        "mov %rdi, %rbx; call 1f; mov %rax, 8(%rbx); orb $1, 24(%rax); \
         cmpq $0, 32(%rax); lea 2f(%rip), %rcx; mov $4096, %edx; movq $8192, 40(%rbx); ret; \
         1: ret; .balign 64; 2: ret",
    );
    assert_eq!(found.touched, [8, 24, 32, 40].map(|at| ("s", at)).into());
    assert_eq!(found.narrow, [("s", 24)].into());
    assert_eq!(found.addresses, [64].into());
    assert_eq!(found.constants, [4096, 8192].into());
    let found = effects(
        Machine::Arm64,
        "mov x19, x0; bl 1f; str x20, [x19, #8]; \
         ldrb w1, [x20, #24]; ldr x1, [x20, #32]; adr x2, 2f; add x3, x2, #0; ret; \
         1: ret; .balign 64; 2: ret",
    );
    assert_eq!(found.touched, [8, 24, 32].map(|at| ("s", at)).into());
    assert_eq!(found.narrow, [("s", 24)].into());
    assert_eq!(found.addresses, [64].into());
}

/// Check that the analysis of a loop over an array terminates on arm64, however the array is indexed.
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

/// Check that computing the address of a member is not an access to it, and is recorded.
#[test]
fn located() {
    let found = effects(
        Machine::X86_64,
        "mov 8(%rdi), %rax; lea 32(%rax), %rsi; mov 8(%rdi), %rdx; add $40, %rdx; mov %rdx, %rcx; ret",
    );
    assert_eq!(found.touched, [("s", 8)].into());
    assert_eq!(found.located, [("s", 32), ("s", 40)].into());
    let found = effects(
        Machine::Arm64,
        "ldr x1, [x0, #8]; add x2, x1, #32; mov x3, x1; sub sp, sp, #16; ret",
    );
    assert_eq!(found.touched, [("s", 8)].into());
    assert_eq!(found.located, [("s", 32)].into());
}

/// Check that a register that holds another pointer on each path to an instruction keeps all of them. Clang adds the
/// offset of a member in each branch of a variable's handler, and loads once where they meet.
#[test]
fn meets() {
    let found = touched(
        Machine::X86_64,
        "mov 8(%rdi), %rax; cmp $1, %esi; je 1f; ja 2f; add $48, %rax; jmp 3f; 1: add $56, %rax; jmp 3f; 2: lea 40(%rax), %rax; 3: mov (%rax), %rdx; ret",
    );
    assert_eq!(found, [8, 40, 48, 56].map(|at| ("s", at)).into());
    let found = touched(
        Machine::Arm64,
        "ldr x1, [x0, #8]; cbz w2, 1f; tbnz w2, #1, 2f; add x1, x1, #48; b 3f; 1: add x1, x1, #56; b 3f; 2: add x3, x0, #40; add x4, x0, #64; csel x1, x3, x4, eq; 3: ldr x5, [x1]; ret",
    );
    assert_eq!(found, [8, 40, 48, 56, 64].map(|at| ("s", at)).into());
}

/// Check the same of stack slots and of conditional moves, and that a register that is overwritten on one path keeps
/// what it holds on the other.
#[test]
fn choices() {
    let found = touched(
        Machine::X86_64,
        "mov %rdi, -16(%rsp); mov %rdi, %rbx; je 1f; mov 8(%rdi), %rcx; mov %rcx, -16(%rsp); xor %ebx, %ebx; 1: mov -16(%rsp), %rdx; mov 16(%rdx), %eax; lea 24(%rdi), %rcx; lea 32(%rdi), %rdx; cmovne %rcx, %rdx; mov 8(%rdx), %rax; mov 48(%rbx), %rax; ret",
    );
    assert_eq!(found, [8, 16, 32, 40, 48].map(|at| ("s", at)).into());
}

/// Check that the offset of a member is found where it is added to the index of an array, before the array's address
/// is. Clang does so with `-Os`. An index by itself is no offset.
#[test]
fn offsets() {
    let found = touched(
        Machine::X86_64,
        "mov 8(%rdi), %r13; lea (,%rbp,8), %rax; add %rbp, %rax; je 1f; lea 48(,%rax,8), %rax; add %r13, %rax; jmp 2f; 1: lea 32(%rcx,%rax,8), %rax; add $8, %rax; add %r13, %rax; 2: mov (%rax), %rdx; lea 1(%rbp), %rcx; mov 16(%r13,%rcx,8), %rdx; lea 56(,%rcx,8), %rcx; mov 8(%rcx,%r13), %rdx; ret",
    );
    assert_eq!(found, [8, 16, 40, 48, 64].map(|at| ("s", at)).into());
}

/// Check that going around a loop adds no members: the pointer that moved on is that of another element.
#[test]
fn elements() {
    let found = touched(
        Machine::X86_64,
        "lea 64(%rdi), %rbx; 1: mov 16(%rbx), %rax; test %eax, %eax; je 2f; add $24, %rbx; jmp 1b; 2: add $72, %rbx; jmp 1b",
    );
    assert_eq!(found, [("s", 80)].into());
}

/// Check that an address in parts is known on each path to the instruction that adds them, and not after a call.
#[test]
fn arm64_addresses() {
    let found = effects(
        Machine::Arm64,
        "cbz w2, 1f; adr x1, 3f; b 2f; 1: adr x1, 4f; 2: add x3, x1, #0; bl 3f; add x4, x1, #4; ret; .balign 64; 3: ret; .balign 64; 4: ret",
    );
    assert_eq!(found.addresses, [64, 128].into());
}

/// Check that words are recorded that are loaded into vector registers, where gcc keeps the callbacks that it stores in
/// pairs.
#[test]
fn pooled() {
    let found = effects(
        Machine::X86_64,
        "movq 2f(%rip), %xmm0; movhps 1f(%rip), %xmm0; movaps 1f(%rip), %xmm1; mov 3f(%rip), %rax; ret; .balign 64; 1: .quad 0, 0; 2: .quad 0; 3: .quad 0",
    );
    assert_eq!(found.pooled, [64, 72, 80].into());
}

/// Check that the analysis ends early in code that makes it keep much: full stack slots on many branches.
#[test]
fn bounded() {
    for (branches, expected) in [(100, BTreeSet::from([("s", 16)])), (5000, BTreeSet::new())] {
        // push %rdi; je to the next instruction; mov 16(%rdi), %rax; ret
        let mut code = vec![0x57; 9000];
        code.extend([0x74, 0x00].repeat(branches));
        code.extend([0x48, 0x8b, 0x47, 0x10, 0xc3]);
        let code_from = |address| code.get(usize::try_from(address).ok()?..);
        let found = analyze(Machine::X86_64, &code_from, 0, "s", &|_| None);
        assert_eq!(found.touched, expected, "{branches}");
    }
}
