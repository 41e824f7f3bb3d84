// SPDX-License-Identifier: MIT OR Apache-2.0
//! Text of others, so that it does nothing to anybody's terminal or log.

use std::fmt;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

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

/// Writes a character: `\x1b` for a control byte, `\u{202e}` for what is wider.
fn write_safe(f: &mut fmt::Formatter<'_>, c: char) -> fmt::Result {
    match c {
        c if c.is_ascii() && is_unsafe(c) => write!(f, "\\x{:02x}", u32::from(c)),
        c if is_unsafe(c) => write!(f, "\\u{{{:x}}}", u32::from(c)),
        c => f.write_char(c),
    }
}

/// Text that is safe on a terminal, with `\\` for the backslash, so that the bytes can be restored.
pub struct Escaped<'a>(pub &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '\\' => f.write_str("\\\\"),
            c => write_safe(f, c),
        })
    }
}

/// A path in quotes, likewise; bytes that are not UTF-8 are written as control bytes are.
pub struct Quoted<'a>(pub &'a Path);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for chunk in self.0.as_os_str().as_bytes().utf8_chunks() {
            for c in chunk.valid().chars() {
                match c {
                    '"' | '\\' => write!(f, "\\{c}")?,
                    c => write_safe(f, c)?,
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        f.write_char('"')
    }
}

/// A message as a whole: one line, in which the parts that are others' were escaped before, if
/// no one has forgotten one.
pub struct Line<T>(pub T);

impl<T: fmt::Display> fmt::Display for Line<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string();
        text.chars().try_for_each(|c| write_safe(f, c))
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;
    use std::path::Path;

    use super::Escaped;
    use super::Line;
    use super::Quoted;

    /// Check that what is unsafe is escaped once, however often it is shown.
    #[test]
    fn escapes() {
        let hostile = "\x1b[2J\n\u{9b}\u{202e}\\é";
        let escaped = Escaped(hostile).to_string();
        assert_eq!(escaped, r"\x1b[2J\x0a\u{9b}\u{202e}\\é");
        assert_eq!(Line(&escaped).to_string(), escaped);
        let path = Path::new(OsStr::from_bytes(b"/a\"\xff\x1b"));
        assert_eq!(Quoted(path).to_string(), r#""/a\"\xff\x1b""#);
    }
}
