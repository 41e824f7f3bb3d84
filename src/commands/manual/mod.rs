// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ngx-bpf --generate`: the man page and the completions of shells, generated from the definition
//! of the options. The man page takes its section on records from docs/fields.md, and the rest from
//! docs/manual.md.

use std::io;

use anyhow::Context as _;
use anyhow::Result;
use clap::Command;
use clap::CommandFactory as _;
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::Roff;
use clap_mangen::roff::bold;
use clap_mangen::roff::roman;

use crate::cli::Cli;
use crate::cli::Generate;
use crate::output;

mod markdown;

/// The documentation of every key of a record.
const FIELDS: &str = include_str!("../../../docs/fields.md");

/// The parts of the man page that describe neither options nor keys.
const MANUAL: &str = include_str!("../../../docs/manual.md");

/// The number and the name of the manual section.
const SECTION: (&str, &str) = ("8", "System Administration");

/// The beginning of the paragraph with exit codes, the last one of a help text.
const EXIT_STATUS: &str = "Exit status: ";

/// Writes the man page or completions to stdout.
pub fn generate(what: Generate) -> Result<()> {
    let text = match what {
        Generate::Man => page().context("failed to make the man page")?,
        Generate::ManAdvise => page_of("advise")?,
        Generate::ManCheck => page_of("check")?,
        Generate::ManInflight => page_of("inflight")?,
        Generate::ManLayout => page_of("layout")?,
        Generate::ManSummary => page_of("summary")?,
        Generate::ManTop => page_of("top")?,
        Generate::ManWaterfall => page_of("waterfall")?,
        Generate::Bash => completions(Shell::Bash),
        Generate::Zsh => completions(Shell::Zsh),
        Generate::Fish => completions(Shell::Fish),
    };
    output::print(&text)
}

/// Returns the completions for a shell.
fn completions(shell: Shell) -> Vec<u8> {
    let mut command = Cli::command();
    let name = command.get_name().to_owned();
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut text);
    text
}

/// Returns the man page.
fn page() -> io::Result<Vec<u8>> {
    let mut command = Cli::command();
    command.build();
    let man = Man::new(command.clone())
        .section(SECTION.0)
        .manual(SECTION.1);
    let (notes, exit_status) = notes(&command);
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    synopsis(&command).to_writer(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    paragraphs(&notes).to_writer(&mut text)?;
    commands_section(&command).to_writer(&mut text)?;
    exit_status_section(&exit_status).to_writer(&mut text)?;
    heading("SH", "RECORDS").to_writer(&mut text)?;
    markdown::to_roff(FIELDS, "SS").to_writer(&mut text)?;
    markdown::to_roff(MANUAL, "SH").to_writer(&mut text)?;
    Ok(ascii(&String::from_utf8_lossy(&text)))
}

/// Escapes all characters but ASCII, which every roff reads in any locale.
fn ascii(text: &str) -> Vec<u8> {
    let mut ascii = Vec::with_capacity(text.len());
    for c in text.chars() {
        match u8::try_from(c) {
            Ok(byte) if byte.is_ascii() => ascii.push(byte),
            _ => ascii.extend(format!("\\[u{:04X}]", u32::from(c)).into_bytes()),
        }
    }
    ascii
}

/// Returns all commands except clap's own `help`.
fn commands(command: &Command) -> impl Iterator<Item = &Command> {
    let commands = command.get_subcommands();
    commands.filter(|command| command.get_name() != "help")
}

/// Returns the synopsis, with one line for each command.
fn synopsis(command: &Command) -> Roff {
    let mut roff = heading("SH", "SYNOPSIS");
    for mut command in std::iter::once(command).chain(commands(command)).cloned() {
        let usage = command.render_usage().to_string();
        let first = usage.lines().next().unwrap_or_default();
        roff.text([roman(first.trim_start_matches("Usage: "))]);
        roff.control("br", []);
    }
    roff
}

/// Returns the text after the options in a help text: the notes, and the exit status.
fn notes(command: &Command) -> (String, String) {
    let notes = command.get_after_help().map(ToString::to_string);
    let notes = notes.unwrap_or_default();
    let split = notes.split_once(EXIT_STATUS);
    let (notes, status) = split.unwrap_or((notes.as_str(), ""));
    (notes.to_owned(), status.to_owned())
}

/// Returns a paragraph for each line.
fn paragraphs(text: &str) -> Roff {
    let mut roff = Roff::new();
    for line in text.lines() {
        roff.control("PP", []);
        roff.text([roman(line)]);
    }
    roff
}

/// Returns the section with an entry for each command, which has a page of its own.
fn commands_section(command: &Command) -> Roff {
    let mut roff = heading("SH", "COMMANDS");
    for command in commands(command) {
        let (name, about) = (command.get_name(), command.get_about());
        roff.control("TP", []);
        roff.text([bold(name)]);
        let about = about.map(ToString::to_string).unwrap_or_default();
        roff.text([roman(format!(
            "{about}. See ngx-bpf-{name}({}).",
            SECTION.0
        ))]);
    }
    roff
}

/// Returns the man page of a command.
fn page_of(name: &str) -> Result<Vec<u8>> {
    let mut all = Cli::command();
    all.build();
    let command = all
        .find_subcommand(name)
        .context("there is no such command")?;
    let page = command_page(command);
    page.with_context(|| format!("failed to make the man page of {name}"))
}

/// Returns the man page of a command of this definition.
fn command_page(command: &Command) -> io::Result<Vec<u8>> {
    let man = Man::new(command.clone())
        .title(format!("ngx-bpf-{}", command.get_name()))
        .section(SECTION.0)
        .manual(SECTION.1);
    let (notes, exit_status) = notes(command);
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    let mut name = heading("SH", "NAME");
    let about = command.get_about().map(ToString::to_string);
    name.text([roman(format!(
        "ngx-bpf-{} - {}",
        command.get_name(),
        about.unwrap_or_default()
    ))]);
    name.to_writer(&mut text)?;
    let mut synopsis = heading("SH", "SYNOPSIS");
    let usage = command.clone().render_usage().to_string();
    synopsis.text([roman(usage.trim_start_matches("Usage: "))]);
    synopsis.to_writer(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    paragraphs(&notes).to_writer(&mut text)?;
    exit_status_section(&exit_status).to_writer(&mut text)?;
    let mut see = heading("SH", "SEE ALSO");
    see.text([
        bold("ngx-bpf"),
        roman("(8), and in /usr/share/doc/ngx-bpf views.md and fields.md."),
    ]);
    see.to_writer(&mut text)?;
    Ok(ascii(&String::from_utf8_lossy(&text)))
}

/// Returns the section with an entry for each exit code.
fn exit_status_section(text: &str) -> Roff {
    let mut roff = heading("SH", "EXIT STATUS");
    let text = text.trim_end_matches('.');
    for (code, meaning) in text.split("; ").filter_map(|entry| entry.split_once(' ')) {
        roff.control("TP", []);
        roff.text([bold(code)]);
        roff.text([roman(meaning)]);
    }
    roff
}

/// Returns a heading.
fn heading(level: &str, title: &str) -> Roff {
    let mut roff = Roff::new();
    roff.control(level, [title]);
    roff
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::MANUAL;
    use crate::cli::Cli;

    /// Check that there are ten examples, each with a valid command line.
    #[test]
    fn examples() {
        let calls = MANUAL.lines().filter_map(|line| {
            let (before, arguments) = line.split_once("ngx-bpf ")?;
            (before.is_empty() || before == "sudo ").then_some(arguments)
        });
        let calls: Vec<_> = calls.collect();
        assert!(calls.len() >= 10, "{calls:?}");
        for call in calls {
            let arguments = call.split(['|', '>']).next().unwrap();
            let arguments = arguments.replace("$(cat /run/nginx.pid)", "1");
            let arguments = arguments.replace("$(pgrep -f \"nginx: worker\")", "1 2");
            let words = arguments.split_whitespace();
            let parsed = Cli::try_parse_from(std::iter::once("ngx-bpf").chain(words));
            assert!(parsed.is_ok(), "{call}: {}", parsed.unwrap_err());
        }
    }
}
