// SPDX-License-Identifier: MIT OR Apache-2.0
//! Counts the references to functions: calls, jumps and pointers. Link-time optimisation leaves exported
//! functions that no code calls any more, because every caller has a copy of its own; a probe there would
//! see nothing.
//!
//! On x86-64, jumps with an offset of one byte (`eb`, `70` to `7f`) are not counted. Code is searched
//! without decoding it, and two bytes look like such a jump too often: about one unreferenced function in
//! fifteen would be taken for a referenced one, and its requests would be lost without a message. The
//! opposite error, a function whose only reference is a short tail jump from the 128 bytes around it, is
//! unlikely, since the probed functions are called from many places or through a pointer. It is visible,
//! too: the binary is refused with a message that says so. arm64 code is decoded, so every branch counts.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::ops::Range;

use serde::Serialize;

use crate::code::Flow;
use crate::code::Machine;
use crate::code::arm64;
use crate::code::arm64::Operation;
use crate::elf::Elf;

/// The references to one function.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct References {
    /// The number of instructions that call it or jump to it, without those in the function itself.
    pub calls: u32,
    /// The number of instructions and words of data that hold its address.
    pub pointers: u32,
}

impl References {
    /// Returns whether nothing references the function.
    pub fn is_unreferenced(self) -> bool {
        self == Self::default()
    }
}

/// Counts the references to functions, in one pass over all code. Each function is its address and the
/// range of addresses whose calls do not count: a function that only calls itself is unreferenced.
///
/// x86-64 code is not decoded: it is very unlikely that four bytes inside of other instructions are the
/// offset to one of few functions.
pub fn count_references(elf: &Elf<'_>, functions: &[(u64, Range<u64>)]) -> Vec<References> {
    let mut search = ReferenceSearch::new(elf, functions);
    for (address, code) in elf.code() {
        match elf.machine() {
            Machine::X86_64 => search.x86_64(address, code),
            Machine::Arm64 => search.arm64(address, code),
        }
    }
    search.data(elf);
    functions
        .iter()
        .map(|(address, _)| search.found[address].references)
        .collect()
}

/// The references to one function that were found so far.
struct CountedFunction {
    references: References,
    /// Calls from these addresses do not count.
    except: Range<u64>,
}

impl CountedFunction {
    /// Counts the reference at `place`.
    fn add(&mut self, place: u64, is_call: bool) {
        if !is_call {
            self.references.pointers += 1;
        } else if !self.except.contains(&place) {
            self.references.calls += 1;
        }
    }
}

struct ReferenceSearch {
    /// The functions, by address.
    found: BTreeMap<u64, CountedFunction>,
    /// The function of each slot of the GOT, by the slot's address.
    slots: BTreeMap<u64, u64>,
    /// The lowest and the highest address of a function or a slot.
    range: (u64, u64),
    /// True when addresses are known at link time, so that instructions may contain them.
    is_fixed: bool,
}

impl ReferenceSearch {
    fn new(elf: &Elf<'_>, functions: &[(u64, Range<u64>)]) -> Self {
        let mut found = BTreeMap::new();
        for (address, except) in functions {
            let (references, except) = (References::default(), except.clone());
            found.insert(*address, CountedFunction { references, except });
        }
        let slots: BTreeMap<u64, u64> = elf
            .relocations()
            .filter(|relocation| elf.machine().slot_relocations().contains(&relocation.kind))
            .filter(|relocation| found.contains_key(&relocation.symbol))
            .map(|relocation| (relocation.place, relocation.symbol))
            .collect();
        let addresses = || found.keys().chain(slots.keys()).copied();
        Self {
            range: (
                addresses().min().unwrap_or_default(),
                addresses().max().unwrap_or_default(),
            ),
            found,
            slots,
            is_fixed: elf.is_fixed(),
        }
    }

    /// Takes every four bytes for an operand: an offset from the byte after it, or an address.
    fn x86_64(&mut self, address: u64, code: &[u8]) {
        let (first, last) = self.range;
        for (place, (at, bytes)) in (address..).zip(code.windows(4).enumerate()) {
            let operand = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            let target = (place + 4).wrapping_add_signed(i64::from(operand.cast_signed()));
            if (first..=last).contains(&target) {
                self.relative(place, target, &code[at.saturating_sub(2)..at]);
            }
            if self.is_fixed
                && let Some(found) = self.found.get_mut(&u64::from(operand))
            {
                found.references.pointers += 1;
            }
        }
    }

    /// Counts an operand that leads to `target`, if the opcode before it is one that refers to a function.
    fn relative(&mut self, place: u64, target: u64, opcode: &[u8]) {
        let is_slot = self.slots.contains_key(&target);
        let function = self.slots.get(&target).copied().unwrap_or(target);
        let Some(found) = self.found.get_mut(&function) else {
            return;
        };
        let is_modrm = |byte: u8| byte & 0xc7 == 0x05; // [rip + operand]
        let is_call = match *opcode {
            [0xff, 0x15 | 0x25] if is_slot => true, // call, jmp: once for all calls of a PLT
            [_, modrm] if is_slot && is_modrm(modrm) => false,
            [0x0f, 0x80..=0x8f] | [.., 0xe8 | 0xe9] if !is_slot => true,
            [0x8d, modrm] if !is_slot && is_modrm(modrm) => false, // lea
            _ => return,
        };
        found.add(place, is_call);
    }

    /// Decodes every instruction. An address is computed by one instruction, or by an `adrp` and one that
    /// adds to its register.
    fn arm64(&mut self, address: u64, code: &[u8]) {
        let mut pages = [None; 32];
        for instruction in arm64::Instruction::decode_all(address, code) {
            let place = instruction.address;
            let (target, is_call) = match (instruction.flow(), instruction.operation()) {
                (Flow::Branch(to) | Flow::Jump(to) | Flow::Call(Some(to)), _) => (Some(to), true),
                (_, Operation::Address(register, to)) => {
                    pages[usize::from(register)] = Some(to);
                    (Some(to), false)
                }
                (_, Operation::Add(_, from, bytes)) => {
                    let page: Option<u64> = pages[usize::from(from)];
                    let to = page.map(|page| page.wrapping_add_signed(bytes));
                    (to.filter(|_| bytes != 0), false)
                }
                (_, Operation::Access(access)) if access.is_load => {
                    let page = pages[usize::from(access.base)];
                    let slot = page.map(|page| page.wrapping_add_signed(access.displacement));
                    (slot.and_then(|slot| self.slots.get(&slot).copied()), false)
                }
                _ => (None, false),
            };
            if let Some(found) = target.and_then(|target| self.found.get_mut(&target)) {
                found.add(place, is_call);
            }
        }
    }

    /// Counts every pointer in data. A word that is also relocated counts once.
    fn data(&mut self, elf: &Elf<'_>) {
        let mut places = BTreeSet::new();
        for (place, value) in elf.pointers() {
            if let Some(found) = self.found.get_mut(&value)
                && places.insert(place)
            {
                found.references.pointers += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::path::PathBuf;

    use super::References;
    use super::count_references;
    use crate::built;
    use crate::elf::Elf;

    /// References in Debian's builds.
    const RECORDED: &str = include_str!("../../tests/data/uses.tsv");

    /// Counts the references to functions of a file.
    fn references(file: &Path, functions: &[&str]) -> Vec<References> {
        let image = built::image(file);
        let elf = Elf::parse(&image).unwrap();
        let functions: Vec<_> = functions
            .iter()
            .map(|name| elf.symbol(name).unwrap().range())
            .map(|range| (range.start, range))
            .collect();
        count_references(&elf, &functions)
    }

    /// Returns the nginx of a Debian suite: this machine's own if it runs that suite.
    fn of_suite(suite: &str) -> PathBuf {
        let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
        let codename = format!("VERSION_CODENAME={suite}");
        let installed = PathBuf::from("/usr/sbin/nginx");
        if release.lines().any(|line| line == codename) && installed.exists() {
            return installed;
        }
        match suite {
            "bookworm-arm64" => built::cached("arm64/usr/sbin/nginx"),
            suite => built::cached(&format!("{suite}/usr/sbin/nginx")),
        }
    }

    /// Check the counts against those of objdump in Debian's builds.
    #[test]
    #[ignore = "reads builds of nginx that make test-binaries makes"]
    fn as_objdump_has_it() {
        let mut rows = RECORDED.lines().filter(|line| !line.starts_with('#'));
        let suites = rows.next().unwrap().split('\t').skip(1);
        let rows: Vec<Vec<&str>> = rows.map(|row| row.split('\t').collect()).collect();
        for (column, suite) in suites.enumerate() {
            let file = of_suite(suite);
            let rows: Vec<_> = rows.iter().filter(|row| row[column + 1] != "-").collect();
            let names: Vec<&str> = rows.iter().map(|row| row[0]).collect();
            for (row, found) in rows.iter().zip(references(&file, &names)) {
                let found = format!("{}/{}", found.calls, found.pointers);
                assert_eq!(found, row[column + 1], "{} in {suite}", row[0]);
            }
        }
    }

    /// Check that two functions which link-time optimisation inlined everywhere are unreferenced, and that
    /// the probed functions are not.
    #[test]
    #[ignore = "reads a build of nginx that make test-binaries makes"]
    fn link_time_optimisation() {
        let file = built::cached("source-lto/objs/nginx");
        let dead = ["ngx_event_connect_peer", "ngx_ssl_handshake"];
        assert!(
            references(&file, &dead)
                .iter()
                .all(|references| references.is_unreferenced())
        );
        let alive = [
            "ngx_http_init_connection",
            "ngx_http_free_request",
            "ngx_http_request_body_save_filter",
        ];
        assert!(
            references(&file, &alive)
                .iter()
                .all(|references| !references.is_unreferenced())
        );
    }

    /// Check each kind of reference, however the program is linked.
    #[test]
    fn every_way() {
        let source = r#"
            #define F __attribute__((noinline, visibility("default"))) void
            F dead(void) { asm volatile("nop"); }
            F called(void) { asm volatile("nop"); }
            F jumped_to(void) { asm volatile("nop"); }
            F branched_to(void) { asm volatile("nop"); }
            F in_data(void) { asm volatile("nop"); }
            F in_code(void) { asm volatile("nop"); }
            void *volatile pointers[] = { in_data, 0 };
            int main(void)
            {
                called();
                /* {disp32}: the assembler would choose an offset of one byte, which is not counted. */
                asm volatile("test %eax, %eax; {disp32} jmp jumped_to; {disp32} jz branched_to");
                pointers[1] = in_code;
                return 0;
            }
        "#;
        let names = [
            "dead",
            "called",
            "jumped_to",
            "branched_to",
            "in_data",
            "in_code",
        ];
        for (args, counts) in [
            ("-fPIE -pie", [0, 1, 1, 1, 1, 1]),
            ("-fno-pie -no-pie", [0, 1, 1, 1, 1, 1]),
            ("-fPIE -pie -Wl,-z,pack-relative-relocs", [0, 1, 1, 1, 1, 1]),
            ("-fPIE -static-pie", [0, 1, 1, 1, 1, 1]),
            ("-fno-pie -static", [0, 1, 1, 1, 1, 1]),
            // What may be replaced is used through the PLT and the GOT.
            ("-fPIC -shared", [0, 1, 1, 1, 1, 1]),
            ("-fPIC -shared -fno-plt", [0, 1, 1, 1, 1, 1]),
        ] {
            let (_folder, file) = built::compiled(source, &format!("-O1 -rdynamic {args}"));
            let found = references(&file, &names);
            let found: Vec<u32> = found
                .iter()
                .map(|references| references.calls + references.pointers)
                .collect();
            assert_eq!(found, counts, "{args}");
        }
    }
}
