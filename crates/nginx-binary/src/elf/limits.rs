// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bounds on what a file may claim of itself. A binary comes from another user of the machine, and
//! whatever it says is checked against these before memory or time is spent on it.

/// The largest file that is read. A static nginx with all its libraries has about 30 MB.
pub const FILE_BYTES_MAX: u64 = 256 << 20;

/// No program has addresses from here on.
pub const ADDRESS_MAX: u64 = 1 << 47;

/// Linkers make about 40 sections. All of them are compared with each name that is searched.
pub const SECTIONS_MAX: usize = 512;

/// Linkers make about 13 segments.
pub const SEGMENTS_MAX: usize = 64;

/// The names of all sections together have some hundred bytes.
pub const SECTION_NAMES_BYTES_MAX: u64 = 1 << 16;

/// The most of a function that is decoded.
pub const FUNCTION_BYTES_MAX: u64 = 1 << 16;

/// An nginx with all its libraries linked in has a tenth of these.
pub const SYMBOLS_MAX: usize = 1 << 18;

/// No function or variable that is searched has a longer name.
pub const NAME_BYTES_MAX: usize = 128;

/// The most that `.gnu_debugdata` may unpack to; Fedora's have some hundred kB.
pub const DEBUGDATA_BYTES_MAX: u64 = 64 << 20;

/// The memory that unpacking it may take. `xz -9` needs 65 MB.
pub const XZ_MEMORY_KIB_MAX: u32 = 80 << 10;
