// SPDX-License-Identifier: MIT OR Apache-2.0
//! The commands: each turns its options into settings, and runs what they ask for.

use anyhow::Result;

use crate::attach::libbpf_log;
use crate::cli::Cli;
use crate::cli::Subcommands;

mod check;
mod layout;
mod manual;
mod trace;

/// Runs what the command line asks for. Returns false when it failed in a way that was reported.
pub fn execute(cli: &Cli) -> Result<bool> {
    libbpf_log::show(cli.trace.verbose);
    match (cli.generate, &cli.command) {
        (Some(what), _) => manual::generate(what).map(|()| true),
        (None, None) => trace::trace(&cli.trace),
        (None, Some(Subcommands::Check(options))) => check::check(options),
        (None, Some(Subcommands::Layout { file })) => layout::print_layout(file).map(|()| true),
    }
}
