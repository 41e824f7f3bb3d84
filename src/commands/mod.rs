// SPDX-License-Identifier: MIT OR Apache-2.0
//! The commands: each converts its options to settings, and runs the layers below with them.

use anyhow::Result;

use crate::attach::libbpf_log;
use crate::cli::Cli;
use crate::cli::Subcommands;
use crate::commands::ending::Ending;

mod advise;
mod check;
mod choice;
pub mod ending;
mod inflight;
mod layout;
mod live;
mod manual;
mod reading;
mod recorded;
mod summary;
mod top;
mod trace;
mod waterfall;

/// Runs the command.
pub fn execute(cli: &Cli) -> Result<Ending> {
    libbpf_log::show(cli.trace.choice.verbose);
    let is_fine = match (cli.generate, &cli.command) {
        (Some(what), _) => manual::generate(what).map(|()| true),
        (None, None) => trace::trace(&cli.trace),
        (None, Some(Subcommands::Advise(options))) => return advise::advise(options),
        (None, Some(Subcommands::Check(options))) => check::check(options),
        (None, Some(Subcommands::Inflight(options))) => inflight::inflight(options),
        (None, Some(Subcommands::Summary(options))) => summary::summary(options),
        (None, Some(Subcommands::Top(options))) => top::top(options),
        (None, Some(Subcommands::Waterfall(options))) => waterfall::waterfall(options),
        (None, Some(Subcommands::Layout { file })) => layout::print_layout(file).map(|()| true),
    };
    is_fine.map(Ending::from)
}
