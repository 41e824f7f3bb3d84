// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bounds on what a file may claim of itself. A binary comes from another user of the machine, and
//! whatever it says is checked against these before memory or time is spent on it.

/// The largest file that is read. A static nginx with all its libraries has about 30 MB.
pub const FILE_BYTES_MAX: u64 = 256 << 20;

/// User space ends below this address.
pub const ADDRESS_MAX: u64 = 1 << 47;

/// The most sections a file may have. Linkers make about 40. A search by name compares all of them.
pub const SECTIONS_MAX: usize = 512;

/// The most segments a file may have. Linkers make about 13.
pub const SEGMENTS_MAX: usize = 64;

/// The most bytes that the names of all sections may have. Linkers make some hundred.
pub const SECTION_NAMES_BYTES_MAX: u64 = 1 << 16;

/// A longer build id is ignored. Linkers make 20 bytes at most, unless a person states one.
pub const BUILD_ID_BYTES_MAX: usize = 64;

/// The most bytes of a function that are decoded.
pub const FUNCTION_BYTES_MAX: u64 = 1 << 16;

/// The most symbols a table may have. An nginx with all its libraries linked in has a tenth of this.
pub const SYMBOLS_MAX: usize = 1 << 18;

/// Symbols with a longer name are ignored. No function that is searched has one.
pub const NAME_BYTES_MAX: usize = 128;

/// The most bytes that `.gnu_debugdata` may unpack to. Fedora's have some hundred kB.
pub const DEBUGDATA_BYTES_MAX: u64 = 64 << 20;

/// The most memory, in KiB, that unpacking `.gnu_debugdata` may take. `xz -9` needs 65 MB.
pub const XZ_MEMORY_KIB_MAX: u32 = 80 << 10;
