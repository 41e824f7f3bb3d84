// SPDX-License-Identifier: MIT OR Apache-2.0
//! The commands: each converts its options to settings, and runs the layers below with them.

use anyhow::Result;

use crate::attach::libbpf_log;
use crate::cli::Cli;
use crate::cli::Subcommands;

mod check;
mod inflight;
mod layout;
mod manual;
mod reading;
mod trace;

/// Runs the command. Returns false when it failed and the error was reported.
pub fn execute(cli: &Cli) -> Result<bool> {
    libbpf_log::show(cli.trace.verbose);
    match (cli.generate, &cli.command) {
        (Some(what), _) => manual::generate(what).map(|()| true),
        (None, None) => trace::trace(&cli.trace),
        (None, Some(Subcommands::Check(options))) => check::check(options),
        (None, Some(Subcommands::Inflight(options))) => inflight::inflight(options),
        (None, Some(Subcommands::Layout { file })) => layout::print_layout(file).map(|()| true),
    }
}
