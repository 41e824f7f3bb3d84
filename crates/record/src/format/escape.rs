// SPDX-License-Identifier: MIT OR Apache-2.0
//! Escapes text of others, so that it does nothing to a terminal or a log.

use std::fmt;
use std::fmt::Write as _;

/// Returns whether a character controls a terminal, breaks a line, or turns the direction of text: C0 and
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

/// Writes a character: `\x1b` for a control byte, `\u{202e}` for an unsafe character that is wider.
///
/// Fails when the formatter does.
pub fn write_safe(f: &mut fmt::Formatter<'_>, c: char) -> fmt::Result {
    match c {
        c if c.is_ascii() && is_unsafe(c) => write!(f, "\\x{:02x}", u32::from(c)),
        c if is_unsafe(c) => write!(f, "\\u{{{:x}}}", u32::from(c)),
        c => f.write_char(c),
    }
}

/// Displays text so that it is safe on a terminal. A backslash is written as `\\`, so that the
/// original text can be restored.
pub struct Escaped<'a>(
    /// The text.
    pub &'a str,
);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '\\' => f.write_str("\\\\"),
            c => write_safe(f, c),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Escaped;

    /// Check that unsafe characters are escaped.
    #[test]
    fn escapes() {
        let hostile = "\x1b[2J\n\u{9b}\u{202e}\\é";
        let escaped = Escaped(hostile).to_string();
        assert_eq!(escaped, r"\x1b[2J\x0a\u{9b}\u{202e}\\é");
    }
}
