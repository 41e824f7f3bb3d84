// SPDX-License-Identifier: MIT OR Apache-2.0
//! The control-flow graph of a function: blocks of instructions, and how control goes from one to another.

use std::collections::HashMap;
use std::collections::HashSet;

use super::state::Edge;
use crate::code::Flow;

/// Instructions that are executed one after the other: control enters at the first one only, and leaves after the last.
#[derive(Debug)]
pub struct Block {
    /// The address of the first instruction.
    pub address: u64,
    /// The number of instructions.
    pub length: usize,
    /// The blocks that may follow.
    pub successors: Vec<(usize, Edge)>,
}

/// An instruction's length in bytes, and where control goes.
pub type Step = (usize, Flow);

/// Decodes the first instruction of code at an address. `None` when it does not decode.
pub type Decode = fn(u64, &[u8]) -> Option<Step>;

/// The code that can be reached, by its address.
#[derive(Default)]
struct Code {
    steps: HashMap<u64, Step>,
    /// The instructions at which blocks begin.
    leaders: HashSet<u64>,
}

/// Returns the blocks of the function at `address`. All blocks from which control reaches another without a loop
/// stand before it. `step` decodes an instruction. At most `max` instructions are decoded; one that does not decode
/// ends a path.
pub fn blocks<'data>(
    code_from: &dyn Fn(u64) -> Option<&'data [u8]>,
    step: Decode,
    address: u64,
    max: usize,
) -> Vec<Block> {
    let code = Code::reach(code_from, step, address, max);
    let mut found = vec![code.block(address)];
    let mut numbers = HashMap::from([(address, 0)]);
    /* Depth first. A block is done when all that can be reached from it are. */
    let mut path = vec![(0, 0)];
    let mut is_done = vec![false];
    let mut done = Vec::new();
    while let Some((number, next)) = path.last_mut() {
        let (block, targets): &mut (Block, Vec<u64>) = &mut found[*number];
        let Some(target) = targets.get(*next).copied() else {
            is_done[*number] = true;
            done.push(*number);
            path.pop();
            continue;
        };
        *next += 1;
        if let Some(known) = numbers.get(&target) {
            let edge = if is_done[*known] {
                Edge::Forward
            } else {
                Edge::Back
            };
            block.successors.push((*known, edge));
            continue;
        }
        let new = numbers.len();
        block.successors.push((new, Edge::Forward));
        numbers.insert(target, new);
        found.push(code.block(target));
        is_done.push(false);
        path.push((new, 0));
    }
    in_order(found, &done)
}

/// Puts the blocks into the reverse of the order in which they are done.
fn in_order(found: Vec<(Block, Vec<u64>)>, done: &[usize]) -> Vec<Block> {
    let mut places = vec![0; found.len()];
    for (place, number) in done.iter().rev().enumerate() {
        places[*number] = place;
    }
    let mut ordered: Vec<(usize, Block)> = Vec::new();
    for (number, (mut block, _)) in found.into_iter().enumerate() {
        for (successor, _) in &mut block.successors {
            *successor = places[*successor];
        }
        ordered.push((places[number], block));
    }
    ordered.sort_unstable_by_key(|(place, _)| *place);
    ordered.into_iter().map(|(_, block)| block).collect()
}

impl Code {
    /// Decodes all that control can reach from an address.
    fn reach<'data>(
        code_from: &dyn Fn(u64) -> Option<&'data [u8]>,
        step: Decode,
        address: u64,
        max: usize,
    ) -> Self {
        let mut code = Self::default();
        let mut waiting = vec![address];
        while let Some(mut address) = waiting.pop() {
            code.leaders.insert(address);
            let mut bytes = code_from(address).unwrap_or_default();
            while code.steps.len() < max {
                if code.steps.contains_key(&address) {
                    code.leaders.insert(address);
                    break;
                }
                let Some((length, flow)) = step(address, bytes) else {
                    break;
                };
                code.steps.insert(address, (length, flow));
                address += length as u64;
                bytes = &bytes[length..];
                match flow {
                    Flow::Next | Flow::Call(_) => {}
                    Flow::Branch(target) => {
                        waiting.push(target);
                        code.leaders.insert(address);
                    }
                    Flow::Jump(target) => {
                        waiting.push(target);
                        break;
                    }
                    Flow::End => break,
                }
            }
        }
        code
    }

    /// Returns the block that begins at an address, and where control goes from there.
    fn block(&self, address: u64) -> (Block, Vec<u64>) {
        let mut block = Block {
            address,
            length: 0,
            successors: Vec::new(),
        };
        let mut at = address;
        while let Some((length, flow)) = self.steps.get(&at) {
            block.length += 1;
            at += *length as u64;
            match flow {
                Flow::Next | Flow::Call(_) if self.leaders.contains(&at) => {
                    return (block, vec![at]);
                }
                Flow::Next | Flow::Call(_) => {}
                Flow::Branch(target) => return (block, vec![*target, at]),
                Flow::Jump(target) => return (block, vec![*target]),
                Flow::End => break,
            }
        }
        (block, Vec::new())
    }
}
