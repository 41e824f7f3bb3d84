// SPDX-License-Identifier: MIT OR Apache-2.0
//! Machine code: the machines that are known, and what their instructions have in common. A binary for
//! either machine can be read on either; it is traced on its own machine only.

use std::fmt;

use anyhow::Result;
use anyhow::bail;
use object::Architecture;
use object::elf::R_AARCH64_ABS64;
use object::elf::R_AARCH64_GLOB_DAT;
use object::elf::R_AARCH64_JUMP_SLOT;
use object::elf::R_AARCH64_RELATIVE;
use object::elf::R_X86_64_64;
use object::elf::R_X86_64_GLOB_DAT;
use object::elf::R_X86_64_JUMP_SLOT;
use object::elf::R_X86_64_RELATIVE;
use object::elf::RelocationType;

pub mod arm64;
pub mod callbacks;
pub mod dataflow;
pub mod x86_64;

/// The number of a general register as instructions encode it: 0 to 15 on x86-64; 0 to 30 on arm64, where
/// 31 is the stack pointer.
pub type Register = u8;

/// A set of general registers, one bit each, by number.
pub type Registers = u32;

/// A machine that nginx is built for: 64-bit, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    /// `x86_64`
    X86_64,
    /// `aarch64`
    Arm64,
}

impl Machine {
    /// The machine that this program is built for.
    pub const OWN: Self = if cfg!(target_arch = "aarch64") {
        Self::Arm64
    } else {
        Self::X86_64
    };

    /// Returns the machine of an ELF file's architecture.
    ///
    /// # Errors
    ///
    /// Fails when the architecture is neither x86-64 nor arm64.
    pub fn from_architecture(architecture: Architecture) -> Result<Self> {
        Ok(match architecture {
            Architecture::X86_64 => Self::X86_64,
            Architecture::Aarch64 => Self::Arm64,
            other => bail!("built for {other:?}: only x86-64 and arm64 are known"),
        })
    }

    /// Returns the types of relocations that make a word in data a pointer: `R_*_RELATIVE`, and the one
    /// that refers to a symbol.
    pub fn pointer_relocations(self) -> [RelocationType; 2] {
        match self {
            Self::X86_64 => [R_X86_64_RELATIVE, R_X86_64_64],
            Self::Arm64 => [R_AARCH64_RELATIVE, R_AARCH64_ABS64],
        }
    }

    /// Returns the types of relocations that fill the GOT's slots for functions.
    pub fn slot_relocations(self) -> [RelocationType; 2] {
        match self {
            Self::X86_64 => [R_X86_64_GLOB_DAT, R_X86_64_JUMP_SLOT],
            Self::Arm64 => [R_AARCH64_GLOB_DAT, R_AARCH64_JUMP_SLOT],
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::X86_64 => "x86-64",
            Self::Arm64 => "arm64",
        })
    }
}

/// The instruction that control goes to after an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// The next instruction.
    Next,
    /// Call: execution continues after it. The value is the address of the function, unless that is
    /// computed at run time.
    Call(Option<u64>),
    /// Conditional branch to the address.
    Branch(u64),
    /// Unconditional jump to the address.
    Jump(u64),
    /// Return, trap or indirect jump: the target is unknown.
    End,
}
