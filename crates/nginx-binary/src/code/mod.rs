// SPDX-License-Identifier: MIT OR Apache-2.0
//! The kinds of machine that nginx is built for, of those that are known. Which it is is the binary's
//! own word: either kind is read on either machine, and traced on its own.

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
pub mod dataflow;
pub mod x86_64;

/// One of them. All have 64 bits and the little end first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    /// `x86_64`
    X86_64,
    /// `aarch64`
    Arm64,
}

impl Machine {
    /// What we run on.
    pub const OWN: Self = if cfg!(target_arch = "aarch64") {
        Self::Arm64
    } else {
        Self::X86_64
    };

    /// Fails when it is another one.
    pub fn of(architecture: Architecture) -> Result<Self> {
        Ok(match architecture {
            Architecture::X86_64 => Self::X86_64,
            Architecture::Aarch64 => Self::Arm64,
            other => bail!("built for {other:?}: only x86-64 and arm64 are known"),
        })
    }

    /// Relocations that make a word in data a pointer: `R_*_RELATIVE`, and to a symbol.
    pub fn pointers(self) -> [RelocationType; 2] {
        match self {
            Self::X86_64 => [R_X86_64_RELATIVE, R_X86_64_64],
            Self::Arm64 => [R_AARCH64_RELATIVE, R_AARCH64_ABS64],
        }
    }

    /// Relocations of the GOT's slots for functions.
    pub fn slots(self) -> [RelocationType; 2] {
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

/// Where control goes behind an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// To the next one.
    Next,
    /// To the next one, when what is called has returned: the function there, if it is stated.
    Call(Option<u64>),
    /// Perhaps to the next one, or else there.
    Branch(u64),
    /// There.
    Jump(u64),
    /// No one knows, or nowhere.
    End,
}
