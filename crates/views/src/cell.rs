// SPDX-License-Identifier: MIT OR Apache-2.0
//! Texts in cells of a screen: escaped, cut, and padded. Their width is that of a terminal.

use std::ops::RangeInclusive;

use ngx_bpf_record::format::escape::is_unsafe;
use unicode_width::UnicodeWidthChar as _;

use crate::look::Look;

/// The least columns of the lines of a paragraph.
const PARAGRAPH_MIN: usize = 20;

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

/// Divides a text at its spaces into lines of this width. A word that is longer is a line of its own, which is cut when it
/// is shown.
pub fn wrap(text: &str, columns: usize, look: Look) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut taken = 0;
    for word in text.split(' ') {
        let of_word = width(word, look);
        match lines.last_mut() {
            Some(line) if taken + 1 + of_word <= columns => {
                line.push(' ');
                line.push_str(word);
                taken += 1 + of_word;
            }
            _ => {
                lines.push(word.to_owned());
                taken = of_word;
            }
        }
    }
    lines
}

/// Returns a text after its head, in lines of the screen's width.
pub fn paragraph(head: &str, text: &str, look: Look) -> String {
    let columns = look.width.saturating_sub(head.len()).max(PARAGRAPH_MIN);
    let lines = wrap(text, columns, look);
    let indent = " ".repeat(head.len());
    let heads = [head].into_iter().chain(std::iter::repeat(indent.as_str()));
    lines
        .iter()
        .zip(heads)
        .map(|(line, head)| at_most(&format!("{head}{line}"), look.width, look) + "\n")
        .collect()
}

/// Returns parts after their head, with two spaces between them, in as many lines as they need.
pub fn list(head: &str, parts: &[String], look: Look) -> String {
    let mut lines = vec![head.to_owned()];
    let mut taken = head.len();
    for (n, part) in parts.iter().enumerate() {
        let gap = if taken == head.len() { "" } else { "  " };
        let needed = gap.len() + width(part, look);
        if n > 0 && taken + needed > look.width {
            lines.push(" ".repeat(head.len()));
            taken = head.len();
        }
        let gap = if taken == head.len() { "" } else { gap };
        taken += gap.len() + width(part, look);
        if let Some(line) = lines.last_mut() {
            *line += gap;
            *line += part;
        }
    }
    let lines = lines.iter();
    lines
        .map(|line| at_most(line, look.width, look) + "\n")
        .collect()
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

/// The characters that give an emoji before them a colour of skin: they take two columns alone, and none after it.
const SKIN_TONES: RangeInclusive<char> = '\u{1f3fb}'..='\u{1f3ff}';

/// Returns how a character is shown, and its columns. What may change the state of a terminal, or may take no column of
/// its own, is escaped.
fn shown(c: char, look: Look) -> (String, usize) {
    let width = c.width().unwrap_or_default();
    let is_foreign = look.ascii && !c.is_ascii();
    if is_unsafe(c) || width == 0 || SKIN_TONES.contains(&c) || is_foreign {
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
    use ratatui::style::Style;
    use ratatui::text::Span;
    use unicode_width::UnicodeWidthStr as _;

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

    /// Check that no two characters of a text take fewer columns, or more, than each of them: what a terminal makes one
    /// of would move the columns after it.
    #[test]
    fn joined() {
        /* Ideographs and private characters do not join. */
        let all = (0..0x3400).chain(0xa000..0xac00).chain(0xf900..0x20000);
        for c in all.chain(0xe0000..0xe0200).filter_map(char::from_u32) {
            let (cell, columns) = super::shown(c, LOOK);
            for before in ["a", "👍", "🇩", "\u{915}"] {
                let text = Span::raw(format!("{before}{cell}"));
                let graphemes = text.styled_graphemes(Style::new());
                let taken: usize = graphemes.map(|part| part.symbol.width()).sum();
                assert_eq!(taken, before.width() + columns, "{before}{c:?}");
            }
        }
    }
}
