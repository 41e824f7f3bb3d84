// SPDX-License-Identifier: MIT OR Apache-2.0
//! Converts the Markdown of `docs/` to roff: headings, paragraphs, lists, code, tables.

use clap_mangen::roff::Inline;
use clap_mangen::roff::Roff;
use clap_mangen::roff::bold;
use clap_mangen::roff::roman;

/// The beginning of the line below the head of a table.
const RULE: &str = "| --- |";

/// Converts a text without its title. `section` is the roff macro for headings of the second level.
pub fn to_roff(text: &str, section: &str) -> Roff {
    let mut roff = Roff::new();
    let mut columns = Vec::new();
    let mut lines = text.lines().skip(1).peekable();
    while let Some(line) = lines.next() {
        if let Some(title) = line.strip_prefix("## ") {
            roff.control(section, [title.replace('`', "").as_str()]);
        } else if line.starts_with("```") {
            roff.control("PP", []);
            roff.control("nf", []);
            for line in lines.by_ref().take_while(|line| !line.starts_with("```")) {
                roff.text([roman(line)]);
            }
            roff.control("fi", []);
        } else if let Some(row) = line.strip_prefix("| ") {
            let cells = cells(row);
            if lines.next_if(|next| next.starts_with(RULE)).is_some() {
                columns = cells;
            } else {
                entry(&mut roff, &cells, &columns);
            }
        } else if !line.is_empty() {
            let item = line.strip_prefix("- ");
            match item {
                Some(_) => roff.control("IP", ["\\(bu", "2"]),
                None => roff.control("PP", []),
            };
            let mut paragraph = item.unwrap_or(line).to_owned();
            while let Some(line) = lines.next_if(|line| is_continued(line)) {
                paragraph.push(' ');
                paragraph.push_str(line.trim_start());
            }
            roff.text(inlines(&paragraph));
        }
    }
    roff
}

/// Returns whether a line continues the paragraph before it.
fn is_continued(line: &str) -> bool {
    let others = ["#", "|", "- ", "```"];
    !line.is_empty() && others.iter().all(|other| !line.starts_with(other))
}

/// Splits the row of a table, without its first `| `, into cells.
fn cells(row: &str) -> Vec<String> {
    let cells = row.trim_end_matches('|').split(" | ");
    cells.map(|cell| cell.trim().replace("\\|", "|")).collect()
}

/// Writes the row of a table as an entry whose name is the first cell. In rows of three or more
/// cells the second is the type. The cells after the text follow it, each with the name of its
/// column.
fn entry(roff: &mut Roff, row: &[String], columns: &[String]) {
    let (name, text, rest) = match row {
        [name, kind, _, ..] => (format!("{name} ({kind})"), 2, 3),
        [name, _] => (name.clone(), 1, 2),
        _ => return,
    };
    roff.control("TP", []);
    roff.text(inlines(&name));
    roff.text(inlines(&row[text]));
    for (cell, column) in row.iter().zip(columns).skip(rest) {
        roff.control("br", []);
        roff.text(inlines(&format!("{column}: {cell}")));
    }
}

/// Converts code and strong text to bold text, and a link to its text.
fn inlines(text: &str) -> Vec<Inline> {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, link)) = rest.split_once('[') {
        plain.push_str(before);
        let target = link.split_once("](").and_then(|(name, target)| {
            let (_, rest) = target.split_once(')')?;
            Some((name, rest))
        });
        (rest, plain) = match target {
            Some((name, rest)) => (rest, plain + name),
            None => (link, plain + "["),
        };
    }
    plain.push_str(rest);
    let parts = plain.replace("**", "`");
    let parts = parts.split('`').enumerate();
    parts
        .map(|(n, part)| if n % 2 == 0 { roman(part) } else { bold(part) })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::to_roff;

    /// Check each kind of block, and that the title is omitted.
    #[test]
    fn blocks() {
        let text = "# Title\n\n## A `b`\n\nOne `two`\nthree, [four](five.md).\n\n- six\n  seven\n\n\
            ```\n$ eight | nine\n```\n\n\
            | key | type | meaning | absent when |\n| --- | --- | --- | --- |\n\
            | `k` | int | ten \\| eleven | never |\n\n\
            | key | meaning |\n| --- | --- |\n| `l` | twelve |\n";
        let expected = ".SS \"A b\"\n.PP\nOne \\fBtwo\\fR three, four.\n.IP \\(bu 2\nsix seven\n\
            .PP\n.nf\n$ eight | nine\n.fi\n\
            .TP\n\\fBk\\fR (int)\nten | eleven\n.br\nabsent when: never\n\
            .TP\n\\fBl\\fR\ntwelve\n";
        assert_eq!(to_roff(text, "SS").to_roff(), expected);
    }
}
