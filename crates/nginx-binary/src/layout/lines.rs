// SPDX-License-Identifier: MIT OR Apache-2.0
//! The lines of the built-in tables and of files of layouts: `#` begins a comment, and the indentation of a line
//! says what it is.

use anyhow::Context as _;
use anyhow::Result;

/// One line.
#[derive(Clone, Copy)]
pub struct Line<'a> {
    /// The line as it stands in the text.
    pub whole: &'a str,
    /// The line without a comment and without spaces at its end.
    pub content: &'a str,
}

impl<'a> Line<'a> {
    /// Returns the number of spaces before the first word.
    pub fn indentation(&self) -> usize {
        self.content.len() - self.content.trim_start().len()
    }

    /// Returns the words before any comment.
    pub fn words(&self) -> Vec<&'a str> {
        self.content.split_whitespace().collect()
    }
}

/// Returns all lines of a text.
pub fn lines(text: &str) -> impl Iterator<Item = Line<'_>> {
    text.lines().map(|whole| Line {
        whole,
        content: whole.split('#').next().unwrap_or_default().trim_end(),
    })
}

/// Parses each line that has words.
///
/// # Errors
///
/// Fails when `parse` does. The error names the line.
pub fn parse_lines(text: &str, parse: &mut dyn FnMut(Line<'_>) -> Result<()>) -> Result<()> {
    for (index, line) in lines(text).enumerate() {
        if !line.content.is_empty() {
            parse(line).with_context(|| format!("line {}", index + 1))?;
        }
    }
    Ok(())
}
