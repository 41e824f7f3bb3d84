// SPDX-License-Identifier: MIT OR Apache-2.0
//! Callbacks: the functions whose addresses a function passes on or stores. They need no symbols.

use std::collections::BTreeSet;

use crate::code::dataflow::FunctionEffects;
use crate::elf::Elf;

/// The most words that a function loads into vector registers of which each is looked up. nginx's have some ten.
const POOLED_MAX: usize = 64;

/// Returns the functions whose addresses a function with these effects computes or loads.
pub fn named_by(elf: &Elf<'_>, effects: &FunctionEffects) -> BTreeSet<u64> {
    let constants = effects.constants.iter().filter(|_| elf.is_fixed());
    let pooled = effects.pooled.iter().take(POOLED_MAX);
    let pooled = pooled.filter_map(|place| elf.pointer(*place).ok());
    let computed = effects.addresses.iter().chain(constants).copied();
    let addresses = computed.chain(pooled);
    addresses
        .filter(|address| elf.code_from(*address).is_some())
        .collect()
}
