// SPDX-License-Identifier: MIT OR Apache-2.0
//! Paths and messages that contain text of others, escaped so that they do nothing to a terminal or
//! a log.

use std::fmt;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use ngx_bpf_record::format::escape::write_safe;

/// Displays a path in quotes. Bytes that are not UTF-8 are escaped like control bytes.
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

/// Displays a whole message as one line. Text of others should have been escaped before; any that
/// was not is escaped here.
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

    use ngx_bpf_record::format::escape::Escaped;

    use super::Line;
    use super::Quoted;

    /// Check that unsafe characters are escaped once, however often the text is displayed.
    #[test]
    fn escapes() {
        let escaped = Escaped("\x1b[2J\n\u{9b}\u{202e}\\é").to_string();
        assert_eq!(Line(&escaped).to_string(), escaped);
        let path = Path::new(OsStr::from_bytes(b"/a\"\xff\x1b"));
        assert_eq!(Quoted(path).to_string(), r#""/a\"\xff\x1b""#);
    }
}
