// SPDX-License-Identifier: MIT OR Apache-2.0
//! Property tests of the dataflow analysis.

use proptest::collection;
use proptest::prelude::*;

use super::FunctionEffects;
use super::MemberByte;
use super::STRUCT_BYTES_MAX;
use super::analyze;
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
}
