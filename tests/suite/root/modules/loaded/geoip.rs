// SPDX-License-Identifier: MIT OR Apache-2.0
//! The smallest database in MaxMind's format: every address has the same country.

/// The marker before the metadata of a database.
const MARKER: &[u8] = b"\xab\xcd\xefMaxMind.com";

/// Types of the format: the upper three bits of a control byte.
const TEXT: u8 = 2 << 5;
const NUMBER_16: u8 = 5 << 5;
const NUMBER_32: u8 = 6 << 5;
const MAP: u8 = 7 << 5;
/// Types whose number is in a second byte, less seven.
const EXTENDED: u8 = 0;
const NUMBER_64: u8 = 9 - 7;
const ARRAY: u8 = 11 - 7;

/// Returns a text of fewer than 29 bytes.
fn text(text: &str) -> Vec<u8> {
    let size = u8::try_from(text.len()).unwrap();
    [&[TEXT | size], text.as_bytes()].concat()
}

/// Returns a map of names to values.
fn map(members: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let size = u8::try_from(members.len()).unwrap();
    let members = members.iter();
    let members = members.flat_map(|(name, value)| [text(name), value.clone()]);
    [vec![MAP | size], members.collect::<Vec<_>>().concat()].concat()
}

/// Returns a database in which every IPv4 address has this country.
pub fn database(country: &str) -> Vec<u8> {
    /* One node, both of whose records point to the first value: 1 node and 16 bytes between before it. */
    let tree = [0, 0, 17, 0, 0, 17];
    let values = map(&[("country", text(country))]);
    let metadata = map(&[
        ("node_count", vec![NUMBER_32 | 1, 1]),
        ("record_size", vec![NUMBER_16 | 1, 24]),
        ("ip_version", vec![NUMBER_16 | 1, 4]),
        ("database_type", text("Test")),
        ("languages", vec![EXTENDED, ARRAY]),
        ("binary_format_major_version", vec![NUMBER_16 | 1, 2]),
        ("binary_format_minor_version", vec![NUMBER_16]),
        ("build_epoch", vec![EXTENDED | 1, NUMBER_64, 1]),
        ("description", map(&[])),
    ]);
    [&tree[..], &[0; 16], &values, MARKER, &metadata].concat()
}
