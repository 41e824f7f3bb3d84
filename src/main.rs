// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tells where the time of every nginx request went. This file parses the command line, runs what
//! it asks for, and turns the result into an exit code; docs/design.md tells the rest.

use std::process::ExitCode;

use clap::Parser as _;
use libbpf_rs::PrintLevel;

use crate::cli::Cli;
use crate::cli::Command;
use crate::host::stderr;
use crate::host::stderr::Patience;
use crate::output::escape::Line;

mod attach;
mod bpf;
mod cli;
mod commands;
mod decode;
mod follow;
mod host;
mod metrics;
mod output;
mod pipeline;

/// Exit code for what could not be done.
const FAILED: u8 = 1;

/// Exit code for what could not be understood.
const BAD_USAGE: u8 = 2;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() => {
            return complain(
                BAD_USAGE,
                format_args!("{}", cli::complaint::one_line(&error)),
            );
        }
        Err(help) => {
            let _ = help.print();
            return ExitCode::SUCCESS;
        }
    };
    libbpf_rs::set_print(
        cli.trace
            .verbose
            .then_some((PrintLevel::Warn, print_libbpf)),
    );
    let result = match (cli.generate, &cli.command) {
        (Some(what), _) => commands::manual::run(what).map(|()| true),
        (None, None) => pipeline::run(&cli.trace),
        (None, Some(Command::Check(options))) => commands::check::run(options),
        (None, Some(Command::Layout { file })) => commands::print::run(file).map(|()| true),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(FAILED),
        Err(error) => complain(FAILED, format_args!("{error:#}")),
    }
}

/// What libbpf and the kernel's verifier say when they refuse something.
fn print_libbpf(_: PrintLevel, text: String) {
    text.lines()
        .for_each(|line| stderr::say(Line(line), Patience::Long));
}

/// One line on stderr, and the exit code.
fn complain(code: u8, what: std::fmt::Arguments<'_>) -> ExitCode {
    stderr::say(Line(what), Patience::Long);
    ExitCode::from(code)
}
