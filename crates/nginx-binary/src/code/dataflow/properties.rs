// SPDX-License-Identifier: MIT OR Apache-2.0
//! Property tests of the dataflow analysis.

use proptest::collection;
use proptest::prelude::*;

use super::FunctionEffects;
use super::MemberByte;
use super::analyze;
use super::state::POINTERS_MAX;
use super::state::STRUCT_BYTES_MAX;
use crate::code::Machine;
use crate::elf::limits::ADDRESS_MAX;

/// Analyzes code at an address, of a struct whose every eighth byte may point to another one.
fn effects(machine: Machine, code: &[u8], address: u64) -> FunctionEffects {
    let code_from = |at: u64| code.get(usize::try_from(at.checked_sub(address)?).ok()?..);
    let follow = |(_, at): MemberByte| (at % 8 == 0).then_some("s");
    analyze(machine, &code_from, address, "s", &follow)
}

/// Generates machine code: random bytes, or words that are likely instructions of arm64.
fn any_code() -> impl Strategy<Value = Vec<u8>> {
    let words = collection::vec(any::<u32>(), 0..200).prop_map(|words| {
        let words = words.into_iter();
        words
            .flat_map(|word| (word | 0x0800_0000).to_le_bytes())
            .collect()
    });
    prop_oneof![collection::vec(any::<u8>(), 0..800), words]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Check that no code causes a panic, wherever it is, and that every member that is found is in a
    /// struct.
    #[test]
    fn any_function(code in any_code(), address in prop_oneof![Just(0), Just(ADDRESS_MAX - 1), 0..ADDRESS_MAX]) {
        for machine in [Machine::X86_64, Machine::Arm64] {
            let effects = effects(machine, &code, address);
            let touched = effects.touched.iter().all(|(_, at)| at.abs() < 1 << 50);
            prop_assert!(touched, "{:?}", effects);
            prop_assert!(effects.narrow.is_subset(&effects.touched));
        }
    }

    /// Check that a member that straight-line code loads is found at its offset.
    #[test]
    fn loads(offsets in collection::vec(0..STRUCT_BYTES_MAX / 8, 1..20)) {
        // ldr x1, [x0, #offset]
        let load = |offset: &i64| 0xf940_0001_u32 | (*offset as u32) << 10;
        let code: Vec<u8> = offsets.iter().flat_map(|offset| load(offset).to_le_bytes()).collect();
        let expected = offsets.iter().map(|offset| ("s", offset * 8)).collect();
        prop_assert_eq!(effects(Machine::Arm64, &code, 0).touched, expected);
    }

    /// Check that code with very many paths, each with a pointer of its own, is analyzed in time, and that the
    /// pointers of a register are bounded.
    #[test]
    fn many_paths(branches in 1..700_usize, added in 1..64_u8, is_loop in any::<bool>()) {
        // je over the next instruction; add $added, %rdi
        let branch = [0x74, 0x04, 0x48, 0x83, 0xc7, added];
        // mov (%rdi), %rax; a jump to the start
        let back = -(branches as i32 * branch.len() as i32 + 8);
        let mut code = branch.repeat(branches);
        code.extend([0x48, 0x8b, 0x07, 0xe9]);
        code.extend(if is_loop { back } else { 0 }.to_le_bytes());
        let touched = effects(Machine::X86_64, &code, 0).touched;
        let expected = POINTERS_MAX.min(branches + 1);
        prop_assert!(touched.len() <= expected && touched.contains(&("s", 0)), "{:?}", touched);
    }
}
