// SPDX-License-Identifier: MIT OR Apache-2.0
//! The services of the machine for this process: stderr, signals, limits, and files that other
//! users name. This is the lowest layer: every other layer may use it, and it uses none of them.

pub mod code_mappings;
pub mod confinement;
pub mod container;
pub mod descriptors;
pub mod epoll_instances;
pub mod escape;
pub mod foreign;
pub mod kernel_symbols;
pub mod listen_overflows;
pub mod memory;
pub mod pid_namespace;
pub mod privileges;
pub mod process_root;
pub mod process_stat;
pub mod signals;
pub mod stderr;
pub mod stdin;
pub mod system_calls;
pub mod terminal;
pub mod usage;
