// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reports where the time of every nginx request went. This file parses the command line, runs the
//! command, and turns its result into an exit code.

use std::process::ExitCode;

use clap::Parser as _;

use ngx_bpf::cli::Cli;
use ngx_bpf::cli::complaint;
use ngx_bpf::commands;
use ngx_bpf::commands::ending::Ending;
use ngx_bpf::host::stderr;

/// The exit code when something could not be done.
const FAILED: u8 = 1;

/// The exit code when `advise` has found something.
const FOUND: u8 = 3;

/// The exit code when the command line could not be understood.
const BAD_USAGE: u8 = 2;

fn main() -> ExitCode {
    let cli = match Cli::try_parse().and_then(Cli::checked) {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() => {
            stderr::print_error(complaint::one_line(&error));
            return ExitCode::from(BAD_USAGE);
        }
        Err(help) => {
            let _ = help.print();
            return ExitCode::SUCCESS;
        }
    };
    match commands::execute(&cli) {
        Ok(Ending::Fine) => ExitCode::SUCCESS,
        Ok(Ending::Failed) => ExitCode::from(FAILED),
        Ok(Ending::Found) => ExitCode::from(FOUND),
        Err(error) => {
            stderr::print_error(format_args!("{error:#}"));
            ExitCode::from(FAILED)
        }
    }
}
