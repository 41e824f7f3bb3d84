// SPDX-License-Identifier: MIT OR Apache-2.0
//! Texts in cells of a screen: escaped, cut, and padded. Their width is that of a terminal.

use ngx_bpf_record::format::escape::is_unsafe;
use unicode_width::UnicodeWidthChar as _;

use crate::look::Look;

/// Returns a text that takes exactly these columns, from the left.
pub fn left(text: &str, columns: usize, look: Look) -> String {
    let (mut cut, width) = cut(text, columns, look);
    cut.extend(std::iter::repeat_n(' ', columns - width));
    cut
}

/// Returns a text that takes exactly these columns, at the right.
pub fn right(text: &str, columns: usize, look: Look) -> String {
    let (cut, width) = cut(text, columns, look);
    " ".repeat(columns - width) + &cut
}

/// Returns a text that takes at most these columns.
pub fn at_most(text: &str, columns: usize, look: Look) -> String {
    cut(text, columns, look).0
}

/// Returns the columns that a text takes when it is escaped.
pub fn width(text: &str, look: Look) -> usize {
    text.chars().map(|c| shown(c, look).1).sum()
}

/// Cuts a text to these columns, and returns it with the columns that it takes.
fn cut(text: &str, columns: usize, look: Look) -> (String, usize) {
    let (mut cut, mut taken) = (String::new(), 0);
    /* Where the text ends if the rest has no room. */
    let mut end = (0, 0);
    for c in text.chars() {
        let (shown, width) = shown(c, look);
        if taken + width > columns {
            let (length, width) = end;
            cut.truncate(length);
            if columns == 0 {
                return (cut, 0);
            }
            cut.push(look.ellipsis());
            return (cut, width + 1);
        }
        cut.push_str(&shown);
        taken += width;
        if taken < columns {
            end = (cut.len(), taken);
        }
    }
    (cut, taken)
}

/// Returns how a character is shown, and its columns. What may change the state of a terminal, or takes no column of its
/// own, is escaped.
fn shown(c: char, look: Look) -> (String, usize) {
    let width = c.width().unwrap_or_default();
    let is_foreign = look.ascii && !c.is_ascii();
    if is_unsafe(c) || width == 0 || is_foreign {
        let escaped = match u32::from(c) {
            code @ 0..=0xff => format!("\\x{code:02x}"),
            code => format!("\\u{{{code:x}}}"),
        };
        let length = escaped.len();
        return (escaped, length);
    }
    (c.to_string(), width)
}

#[cfg(test)]
mod tests {
    use super::at_most;
    use super::left;
    use super::right;
    use super::width;
    use crate::look::Look;

    const LOOK: Look = Look {
        colour: false,
        ascii: false,
        width: 80,
    };

    /// Check texts that fit, that do not, and that are as long as the cell.
    #[test]
    fn cut() {
        assert_eq!(left("ab", 4, LOOK), "ab  ");
        assert_eq!(right("ab", 4, LOOK), "  ab");
        assert_eq!(left("abcd", 4, LOOK), "abcd");
        assert_eq!(left("abcde", 4, LOOK), "abc…");
        assert_eq!(at_most("abcde", 1, LOOK), "…");
        assert_eq!(at_most("abcde", 0, LOOK), "");
        let ascii = Look {
            ascii: true,
            ..LOOK
        };
        assert_eq!(left("abcde", 4, ascii), "abc~");
        assert_eq!(left("é", 6, ascii), "\\xe9  ");
    }

    /// Check that hostile texts keep to their cell, and contain nothing that a terminal obeys.
    #[test]
    fn hostile() {
        for text in [
            "\x1b[31mred\x07",
            "\u{202e}evil\u{2066}",
            "wide 漢字漢字漢字漢字漢字",
            "a\u{301}\u{301}\u{301}\u{301}",
            "\u{200b}\u{feff}\u{200d}zero",
            "\t\r\n",
            "👩‍👩‍👧‍👦👩‍👩‍👧‍👦",
        ] {
            for columns in 0..30 {
                let cell = left(text, columns, LOOK);
                assert_eq!(width(&cell, LOOK), columns, "{text:?} {cell:?}");
                assert!(!cell.chars().any(char::is_control), "{cell:?}");
            }
        }
        assert_eq!(left("漢字", 3, LOOK), "漢…");
        assert_eq!(left("漢字", 2, LOOK), "… ");
    }
}
