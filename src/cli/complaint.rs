// SPDX-License-Identifier: MIT OR Apache-2.0
//! clap's errors as one line that says what to do instead. clap's own messages have several lines,
//! and a value in them may contain line breaks.

use std::error::Error as _;

use clap::CommandFactory as _;
use clap::error::ContextKind;
use clap::error::ContextValue;
use clap::error::ErrorKind;

use super::Cli;

/// Returns the error as one line that points to the help.
pub fn one_line(error: &clap::Error) -> String {
    format!("{}; try \"ngx-bpf --help\"", explain(error))
}

/// Returns the error, and the option or value that may have been meant.
fn explain(error: &clap::Error) -> String {
    let arg = texts(error, ContextKind::InvalidArg).join(", ");
    let value = texts(error, ContextKind::InvalidValue).join(", ");
    let command = texts(error, ContextKind::InvalidSubcommand).join(", ");
    match error.kind() {
        ErrorKind::InvalidValue if value.is_empty() => format!("\"{arg}\" needs a value"),
        ErrorKind::InvalidValue => {
            let values = texts(error, ContextKind::ValidValue).join(", ");
            let meant = meant(error, ContextKind::SuggestedValue);
            format!("invalid value \"{value}\" for \"{arg}\"{meant} (it takes {values})")
        }
        ErrorKind::ValueValidation => {
            let why = error.source().map(ToString::to_string);
            let why = why.unwrap_or_default();
            format!("invalid value \"{value}\" for \"{arg}\": {why}")
        }
        ErrorKind::UnknownArgument => {
            let meant = meant(error, ContextKind::SuggestedArg);
            format!("there is no option \"{arg}\"{meant}")
        }
        ErrorKind::InvalidSubcommand => {
            let meant = meant(error, ContextKind::SuggestedSubcommand);
            format!("there is no command \"{command}\"{meant}")
        }
        ErrorKind::MissingRequiredArgument => format!("\"{arg}\" is missing"),
        ErrorKind::ArgumentConflict if is_command(&command) => {
            format!("the command \"{command}\" comes first, and its options after it")
        }
        ErrorKind::ArgumentConflict if !command.is_empty() => {
            let before = texts(error, ContextKind::PriorArg).join(", ");
            format!(
                "\"{command}\" is neither an option nor a command, and \"{before}\" has its value \
                 already: put a value with spaces into quotes"
            )
        }
        _ => first_line(&error.to_string()),
    }
}

/// Returns the first line of clap's own message.
fn first_line(text: &str) -> String {
    let first = text.lines().next().unwrap_or_default();
    first.strip_prefix("error: ").unwrap_or(first).to_owned()
}

/// Returns the name that may have been meant, if clap has found one.
fn meant(error: &clap::Error, kind: ContextKind) -> String {
    match texts(error, kind).last() {
        Some(text) => format!(": did you mean \"{text}\"?"),
        None => String::new(),
    }
}

/// Returns the texts of one kind, with line breaks escaped.
fn texts(error: &clap::Error, kind: ContextKind) -> Vec<String> {
    let texts = match error.get(kind) {
        Some(ContextValue::String(text)) => std::slice::from_ref(text),
        Some(ContextValue::Strings(texts)) => texts,
        _ => &[],
    };
    texts
        .iter()
        .map(|text| text.escape_debug().to_string())
        .collect()
}

/// Returns whether a command has this name.
fn is_command(name: &str) -> bool {
    name == "help" || Cli::command().find_subcommand(name).is_some()
}
