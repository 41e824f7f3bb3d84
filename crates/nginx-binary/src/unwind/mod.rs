// SPDX-License-Identifier: MIT OR Apache-2.0
//! Names the code of a binary, and finds the callers of a function on a copy of a stack.
//!
//! Most code keeps no frame pointer. What the compiler writes for exceptions (`.eh_frame`) says for each
//! instruction where the caller's registers are. A caller that it does not lead to is not guessed.

use std::ops::Range;

use anyhow::Context as _;
use anyhow::Result;
use gimli::BaseAddresses;
use gimli::CfaRule;
use gimli::EhFrame;
use gimli::LittleEndian;
use gimli::Register;
use gimli::RegisterRule;
use gimli::UnwindContext;
use gimli::UnwindSection;

use crate::code::Machine;
use crate::elf::Budget;
use crate::elf::Elf;
use crate::elf::image::Image;

/// The registers that rules name, by their numbers in DWARF.
const REGISTERS: usize = 32;

/// The bits of an address of user space. On arm64 the others may sign a return address.
const ADDRESS_BITS: u64 = (1 << 48) - 1;

/// The code of one binary: its symbols, and what leads to the callers of its functions.
pub struct CodeFile {
    machine: Machine,
    /// The symbols by address: the range of each, and its name.
    symbols: Vec<(Range<u64>, Box<str>)>,
    /// The parts of the file that are mapped: the range in the file, and the address of its first byte.
    segments: Vec<(Range<u64>, u64)>,
    eh_frame: Vec<u8>,
    bases: BaseAddresses,
}

/// A copy of a part of a stack, and the registers with which it goes on.
#[derive(Clone, Debug)]
pub struct Stack<'a> {
    /// The address of the instruction.
    pub pc: u64,
    /// The other registers, by their numbers in DWARF. `None`: not known.
    pub registers: [Option<u64>; REGISTERS],
    /// The address of the copy.
    pub start: u64,
    /// The copy.
    pub bytes: &'a [u8],
    /// True in a function that has called another one: `pc` is where that one returns to.
    pub is_caller: bool,
}

impl CodeFile {
    /// Reads a binary.
    ///
    /// # Errors
    ///
    /// Fails when it is not an ELF file of a known machine, or is broken.
    pub fn read(image: &Image) -> Result<Self> {
        let elf = Elf::parse(image)?;
        let eh_frame = elf.section(".eh_frame", &mut Budget::default())?;
        let mut symbols: Vec<_> = elf
            .symbols()
            .all()
            .filter(|(_, symbol)| symbol.size > 0)
            .map(|(name, symbol)| (symbol.range(), Box::from(name)))
            .collect();
        /* Of several with one range the first name counts. */
        symbols
            .sort_unstable_by(|a, b| (a.0.start, a.0.end, &a.1).cmp(&(b.0.start, b.0.end, &b.1)));
        let address = |name| elf.section_address(name).unwrap_or_default();
        Ok(Self {
            machine: elf.machine(),
            symbols,
            segments: elf.mapped().collect(),
            eh_frame: eh_frame.unwrap_or_default().into_owned(),
            bases: BaseAddresses::default()
                .set_eh_frame(address(".eh_frame"))
                .set_text(address(".text"))
                .set_got(address(".got")),
        })
    }

    /// Returns the address, as linked, of a place in the file. `None` when it is not mapped.
    pub fn address_of(&self, file_offset: u64) -> Option<u64> {
        let mut segments = self.segments.iter();
        let (range, start) = segments.find(|(range, _)| range.contains(&file_offset))?;
        start.checked_add(file_offset - range.start)
    }

    /// Returns the symbol that contains an address, as linked, and the distance from its begin. `None` when
    /// none does.
    pub fn symbol_at(&self, address: u64) -> Option<(&str, u64)> {
        let after = self
            .symbols
            .partition_point(|(range, _)| range.start <= address);
        let before = self.symbols[..after].iter().rev();
        let mut near = before.take(16);
        let (range, name) = near.find(|(range, _)| range.contains(&address))?;
        Some((name, address - range.start))
    }

    /// Goes to the caller. `bias` is the distance of the addresses in the process from those as linked.
    ///
    /// # Errors
    ///
    /// Fails when the file does not say where the caller is, or when that is outside of the copy.
    pub fn to_caller(&self, stack: &mut Stack<'_>, bias: u64) -> Result<()> {
        let frames = EhFrame::new(&self.eh_frame, LittleEndian);
        let at = stack.pc.wrapping_sub(u64::from(stack.is_caller));
        let mut context = UnwindContext::new();
        let row = frames.unwind_info_for_address(
            &self.bases,
            &mut context,
            at.wrapping_sub(bias),
            UnwindSection::cie_from_offset,
        )?;
        let CfaRule::RegisterAndOffset { register, offset } = row.cfa() else {
            anyhow::bail!("the frame is found by an expression");
        };
        let base = stack.register(*register).context("its base is not known")?;
        let cfa = base.wrapping_add_signed(*offset);
        anyhow::ensure!(cfa > stack.pointer(self.machine), "the stack does not grow");
        let mut registers = stack.registers;
        for (number, value) in registers.iter_mut().enumerate() {
            let register = Register(u16::try_from(number)?);
            *value = match row.register(register) {
                None | Some(RegisterRule::SameValue) if self.machine.is_kept(number) => *value,
                Some(RegisterRule::Offset(offset)) => stack.word(cfa.wrapping_add_signed(offset)),
                Some(RegisterRule::ValOffset(offset)) => Some(cfa.wrapping_add_signed(offset)),
                _ => None,
            };
        }
        let pc = match row.register(Register(self.machine.return_register())) {
            Some(RegisterRule::Offset(offset)) => stack.word(cfa.wrapping_add_signed(offset)),
            /* The link register, in a function that calls no other one. */
            None | Some(RegisterRule::SameValue) if self.machine == Machine::Arm64 => stack
                .register(Register(self.machine.return_register()))
                .filter(|_| !stack.is_caller),
            _ => None,
        };
        registers[usize::from(self.machine.stack_register())] = Some(cfa);
        stack.pc = pc.context("the return address is not known")? & ADDRESS_BITS;
        stack.registers = registers;
        stack.is_caller = true;
        Ok(())
    }
}

impl Stack<'_> {
    fn register(&self, register: Register) -> Option<u64> {
        *self.registers.get(usize::from(register.0))?
    }

    /// Returns the stack pointer; 0 when it is not known.
    fn pointer(&self, machine: Machine) -> u64 {
        let register = Register(machine.stack_register());
        /* A function that calls no other one may have no frame. */
        self.register(register).map_or(0, |sp| sp.saturating_sub(1))
    }

    /// Reads a word of the copy.
    fn word(&self, address: u64) -> Option<u64> {
        let at = usize::try_from(address.checked_sub(self.start)?).ok()?;
        let bytes = self.bytes.get(at..at.checked_add(8)?)?;
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    }
}

impl Machine {
    /// Returns the number of the stack pointer in DWARF.
    pub fn stack_register(self) -> u16 {
        match self {
            Self::X86_64 => 7,
            Self::Arm64 => 31,
        }
    }

    /// Returns the number by which rules name the return address.
    fn return_register(self) -> u16 {
        match self {
            Self::X86_64 => 16,
            Self::Arm64 => 30,
        }
    }

    /// Returns whether a function gives a register back as it was.
    fn is_kept(self, register: usize) -> bool {
        match self {
            Self::X86_64 => matches!(register, 3 | 6 | 12..=15),
            Self::Arm64 => matches!(register, 19..=30),
        }
    }
}

#[cfg(test)]
mod tests;
