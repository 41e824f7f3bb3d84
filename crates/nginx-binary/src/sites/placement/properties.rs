// SPDX-License-Identifier: MIT OR Apache-2.0
//! Property tests of the placement of probes.

use proptest::collection;
use proptest::prelude::*;

use super::decode;
use super::place_probe;
use super::tail_jump;
use crate::code::Machine;
use crate::elf::Function;
use crate::elf::limits::ADDRESS_MAX;

/// Generates code of which most decodes: short instructions of x86-64, and words of arm64.
fn any_code() -> impl Strategy<Value = Vec<u8>> {
    let short = prop_oneof![
        Just(vec![0x55]),
        Just(vec![0x90]),
        Just(vec![0xc3]),
        (0..8_u8).prop_map(|to| vec![0x48, 0x89, 0xf8 | to]),
        any::<u8>().prop_map(|by| vec![0xeb, by]),
        any::<u8>().prop_map(|by| vec![0x74, by]),
        any::<[u8; 4]>().prop_map(|by| vec![0xe9, by[0], by[1], by[2], by[3]]),
        Just(0xaa00_03f3_u32.to_le_bytes().to_vec()),
        any::<[u8; 4]>().prop_map(|bytes| bytes.to_vec()),
    ];
    collection::vec(short, 0..60).prop_map(|parts| parts.concat())
}

proptest! {
    /// Check that no code causes a panic, and that a probe is placed on the first byte of an instruction of
    /// the function.
    #[test]
    fn any_function(
        code in any_code(),
        address in prop_oneof![Just(0), Just(ADDRESS_MAX - 1), 0..ADDRESS_MAX],
        arguments in 1..=2_usize,
        has_shadow_stack: bool,
    ) {
        let function = Function { file_offset: 0, address, code: &code };
        for machine in [Machine::X86_64, Machine::Arm64] {
            let _ = tail_jump(machine, &function, arguments);
            let Ok(placement) = place_probe(machine, &function, arguments, has_shadow_stack) else {
                continue;
            };
            let instructions = decode(machine, &function).unwrap();
            let mut offsets = instructions.iter().map(|found| found.address.wrapping_sub(address));
            prop_assert!(offsets.any(|offset| offset == placement.offset), "{:?}", placement);
            prop_assert_eq!(placement.register_names().len(), arguments);
            prop_assert_eq!(placement.cookie() >> (8 * arguments), 0);
        }
    }
}
