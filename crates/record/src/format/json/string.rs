// SPDX-License-Identifier: MIT OR Apache-2.0
//! Strings in JSON. Keys and nearly all values are plain: they are checked and copied by several bytes at once.

use crate::format::escape::is_unsafe;

/// Appends a string with its quotation marks. Unsafe characters are escaped.
pub(in crate::format) fn write_string(line: &mut Vec<u8>, text: &str) {
    line.push(b'"');
    if is_plain(text.as_bytes()) {
        line.extend_from_slice(text.as_bytes());
    } else {
        write_escaped(line, text);
    }
    line.push(b'"');
}

/// Returns whether a string has only characters that stand for themselves.
fn is_plain(text: &[u8]) -> bool {
    let (parts, rest) = text.as_chunks::<16>();
    let (halves, rest) = rest.as_chunks::<8>();
    parts.iter().all(are_plain)
        && halves.iter().all(are_plain)
        && rest.iter().copied().all(is_plain_byte)
}

/// Returns the same of a few bytes. It looks at all of them, which the compiler does in one step.
fn are_plain<const N: usize>(bytes: &[u8; N]) -> bool {
    bytes
        .iter()
        .fold(true, |plain, byte| plain & is_plain_byte(*byte))
}

/// Returns the same of a byte.
fn is_plain_byte(byte: u8) -> bool {
    (b' '..=b'~').contains(&byte) & (byte != b'"') & (byte != b'\\')
}

/// Appends a text with escapes, without quotation marks.
fn write_escaped(line: &mut Vec<u8>, text: &str) {
    for c in text.chars() {
        match c {
            '"' | '\\' => line.extend_from_slice(&[b'\\', c as u8]),
            '\u{8}' => line.extend_from_slice(b"\\b"),
            '\t' => line.extend_from_slice(b"\\t"),
            '\n' => line.extend_from_slice(b"\\n"),
            '\u{c}' => line.extend_from_slice(b"\\f"),
            '\r' => line.extend_from_slice(b"\\r"),
            c if is_unsafe(c) => {
                line.extend_from_slice(format!("\\u{:04x}", u32::from(c)).as_bytes())
            }
            c => line.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}
