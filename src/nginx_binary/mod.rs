// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an nginx executable says about itself: its build, the layout of its structs, and the places
//! for probes. Nothing here knows a process, the kernel or libbpf.

pub mod arm64;
pub mod body;
pub mod debug_file;
pub mod directive;
pub mod dwarf;
pub mod elf;
pub mod fit;
pub mod hook;
pub mod image;
pub mod inference;
pub mod layout;
pub mod machine;
pub mod module;
pub mod reads;
pub mod site;
pub mod source;
pub mod symbols;
pub mod uses;
pub mod variables;
pub mod version;
pub mod x86_64;
