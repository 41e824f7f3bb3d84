// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reads every nginx that the user asked for, for commands that attach nothing.

use anyhow::Result;
use nginx_binary::Options;

use crate::cli::layout::LayoutArgs;
use crate::cli::pids::Pids;
use crate::follow::candidate::Candidate;
use crate::follow::lookout;
use crate::follow::lookout::End;
use crate::follow::settings::FileReading;
use crate::follow::settings::ReadingSettings;
use crate::host::descriptors;
use crate::host::pid_namespace;

/// Reads all processes, and passes each on.
///
/// Fails when the processes can't be listed.
pub fn read_all(pids: &Pids, layout: &LayoutArgs, pass_on: impl FnMut(Candidate)) -> Result<End> {
    descriptors::raise_limit();
    pid_namespace::ensure_proc_is_own()?;
    let reading = FileReading {
        settings: ReadingSettings {
            layout: layout_options(layout),
            ..ReadingSettings::default()
        },
        mapped: None,
        capabilities: None,
    };
    lookout::read_all(&pids.named(), &reading, None, pass_on)
}

/// Returns the files that the user named for layouts.
pub fn layout_options(args: &LayoutArgs) -> Options {
    Options {
        layout: args.layout.clone(),
        trust_layout: args.trust_layout,
        debug_info: args.debug_info.clone(),
    }
}
