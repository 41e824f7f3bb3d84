// SPDX-License-Identifier: MIT OR Apache-2.0
//! The options about the processes of nginx.

use clap::Args;

use super::value::PidList;

/// The options that choose nginx processes.
#[derive(Args, Debug)]
pub struct Pids {
    /// Trace only these nginx: a master with all its workers, or a single worker. Several pids are
    /// separated by spaces, commas or newlines, as pgrep prints them; may be repeated [default: every
    /// nginx that runs]
    #[arg(short, long, value_name = "PID", num_args = 1..)]
    pid: Vec<PidList>,
}

impl Pids {
    /// The pids that the user named, in order; empty for every nginx.
    pub fn named(&self) -> Vec<u32> {
        self.pid.iter().flat_map(|list| &list.0).copied().collect()
    }
}
