// SPDX-License-Identifier: MIT OR Apache-2.0
//! Characters that a request must not write to anybody's terminal or log.

/// Whether a character controls a terminal, breaks a line, or turns the direction of text: C0 and
/// C1 controls, DEL, line and paragraph separators, bidi controls, the byte order mark.
pub fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{061c}'
                | '\u{200e}'
                | '\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2066}'..='\u{2069}'
                | '\u{feff}'
        )
}
