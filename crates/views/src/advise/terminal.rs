// SPDX-License-Identifier: MIT OR Apache-2.0
//! Findings on a terminal.

use crate::advise::Finding;
use crate::advise::RULES;
use crate::cell::at_most;
use crate::cell::width;
use crate::cell::wrap;
use crate::look::Look;
use crate::units::counted;
use crate::units::time;

/// The columns before what belongs to a finding, and before its advice.
const INDENT: usize = 5;
const ADVICE: usize = 12;

/// The fewest columns that a text gets.
const LEAST: usize = 8;

/// Returns the screen of findings: first the head, which says what was looked at, then each finding with its cost, and
/// at last what was looked at and is fine.
pub fn terminal(findings: &[Finding], looked: &[&str], head: &str, look: Look) -> String {
    let mut screen = Screen {
        text: String::new(),
        look,
    };
    screen.line(0, head);
    for (n, finding) in findings.iter().enumerate() {
        screen.line(0, "");
        screen.finding(n + 1, finding);
    }
    let fine = format!("looked at and fine: {}", looked.join(", "));
    let end = "exit status 3: findings.  --json for tools, --rule NAME for one, --explain NAME";
    for (is_shown, text) in [
        (findings.is_empty(), "nothing found"),
        (!looked.is_empty(), fine.as_str()),
        (!findings.is_empty(), end),
    ] {
        if is_shown {
            screen.line(0, "");
            screen.wrapped(0, 0, text);
        }
    }
    screen.text
}

/// A screen that grows line by line.
struct Screen {
    text: String,
    look: Look,
}

impl Screen {
    /// Adds a line, cut to the width. What is hostile in it is escaped.
    fn line(&mut self, indent: usize, text: &str) {
        let columns = self.look.width.saturating_sub(indent);
        let text = at_most(text, columns, self.look);
        if !text.is_empty() {
            self.text.push_str(&" ".repeat(indent));
            self.text.push_str(&text);
        }
        self.text.push('\n');
    }

    /// Adds a text in as many lines as it needs: the first one has this indent, the others have that one.
    fn wrapped(&mut self, first: usize, others: usize, text: &str) {
        let mut indent = first;
        for line in wrap(
            text,
            self.look.width.saturating_sub(others).max(LEAST),
            self.look,
        ) {
            self.line(indent, &line);
            indent = others;
        }
    }

    /// Adds a finding.
    fn finding(&mut self, number: usize, finding: &Finding) {
        self.title(number, finding);
        for evidence in &finding.evidence {
            self.wrapped(INDENT, INDENT, evidence);
        }
        let places = finding.config.iter().map(|config| ("at", config));
        let rule = RULES.iter().find(|rule| rule.name == finding.rule);
        let verb = rule.map_or("look", |rule| rule.verb);
        let advice = finding.advice.iter().map(|advice| (verb, advice));
        let mut last = "";
        for (label, text) in advice.chain(places) {
            let shown = if label == last { "" } else { label };
            last = label;
            self.labelled(shown, text);
        }
        self.labelled("rule", finding.rule);
    }

    /// Adds the title, and the cost at the right: on the last line of the title if it has room there.
    fn title(&mut self, number: usize, finding: &Finding) {
        let (all, look) = (self.look.width, self.look);
        let cost = cost(finding);
        let number = format!("{number:<2} ");
        let indent = number.len();
        let mut lines = wrap(&finding.title, all.saturating_sub(indent).max(LEAST), look);
        let last = lines.pop().unwrap_or_default();
        for (n, line) in lines.iter().chain([&last]).enumerate() {
            let begin = if n == 0 {
                number.clone()
            } else {
                " ".repeat(indent)
            };
            self.text.push_str(&begin);
            self.text
                .push_str(&look.strong(&at_most(line, all.saturating_sub(indent), look)));
            if n < lines.len() {
                self.text.push('\n');
            }
        }
        let taken = indent + width(&last, look);
        let of_cost = width(&cost, look);
        if cost.is_empty() {
            self.text.push('\n');
        } else if taken + 2 + of_cost <= all {
            self.text.push_str(&" ".repeat(all - taken - of_cost));
            self.text.push_str(&cost);
            self.text.push('\n');
        } else {
            self.text.push('\n');
            self.line(all.saturating_sub(of_cost), &cost);
        }
    }

    /// Adds a text after a label.
    fn labelled(&mut self, label: &str, text: &str) {
        let columns = self.look.width.saturating_sub(ADVICE);
        for (n, line) in wrap(text, columns.max(LEAST), self.look).iter().enumerate() {
            let label = if n == 0 { label } else { "" };
            let room = ADVICE - INDENT;
            self.line(INDENT, &format!("{label:<room$}{line}"));
        }
    }
}

/// Returns what a finding costs: requests that failed or else all that it touched, and the time that they lost.
fn cost(finding: &Finding) -> String {
    let requests = match (finding.failed, finding.requests) {
        (0, Some(number)) => Some(counted(number, "request")),
        (0, None) => None,
        (failed, _) => Some(counted(failed, "failure")),
    };
    let parts: Vec<String> = [requests, finding.lost_ns.map(time)]
        .into_iter()
        .flatten()
        .collect();
    if parts.is_empty() {
        return String::new();
    }
    format!("costs {}", parts.join(", "))
}
