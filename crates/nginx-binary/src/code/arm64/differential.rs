// SPDX-License-Identifier: MIT OR Apache-2.0
//! Compares the decoder with LLVM's disassembler, over every instruction of whole builds of nginx: the
//! control flow, the registers that are written, and the accesses to memory.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use super::Access;
use super::BYTES;
use super::Index;
use super::Instruction;
use super::KEPT;
use super::Operation;
use super::SP;
use super::bit;
use super::bits;
use crate::built;
use crate::code::Flow;
use crate::code::Register;
use crate::code::Registers;

/// The most mismatches that are shown.
const SHOWN_MAX: usize = 20;

/// One instruction as LLVM prints it.
struct Disassembled<'a> {
    address: u64,
    mnemonic: &'a str,
    operands: Vec<&'a str>,
}

/// A memory operand.
struct Memory<'a> {
    /// The operands before it: the registers that are loaded or stored.
    before: &'a [&'a str],
    base: Register,
    index: Index,
    displacement: i64,
    increment: Option<i64>,
}

impl<'a> Disassembled<'a> {
    fn new(address: u64, mnemonic: &'a str, operands: &'a str) -> Self {
        Self {
            address,
            mnemonic,
            operands: split(operands),
        }
    }

    fn is_any(&self, mnemonics: &[&str]) -> bool {
        mnemonics.contains(&self.mnemonic)
    }

    fn begins(&self, prefixes: &[&str]) -> bool {
        prefixes
            .iter()
            .any(|prefix| self.mnemonic.starts_with(prefix))
    }

    fn flow(&self) -> Flow {
        let target = || address(self.operands[self.operands.len() - 1]);
        match self.mnemonic {
            "b" => Flow::Jump(target()),
            "bl" => Flow::Call(Some(target())),
            "cbz" | "cbnz" | "tbz" | "tbnz" => Flow::Branch(target()),
            mnemonic if mnemonic.starts_with("b.") => Flow::Branch(target()),
            mnemonic if mnemonic.starts_with("blr") => Flow::Call(None),
            "brk" | "hlt" => Flow::End,
            _ if self.begins(&["br", "ret", "eret"]) => Flow::End,
            _ => Flow::Next,
        }
    }

    /// Returns whether both memory and a register receive a value.
    fn is_swap(&self) -> bool {
        let atomic = [
            "ldadd", "ldclr", "ldeor", "ldset", "ldsmax", "ldsmin", "ldumax", "ldumin", "stadd",
            "stclr", "steor", "stset", "stsmax", "stsmin", "stumax", "stumin", "swp", "cas",
        ];
        self.begins(&atomic)
    }

    fn writes(&self) -> Registers {
        if matches!(self.flow(), Flow::Call(_)) || self.is_any(&["svc", "hvc", "smc"]) {
            return !KEPT & !bit(SP);
        }
        let Some(memory) = self.memory() else {
            return self.destination();
        };
        let base = match memory.increment {
            Some(0) => 0,
            _ => bit(memory.base),
        };
        let written = match memory.before {
            [first, second, ..] if self.begins(&["casp"]) => all(&[first, second]),
            [first, ..] if self.begins(&["cas", "stx", "stlx"]) => all(&[first]),
            [_, second] if self.is_swap() => all(&[second]),
            registers if self.begins(&["ld"]) => all(registers),
            _ => 0,
        };
        base | written
    }

    /// Returns the general registers that an instruction without a memory operand writes.
    fn destination(&self) -> Registers {
        let none = [
            "b", "ccmp", "ccmn", "cmp", "cmn", "tst", "cbz", "cbnz", "tbz", "tbnz", "msr", "sys",
            "dc", "ic", "br", "ret", "prfm",
        ];
        match self.mnemonic {
            "paciasp" | "autiasp" | "pacibsp" | "autibsp" | "paciaz" | "autiaz" | "xpaclri" => {
                bit(30)
            }
            "pacia1716" | "autia1716" | "pacib1716" | "autib1716" => bit(17),
            _ if self.is_any(&none) => 0,
            _ => self.operands.first().map_or(0, |first| all(&[first])),
        }
    }

    fn memory(&self) -> Option<Memory<'_>> {
        let place = self
            .operands
            .iter()
            .position(|operand| operand.starts_with('['))?;
        let (inside, after) = self.operands[place][1..].split_once(']')?;
        let parts = split(inside);
        let offset = parts.get(1).filter(|part| part.starts_with('#'));
        let offset = offset.map_or(0, |offset| number(offset));
        let index = match parts[1..] {
            [register] if !register.starts_with('#') => {
                general(register).map_or(Index::Scaled, Index::Whole)
            }
            [register, _] if !register.starts_with('#') => Index::Scaled,
            _ => Index::None,
        };
        let increment = match self.operands.get(place + 1) {
            None if after == "!" => Some(offset),
            None => Some(0),
            Some(more) if more.starts_with('#') && !is_structure(self.mnemonic) => {
                Some(number(more))
            }
            Some(_) => None,
        };
        Some(Memory {
            before: &self.operands[..place],
            base: general(parts[0])?,
            index,
            displacement: offset,
            increment,
        })
    }

    fn access(&self) -> Option<Access> {
        let memory = self.memory()?;
        let is_exclusive = self.begins(&[
            "ldx", "ldax", "ldar", "ldlar", "stx", "stlx", "stlr", "stllr", "ldap",
        ]);
        let has_values = !self.is_swap() && !is_exclusive && !self.begins(&["prf"]);
        let is_pair = self.begins(&[
            "ldp", "ldnp", "stp", "stnp", "ldxp", "ldaxp", "stxp", "stlxp", "casp",
        ]);
        let bytes = self.bytes(memory.before);
        let value = |position: usize| {
            let register = memory.before.get(position)?;
            general(register).filter(|_| has_values && bytes == 8 && register.starts_with('x'))
        };
        Some(Access {
            is_load: self.begins(&["ld", "prf"]) || self.is_swap(),
            is_store: self.begins(&["st"]) || self.is_swap(),
            values: [value(0), value(1).filter(|_| is_pair)],
            is_pair,
            written: self.writes() & !memory_base_bit(&memory),
            bytes,
            base: memory.base,
            index: memory.index,
            displacement: memory.displacement,
            increment: memory.increment,
        })
    }

    /// Returns the size of each value: the mnemonic says it, or else the register.
    fn bytes(&self, registers: &[&str]) -> i64 {
        if is_structure(self.mnemonic) {
            return 64;
        }
        let registers = if self.begins(&["stx", "stlx"]) {
            &registers[1..]
        } else {
            registers
        };
        match (self.mnemonic, registers[0].as_bytes()[0]) {
            (mnemonic, _) if mnemonic.starts_with("prf") => 8,
            (mnemonic, _) if mnemonic.ends_with("sw") => 4,
            (mnemonic, b'w' | b'x') if mnemonic.ends_with('b') => 1,
            (mnemonic, b'w' | b'x') if mnemonic.ends_with('h') => 2,
            (_, b'b') => 1,
            (_, b'h') => 2,
            (_, b'w' | b's') => 4,
            (_, b'q') => 16,
            _ => 8,
        }
    }

    /// Returns the operation, if it is one that the dataflow analysis follows.
    fn operation(&self) -> Option<Operation> {
        let register = |n: usize| general(self.operands[n]);
        match (self.mnemonic, self.operands.len()) {
            ("add" | "sub", 3 | 4) if self.operands[0].starts_with(['x', 's']) => {
                let constant = self.operands[2].strip_prefix('#')?;
                let constant =
                    constant.parse::<i64>().ok()? << if self.operands.len() == 4 { 12 } else { 0 };
                let sign = if self.mnemonic == "add" { 1 } else { -1 };
                Some(Operation::Add(register(0)?, register(1)?, sign * constant))
            }
            ("mov", 2) if self.operands[0].starts_with(['x', 's']) => {
                Some(Operation::Add(register(0)?, register(1)?, 0))
            }
            ("csel", _) if self.operands[0].starts_with('x') => {
                Some(Operation::Select(register(0)?, [register(1), register(2)]))
            }
            ("adrp", _) => Some(Operation::Address(register(0)?, address(self.operands[1]))),
            ("adr", _) => {
                let target = self.address.wrapping_add_signed(number(self.operands[1]));
                Some(Operation::Address(register(0)?, target))
            }
            _ => self.access().map(Operation::Access),
        }
    }
}

/// Returns the base as a register that is written, if it is.
fn memory_base_bit(memory: &Memory<'_>) -> Registers {
    match memory.increment {
        Some(0) => 0,
        _ => bit(memory.base) & !all(memory.before),
    }
}

/// Returns whether a mnemonic is `ld1` to `ld4`, `st1` to `st4`, or one of `ld1r` to `ld4r`.
fn is_structure(mnemonic: &str) -> bool {
    let rest = mnemonic.strip_prefix("ld").or(mnemonic.strip_prefix("st"));
    rest.is_some_and(|rest| rest.starts_with(['1', '2', '3', '4']))
}

/// Splits operands at commas that are not inside of brackets or braces.
fn split(operands: &str) -> Vec<&str> {
    let mut depth = 0;
    let parts = operands.split(|c: char| {
        depth += i32::from("[{".contains(c)) - i32::from("]}".contains(c));
        c == ',' && depth == 0
    });
    parts
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .collect()
}

/// Returns the number of a general register. `None` for all others, and for the zero register.
fn general(name: &str) -> Option<Register> {
    match name {
        "sp" | "wsp" => Some(SP),
        _ => name.strip_prefix(['x', 'w'])?.parse().ok(),
    }
}

/// Returns the set of those operands that are general registers.
fn all(operands: &[&str]) -> Registers {
    operands
        .iter()
        .fold(0, |all, operand| all | bits(general(operand)))
}

/// Parses `#-16` or `#0x10`.
fn number(text: &str) -> i64 {
    let text = text.trim_start_matches('#');
    match text.strip_prefix("0x") {
        Some(hex) => i64::from_str_radix(hex, 16).unwrap(),
        None => text.parse().unwrap_or_else(|_| panic!("{text}")),
    }
}

/// Parses `0x1e8ec <symbol>`.
fn address(text: &str) -> u64 {
    let hex = text.split(' ').next().unwrap().trim_start_matches("0x");
    u64::from_str_radix(hex, 16).unwrap_or_else(|_| panic!("{text}"))
}

/// Returns what differs between the decoder and the disassembler.
fn mismatch(instruction: Instruction, expected: &Disassembled<'_>) -> Option<String> {
    let operation = instruction.operation();
    if instruction.flow() != expected.flow() {
        return Some(format!(
            "{:?}, not {:?}",
            instruction.flow(),
            expected.flow()
        ));
    }
    if operation.writes() != expected.writes() {
        let (found, expected) = (operation.writes(), expected.writes());
        return Some(format!("writes {found:#x}, not {expected:#x}"));
    }
    let known = expected.operation();
    let differs = match operation {
        /* Sums are not compared, only their registers. */
        Operation::Sum(..) => false,
        Operation::Other(_) => expected.access().is_some(),
        operation => Some(operation) != known,
    };
    differs.then(|| format!("{operation:?}, not {known:?}"))
}

/// Compares every instruction of a file, and returns how many there are.
fn compare(file: &Path) -> usize {
    let output = Command::new("llvm-objdump")
        .args(["-d", "--mattr=+v8.7a"])
        .arg(file)
        .output()
        .expect("llvm-objdump is installed by make test-binaries");
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let (mut count, mut mismatches) = (0, BTreeMap::new());
    for line in text.lines() {
        let mut columns = line.splitn(3, '\t').map(str::trim);
        let (Some(place), Some(mnemonic)) = (columns.next(), columns.next()) else {
            continue;
        };
        let Some((at, bytes)) = place.split_once(':') else {
            continue;
        };
        if matches!(mnemonic, "<unknown>" | "udf") || mnemonic.starts_with('.') {
            continue;
        }
        let bytes = bytes.split_whitespace();
        let bytes: Vec<u8> = bytes
            .map_while(|byte| u8::from_str_radix(byte, 16).ok())
            .collect();
        if bytes.len() != BYTES {
            continue;
        }
        let instruction = Instruction::decode(address(at), &bytes).unwrap();
        let expected = Disassembled::new(address(at), mnemonic, columns.next().unwrap_or_default());
        if let Some(mismatch) = mismatch(instruction, &expected) {
            let kind = (mnemonic.to_owned(), expected.operands.len());
            mismatches
                .entry(kind)
                .or_insert(format!("{line}: {mismatch}"));
        }
        count += 1;
    }
    let shown: Vec<&String> = mismatches.values().take(SHOWN_MAX).collect();
    assert!(shown.is_empty(), "{} kinds: {shown:#?}", mismatches.len());
    count
}

/// Check the decoder against LLVM's disassembler.
#[test]
#[ignore = "reads builds of nginx that make test-binaries makes"]
fn as_llvm_decodes() {
    for build in ["source-arm64", "source-arm64-compat"] {
        let count = compare(&built::cached(&format!("{build}/objs/nginx")));
        assert!(count > 100_000, "{count}");
    }
}
